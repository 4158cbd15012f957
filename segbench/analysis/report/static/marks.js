// What a figure shows, as marks: the one place from which both its drawing and the sentences beside it come.
"use strict";
SB.distinct = (values) => [...new Set(values)];
SB.columnName = (name) => (name === "@metric" ? SB.state.metric : name);
SB.metricName = () => SB.metrics.get(SB.state.metric);
SB.axisTitle = (name) => (name === "@metric" ? SB.metricName() : name.replaceAll("_", " "));

SB.groupBy = function (rows, key) {
  const groups = new Map();
  for (const row of rows) {
    const value = key(row);
    if (!groups.has(value)) groups.set(value, []);
    groups.get(value).push(row);
  }
  return groups;
};

// A method's title without what stands behind it where its runs were not trained to the end
SB.unmarked = (title) => (typeof title === "string" && title.endsWith(SB.mark) ? title.slice(0, -SB.mark.length) : title);
SB.inOrder = function (column, names) {
  const known = SB.order[SB.ORDERED[column]];
  if (!known) return names;
  SB.places ??= Object.fromEntries(Object.entries(SB.order).map(([kind, list]) => [kind, new Map(list.map((name, n) => [name, n]))]));
  const places = SB.places[SB.ORDERED[column]];
  const place = (name) => (name === "all" ? -1 : places.get(SB.unmarked(name)) ?? Infinity);
  return [...names].sort((a, b) => (place(a) === place(b) ? String(a).localeCompare(String(b)) : place(a) < place(b) ? -1 : 1));
};

// {facets, groups, marks, chosen}: chosen says whether any row was let through, marks hold what can be drawn of them
SB.view = function (spec) {
  const choices = SB.fragment("");
  if (spec.seen?.choices !== choices) Object.defineProperty(spec, "seen", { value: { choices, view: SB.newView(spec) }, configurable: true });
  return spec.seen.view;
};

SB.newView = function (spec) {
  const frame = SB.frames.get(spec.frame);
  const rows = frame.select(spec.where);
  const names = (column) => (column ? SB.inOrder(column, SB.distinct(rows.map((row) => frame.column(column)[row]))) : [null]);
  const facet = spec.facet ? frame.column(spec.facet) : null;
  const truths = frame.columns.has("n_truth") ? frame.column("n_truth") : null;
  return {
    chosen: rows.length > 0,
    // No true cell in any of the rows: then no score can be
    untrue: Boolean(truths) && rows.length > 0 && rows.every((row) => truths[row] === 0),
    facets: spec.facet ? SB.distinct(rows.map((row) => facet[row])) : [null],
    groups: names(spec.group),
    marks: SB.MARKS[spec.kind](spec, frame, rows),
  };
};

SB.MARKS = {
  // {facet, y, x, value, text}: the mean of a cell's rows, or the row with the greatest value where the figure picks
  heatmap(spec, frame, rows) {
    const column = (name) => (name ? frame.column(name) : null);
    const [x, y, value, facet, text] = [spec.x, spec.y, SB.columnName(spec.value), spec.facet, spec.text].map(column);
    const cells = SB.groupBy(rows, (row) => JSON.stringify([facet && facet[row], y[row], x[row]]));
    return [...cells].map(([key, own]) => {
      const [where, up, across] = JSON.parse(key);
      const known = own.filter((row) => value[row] !== null);
      const best = known.reduce((most, row) => (most === null || value[row] > value[most] ? row : most), null);
      return {
        facet: where, y: up, x: across, rows: own,
        value: spec.pick ? (best === null ? null : value[best]) : SB.mean(own.map((row) => value[row])),
        text: text ? text[spec.pick ? best ?? own[0] : own[0]] : null,
      };
    });
  },

  // {facet, y, group, value}: counts add up, what is measured is averaged
  bars(spec, frame, rows) {
    const y = frame.column(spec.y), value = frame.column(SB.columnName(spec.x));
    const facet = spec.facet ? frame.column(spec.facet) : null, group = spec.group ? frame.column(spec.group) : null;
    const known = rows.filter((row) => value[row] !== null);
    const bars = SB.groupBy(known, (row) => JSON.stringify([facet && facet[row], group && group[row], y[row]]));
    return [...bars].map(([key, own]) => {
      const [where, of, up] = JSON.parse(key);
      const values = own.map((row) => value[row]);
      return { facet: where, group: of, y: up, value: spec.x === "runs" ? values.reduce((a, b) => a + b, 0) : SB.mean(values) };
    });
  },

  // {facet, title, value}: lines across a figure of bars
  lines_across(spec) {
    const frame = SB.frames.get(spec.reference);
    const [facet, title, value] = [spec.facet, "title", SB.columnName(spec.x)].map((name) => frame.column(name));
    return frame.select().filter((row) => value[row] !== null).map((row) => ({ facet: facet[row], title: title[row], value: value[row] }));
  },

  // {facet, y, group, value, low, high}: a row each
  dots(spec, frame, rows) {
    const y = frame.column(spec.y), value = frame.column(SB.columnName(spec.x));
    const of = (name) => { const values = name ? frame.column(name) : null; return (row) => (values ? values[row] : null); };
    const [facet, group, low, high] = [of(spec.facet), of(spec.group), of(spec.low), of(spec.high)];
    return rows.filter((row) => value[row] !== null && !(spec.log_x && value[row] <= 0))
      .map((row) => ({ facet: facet(row), group: group(row), y: y[row], value: value[row], low: low(row), high: high(row) }));
  },

  // {facet, x, y, group, label}: a row each
  scatter(spec, frame, rows) {
    const x = frame.column(SB.columnName(spec.x)), y = frame.column(SB.columnName(spec.y));
    const of = (name) => { const values = name ? frame.column(name) : null; return (row) => (values ? values[row] : null); };
    const [facet, group, label] = [of(spec.facet), of(spec.group), of(spec.label)];
    return rows.filter((row) => x[row] !== null && y[row] !== null && (!spec.log_x || x[row] > 0))
      .map((row) => ({ facet: facet(row), group: group(row), label: label(row), x: x[row], y: y[row] }));
  },

  // {facet, group, x, y}: along each line; relative ones as a share of the line's first value
  lines(spec, frame, rows) {
    const x = frame.column(SB.columnName(spec.x)), y = frame.column(SB.columnName(spec.y));
    const facet = spec.facet ? frame.column(spec.facet) : null, group = spec.group ? frame.column(spec.group) : null;
    const known = rows.filter((row) => y[row] !== null);
    const lines = SB.groupBy(known, (row) => JSON.stringify([facet && facet[row], group && group[row]]));
    return [...lines].flatMap(([key, own]) => {
      const [where, of] = JSON.parse(key);
      const at = SB.groupBy(own, (row) => x[row]);
      const points = [...at.keys()].sort((a, b) => a - b).map((value) => ({ facet: where, group: of, x: value, y: SB.mean(at.get(value).map((row) => y[row])) }));
      const first = spec.relative ? points.find((point) => point.y > 0)?.y ?? 1 : 1;
      return points.map((point) => ({ ...point, y: point.y / first }));
    });
  },
};

// The points that no other is both left of and above (the fastest first); equal ones are all on it
SB.onFront = function (points) {
  return points.filter((a) => !points.some((b) => b.x <= a.x && b.y >= a.y && (b.x < a.x || b.y > a.y))).sort((a, b) => a.x - b.x || b.y - a.y);
};
