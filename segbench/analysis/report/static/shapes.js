// Draws each kind of figure with Plotly from its marks.
"use strict";
SB.ticks = (names) => ({ tickmode: "array", tickvals: names.map((_, n) => n), ticktext: names.map((name) => SB.plain(SB.cut(name))) });
SB.names = (column, marks, of) => SB.inOrder(column, SB.distinct(marks.map((mark) => mark[of])));
SB.edge = () => (SB.isDark() ? "#171b21" : "#ffffff");
SB.pale = () => (SB.isDark() ? "#4a545f" : "#c3cbd3");
SB.sides = (names) => Math.min(240, 18 + Math.max(0, ...names.map((name) => SB.textWidth(SB.cut(name)))));

// The text of a cell as far as there is room for it
SB.fitText = function (text, room, size, whole) {
  if (SB.textWidth(text, size) <= room) return text;
  if (whole) return "";
  for (let length = text.length - 2; length >= 4; length--) {
    const cut = text.slice(0, length).trimEnd() + "…";
    if (SB.textWidth(cut, size) <= room) return cut;
  }
  return "";
};

SB.DRAW = {
  heatmap(spec, marks, shared) {
    const at = new Map(marks.map((mark) => [JSON.stringify([mark.y, mark.x]), mark]));
    const ys = SB.names(spec.y, marks, "y"), xs = SB.names(spec.x, marks, "x");
    const cell = (y, x) => at.get(JSON.stringify([y, x]));
    const z = ys.map((y) => xs.map((x) => cell(y, x)?.value ?? null));
    const scale = spec.diverging ? SB.DIVERGING : SB.SEQUENTIAL;
    const [low, high] = shared.range ?? [0, 1];
    // Numbers that would not fit are left to the pointer
    const words = spec.text ? marks.map((mark) => String(mark.text ?? "")) : [];
    const width = Math.max(SB.leastCell(words), (shared.width - SB.sides(ys) - 40) / xs.length) - 6;
    const written = ys.flatMap((y, j) => xs.map((x, i) => ({ x: i, y: j, value: z[j][i], mark: cell(y, x) })))
      .filter(({ value }) => value !== null)
      .map((one) => ({ ...one, text: SB.plain(SB.fitText(spec.text ? String(one.mark.text ?? "") : SB.shown(spec, one.value), width, 11, !spec.text)) }));
    const fits = spec.text ? written : written.every(({ text }) => text) ? written : [];
    const lacks = ys.flatMap((y, j) => xs.map((x, i) => ({ x: i, y: j, value: z[j][i] }))).filter(({ value }) => value === null);
    const told = ys.map((y) => xs.map((x) => `${SB.plain(y)}<br>${SB.plain(x)}${spec.text && cell(y, x)?.text ? "<br>" + SB.plain(cell(y, x).text) : ""}`));
    const angled = xs.some((name) => SB.textWidth(SB.cut(name)) > width + 4);
    const longest = Math.max(0, ...xs.map((name) => SB.textWidth(SB.cut(name))));
    return {
      empty: !marks.some((mark) => mark.value !== null),
      // Plotly leaves a plot 64 pixels and then cuts labels off
      height: Math.max(64, ys.length * 26) + 50 + (angled ? Math.round(longest * 0.68) : 16),
      grid: { rows: ys, columns: xs.length, words },
      traces: [{
        type: "heatmap", z, x: xs.map((_, n) => n), y: ys.map((_, n) => n), hovertext: told, xgap: 2, ygap: 2, zmin: shared.range?.[0], zmax: shared.range?.[1],
        colorscale: scale, showscale: false, hoverongaps: false,
        hovertemplate: `%{hovertext}<br><b>%{z:${spec.diverging ? "+" : ""}.${spec.whole ? 0 : 4}f}</b><extra></extra>`,
      }, {
        // Plotly's own texts of a heat map are grey on grey in the middle of the scale
        type: "scatter", mode: "text", x: fits.map(({ x }) => x), y: fits.map(({ y }) => y), text: fits.map(({ text }) => text), hoverinfo: "skip",
        textfont: { size: 11, color: fits.map(({ value }) => SB.inkOn(SB.colourAt(scale, (value - low) / (high - low)))) },
      }, ...(lacks.length ? [SB.lacking(lacks, told, ys, xs)] : []), ...(lacks.length && width > 8 ? [{
        type: "scatter", mode: "text", name: "missing", x: lacks.map(({ x }) => x), y: lacks.map(({ y }) => y), text: lacks.map(() => "–"), hoverinfo: "skip",
        textfont: { size: 11, color: SB.isDark() ? "#c3cbd3" : "#52606d" },
      }] : [])],
      layout: {
        xaxis: { ...SB.ticks(xs), title: { text: spec.x_title }, range: [-0.5, xs.length - 0.5], showgrid: false, zeroline: false, tickangle: angled ? -40 : 0, ticks: "" },
        yaxis: { ...SB.ticks(ys), title: { text: spec.y_title }, range: [ys.length - 0.5, -0.5], showgrid: false, zeroline: false, ticks: "" },
      },
    };
  },

  bars(spec, marks, shared) {
    const ys = SB.names(spec.y, marks, "y");
    const at = new Map(marks.map((mark) => [JSON.stringify([mark.group, mark.y]), mark.value]));
    const value = (group, name) => at.get(JSON.stringify([group, name])) ?? null;
    const single = !spec.group;
    const own = single ? SB.look(spec.y, ys, "bars") : null;
    const colours = (group) => (!single ? shared.look.get(group).colour : SB.ORDERED[spec.y] === "method" ? ys.map((name) => own.get(name).colour) : SB.COLOURS[0]);
    const totals = ys.map((name) => shared.groups.reduce((sum, group) => sum + (value(group, name) ?? 0), 0));
    const room = shared.width - SB.sides(ys) - 30;
    const axis = spec.unit === "seconds" ? SB.timeAxis(totals, false, room) : spec.whole || spec.x === "runs" ? SB.wholeAxis(Math.max(1, ...totals), room) : {};
    const traces = shared.groups.map((group) => ({
      type: "bar", orientation: "h", y: ys.map((_, n) => n), x: ys.map((name) => value(group, name)),
      marker: { color: colours(group), line: { width: 1, color: SB.edge() } },
      text: single ? ys.map((name) => (value(group, name) === null ? "" : SB.shown(spec, value(group, name)))) : undefined,
      textposition: single ? "outside" : "none", textangle: 0, cliponaxis: false, textfont: { size: 11 },
      hovertext: ys.map((name) => SB.plain(name) + (group === null ? "" : `<br>${SB.plain(group)}`) + `<br><b>${value(group, name) === null ? "" : SB.shown(spec, value(group, name))}</b>`), hovertemplate: "%{hovertext}<extra></extra>",
    }));
    return {
      empty: !marks.length,
      height: Math.max(110, ys.length * 26 + 64),
      traces,
      layout: {
        margin: { r: single ? 52 : 12 },
        xaxis: { title: { text: SB.axisTitle(spec.x_title || spec.x) }, range: shared.range ?? undefined, rangemode: "tozero", ...axis },
        yaxis: { ...SB.ticks(ys), autorange: "reversed", ticks: "", showgrid: false, zeroline: false },
      },
    };
  },

  dots(spec, marks, shared) {
    const ys = SB.names(spec.y, marks, "y");
    const place = new Map(ys.map((name, n) => [name, n]));
    const several = spec.low && shared.groups.length > 1;
    // Intervals of several groups at one place would hide each other: they stand below each other
    const shift = (n) => (several ? (n - (shared.groups.length - 1) / 2) * 0.22 : 0);
    const rows = spec.group ? null : SB.look(spec.y, ys, "dots");
    const ofMethod = !spec.group && SB.ORDERED[spec.y] === "method";
    const traces = shared.groups.map((group, n) => {
      const own = marks.filter((mark) => mark.group === group);
      const looks = own.map((mark) => (ofMethod ? rows.get(mark.y) : spec.group ? shared.look.get(group) : { colour: SB.COLOURS[0], symbol: "circle" }));
      const said = (mark) => `${SB.plain(mark.y)}${group === null ? "" : "<br>" + SB.plain(group)}<br><b>${SB.shown(spec, mark.value)}</b>${mark.low === null || mark.high === null ? "" : ` (${SB.shown(spec, mark.low)} to ${SB.shown(spec, mark.high)})`}`;
      return {
        type: "scatter", mode: "markers", x: own.map((mark) => mark.value), y: own.map((mark) => place.get(mark.y) + shift(n)),
        marker: { size: 10, color: looks.map((look) => look.colour), symbol: looks.map((look) => look.symbol) },
        error_x: spec.low ? { type: "data", symmetric: false, array: own.map((mark) => (mark.high ?? mark.value) - mark.value), arrayminus: own.map((mark) => mark.value - (mark.low ?? mark.value)), color: spec.group ? looks[0]?.colour : SB.isDark() ? "#aab4bf" : "#52606d", thickness: 1.5, width: 4 } : undefined,
        hovertext: own.map(said), hovertemplate: "%{hovertext}<extra></extra>",
      };
    });
    const values = marks.flatMap((mark) => [mark.value, mark.low, mark.high]).filter((value) => value !== null);
    const room = shared.width - SB.sides(ys) - 30;
    const axis = spec.unit === "seconds" ? SB.timeAxis(values, spec.log_x, room) : spec.whole ? SB.wholeAxis(Math.max(1, ...values), room) : spec.signed ? { rangemode: "tozero" } : {};
    return {
      empty: !marks.length,
      height: Math.max(120, ys.length * (several ? 16 + 12 * shared.groups.length : 26) + 70),
      traces,
      layout: {
        xaxis: { title: { text: SB.axisTitle(spec.x_title || spec.x) }, type: spec.log_x ? "log" : "linear", range: spec.range ?? undefined, zeroline: !spec.log_x && !spec.whole, ...axis },
        yaxis: { ...SB.ticks(ys), range: [ys.length - 0.4, -0.6], zeroline: false, ticks: "" },
      },
    };
  },

  scatter(spec, marks, shared) {
    const direct = spec.label && spec.label === spec.group;
    // What is pale is drawn first, under what is not
    const order = [...shared.groups].sort((a, b) => shared.coloured.has(a) - shared.coloured.has(b));
    const said = (value, unit) => (unit === "seconds" ? SB.duration(value) : Number(value.toPrecision(4)).toLocaleString("en"));
    const traces = order.map((group) => {
      const own = marks.filter((mark) => mark.group === group);
      const look = shared.look.get(group), on = shared.coloured.has(group);
      const who = (mark) => SB.distinct([mark.group, mark.label].filter((name) => name !== null)).map(SB.plain).join("<br>");
      return {
        type: "scatter", mode: "markers", x: own.map((mark) => mark.x), y: own.map((mark) => mark.y), cliponaxis: false,
        marker: { size: on ? 10 : 6, color: on ? look.colour : SB.pale(), symbol: look.symbol, line: { width: 1, color: SB.edge() } },
        hovertext: own.map((mark) => `${who(mark)}<br>${said(mark.x, spec.unit)}, <b>${said(mark.y)}</b>`), hovertemplate: "%{hovertext}<extra></extra>",
      };
    });
    const front = spec.front ? SB.onFront(marks) : [];
    if (front.length) traces.unshift({
      type: "scatter", mode: "lines", x: front.map((mark) => mark.x), y: front.map((mark) => mark.y), hoverinfo: "skip", name: "front",
      line: { color: SB.isDark() ? "#aab4bf" : "#52606d", dash: "dot", width: 1.5 },
    });
    const first = new Set(front);
    const labels = [...marks].sort((a, b) => first.has(b) - first.has(a)).map((mark) => ({ x: mark.x, y: mark.y, text: mark.label }));
    const axis = spec.unit === "seconds" ? SB.timeAxis(marks.map((mark) => mark.x), spec.log_x, shared.width - 80) : spec.log_x ? { type: "log" } : {};
    return {
      empty: !marks.length,
      height: direct && marks.length > 8 ? 460 : 340,
      traces,
      after: direct ? (box) => SB.labelPoints(box, labels) : null,
      layout: {
        xaxis: { title: { text: SB.axisTitle(spec.x_title || spec.x) }, ...axis },
        yaxis: { title: { text: SB.axisTitle(spec.y_title || spec.y) }, type: spec.log_y ? "log" : "linear", range: spec.range ?? undefined },
      },
    };
  },

  lines(spec, marks, shared) {
    const order = [...shared.groups].sort((a, b) => shared.coloured.has(a) - shared.coloured.has(b));
    const ends = [];
    const traces = order.map((group) => {
      const own = marks.filter((mark) => mark.group === group);
      const look = shared.look.get(group), on = shared.coloured.has(group);
      const ys = own.map((mark) => mark.y);
      const most = spec.best && on ? ys.indexOf(Math.max(...ys)) : -1;
      if (on && own.length && group !== null) ends.push({ x: own.at(-1).x, y: own.at(-1).y, text: group, colour: look.colour });
      return {
        type: "scatter", mode: on && (own.length <= 12 || spec.best) ? "lines+markers" : "lines", x: own.map((mark) => mark.x), y: ys,
        line: { color: on ? look.colour : SB.pale(), dash: on ? look.dash : "solid", width: on ? 2 : 1 },
        marker: { size: ys.map((_, n) => (n === most ? 13 : own.length > 12 ? 3 : 5)), color: look.colour, symbol: ys.map((_, n) => (n === most ? "circle-open-dot" : look.symbol)) },
        hovertemplate: `${SB.plain(group ?? "")}<br>%{x:.4~g}: <b>%{y:.4~g}</b><extra></extra>`,
      };
    });
    const direct = shared.width >= 360;
    return {
      empty: !marks.length,
      height: 340,
      traces,
      after: direct ? (box) => SB.labelLines(box, ends) : null,
      layout: {
        margin: { r: direct ? 24 + Math.max(0, ...ends.map((end) => SB.textWidth(SB.cut(end.text, 18), 11))) : 12 },
        xaxis: { title: { text: SB.axisTitle(spec.x_title || spec.x) }, zeroline: false, ...(spec.whole ? SB.wholeAxis(Math.max(1, ...marks.map((mark) => mark.x)), shared.width - 150) : {}) },
        yaxis: { title: { text: SB.axisTitle(spec.y_title || spec.y) } },
      },
    };
  },
};

// Cells without a value: a colour that is none of the scale's, and words for the pointer
SB.lacking = (lacks, told, ys, xs) => {
  const at = new Set(lacks.map(({ x, y }) => `${x} ${y}`));
  const colour = SB.isDark() ? "#2b323b" : "#e9edf1";
  return {
    type: "heatmap", name: "missing", x: xs.map((_, n) => n), y: ys.map((_, n) => n), z: ys.map((_, j) => xs.map((_, i) => (at.has(`${i} ${j}`) ? 0 : null))),
    xgap: 2, ygap: 2, colorscale: [[0, colour], [1, colour]], showscale: false, hoverongaps: false, hovertext: told, hovertemplate: "%{hovertext}<br>not measured<extra></extra>",
  };
};
