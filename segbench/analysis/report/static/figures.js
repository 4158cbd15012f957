// Draws a figure's description with Plotly, one small plot a facet.
"use strict";
// Okabe and Ito's colours, which stay apart for every kind of colour vision; a colour and a mark meet again after 24 groups
SB.COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B8A200", "#888888"];
SB.SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x"];
SB.GLYPHS = ["●", "■", "◆", "▲", "✚", "✖"];
SB.DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
SB.STATUS_COLOURS = { done: "#0072B2", failed: "#D55E00", timeout: "#E69F00", "out-of-memory": "#CC79A7", diverged: "#B8A200", cancelled: "#888888", lost: "#56B4E9" };
SB.PHASE_COLOURS = { environment: "#888888", data: "#B8A200", import: "#009E73", load: "#CC79A7", train: "#0072B2", calibrate: "#56B4E9", save: "#7B4FA8", predict: "#E69F00", evaluate: "#D55E00" };
SB.SEQUENTIAL = [[0, "#00224e"], [0.25, "#35456c"], [0.5, "#7c7b78"], [0.75, "#bcae6c"], [1, "#fee838"]];
SB.DIVERGING = [[0, "#8c510a"], [0.25, "#dfc27d"], [0.5, "#f5f5f5"], [0.75, "#80cdc1"], [1, "#01665e"]];

// The red, green and blue (0 to 255) of a scale at a share of its length
SB.colourAt = function (scale, share) {
  const at = Math.min(1, Math.max(0, share));
  const n = Math.max(1, scale.findIndex(([end]) => end >= at));
  const [[start, from], [end, to]] = [scale[n - 1], scale[n]];
  const part = (at - start) / (end - start);
  const channel = (colour, i) => parseInt(colour.slice(1 + 2 * i, 3 + 2 * i), 16);
  return [0, 1, 2].map((i) => channel(from, i) + part * (channel(to, i) - channel(from, i)));
};

// Black or white, whichever stands out more: a contrast of at least 4.58 (WCAG 2.2, relative luminance)
SB.inkOn = function (rgb) {
  const [r, g, b] = rgb.map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000000" : "#ffffff";
};

SB.distinct = (values) => [...new Set(values)];
SB.columnName = (name) => (name === "@metric" ? SB.state.metric : name);
SB.axisTitle = (name) => (name === "@metric" ? SB.metrics.get(SB.state.metric) : name.replaceAll("_", " "));

// A colour and a mark for each group, the same wherever the group stands: methods by their place in the list of all
SB.look = function (spec, groups) {
  const methods = ["method_title", "title"].includes(spec.group) ? SB.choices.method.map(([, title]) => title) : [];
  return new Map(groups.map((group, place) => {
    const n = methods.includes(group) ? methods.indexOf(group) : place;
    const colour = { status: SB.STATUS_COLOURS, phase: SB.PHASE_COLOURS }[spec.group]?.[group] || SB.COLOURS[n % SB.COLOURS.length];
    const m = n % SB.SYMBOLS.length;
    return [group, { colour, symbol: SB.SYMBOLS[m], glyph: spec.kind === "bars" ? "■" : SB.GLYPHS[m], dash: SB.DASHES[m] }];
  }));
};

SB.buildFigure = function (spec) {
  const plots = SB.make("div", { class: "plots" });
  const legend = SB.make("ul", { class: "legend" });
  const place = SB.make("figure", { class: "figure", "data-kind": spec.kind, "data-frame": spec.frame }, SB.make("figcaption", {}, SB.make("h3", {}, spec.title)), legend, plots);
  place.redraw = () => SB.drawFigure(spec, plots, legend);
  return place;
};

SB.drawFigure = function (spec, plots, legend) {
  const frame = SB.frames.get(spec.frame);
  const rows = frame.select(spec.where);
  const facets = spec.facet ? SB.distinct(rows.map((row) => frame.column(spec.facet)[row])) : [null];
  const groups = spec.group ? SB.distinct(rows.map((row) => frame.column(spec.group)[row])) : [null];
  const look = SB.look(spec, groups);
  const shared = { look, groups, range: spec.kind === "heatmap" ? SB.valueRange(spec, frame, rows) : spec.range };
  for (const old of plots.querySelectorAll(".plot")) Plotly.purge(old);
  plots.replaceChildren();
  SB.drawLegend(spec, legend, shared);
  if (!rows.length) plots.append(SB.make("p", { class: "note" }, "Nothing to show for this choice."));
  plots.classList.toggle("many", facets.length > 1);
  for (const facet of rows.length ? facets : []) {
    const own = spec.facet ? rows.filter((row) => frame.column(spec.facet)[row] === facet) : rows;
    const drawn = SB.DRAW[spec.kind](spec, frame, own, shared);
    const holder = SB.make("div", { class: "facet" });
    if (facet !== null) holder.append(SB.make("h4", {}, String(facet)));
    if (!drawn.empty) {
      const name = [spec.title, facet].filter(Boolean).join(" ").replace(/[^\w-]+/g, "-").toLowerCase();
      // Drawn anew for the file: on a phone the names of the rows stand beside the plot, not in it
      const save = () => Plotly.downloadImage({ data: drawn.traces, layout: SB.layout(drawn, spec) }, { format: "svg", filename: name, width: box.clientWidth, height: drawn.height });
      const box = SB.make("div", { class: "plot", role: "img", "aria-label": `${spec.title}${facet === null ? "" : ", " + facet}. ${spec.alt}` });
      box.style.height = `${drawn.height}px`;
      holder.append(box);
      holder.append(SB.make("button", { type: "button", class: "save", "aria-label": `Save as SVG: ${name}`, title: "Save as SVG", onclick: save }, "SVG"));
      plots.append(holder);
      const layout = drawn.grid ? SB.scrollAcross(box, spec, drawn.grid, SB.layout(drawn, spec)) : SB.layout(drawn, spec);
      Plotly.newPlot(box, drawn.traces, layout, SB.CONFIG).then(() => {
        box.placeRows?.();
        if (box.placeRows) box.on("plotly_afterplot", box.placeRows);
      });
    } else {
      holder.append(SB.make("p", { class: "note" }, `No ${SB.axisTitle("@metric")} here: the test data have no true instances.`));
      plots.append(holder);
    }
  }
};

// No mode bar: it hides data on small plots and offers to send the figure to a server
SB.CONFIG = { responsive: true, displayModeBar: false, displaylogo: false, showLink: false, plotlyServerURL: "" };

SB.layout = function (drawn, spec) {
  const style = getComputedStyle(document.documentElement);
  const ink = SB.isDark() ? "#e8eaed" : "#1f2933";
  const grid = SB.isDark() ? "#3a424d" : "#e2e6ea";
  const axis = { automargin: true, gridcolor: grid, linecolor: grid, zerolinecolor: grid, tickcolor: grid, fixedrange: spec.kind !== "scatter" && spec.kind !== "lines" };
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: style.getPropertyValue("--font"), size: 12, color: ink },
    margin: { l: 8, r: 12, t: 8, b: 8, pad: 4 },
    showlegend: false,
    hoverlabel: { align: "left" },
    barmode: "stack",
    bargap: 0.25,
    dragmode: false,
    height: drawn.height,
    ...drawn.layout,
    xaxis: { ...axis, ...drawn.layout.xaxis },
    yaxis: { ...axis, ...drawn.layout.yaxis },
  };
};

SB.drawLegend = function (spec, legend, shared) {
  legend.replaceChildren();
  if (spec.kind === "heatmap" && shared.range) {
    const [low, high] = shared.range;
    const scale = spec.diverging ? SB.DIVERGING : SB.SEQUENTIAL;
    const ramp = SB.make("i", { class: "ramp" });
    ramp.style.background = `linear-gradient(to right, ${scale.map(([at, colour]) => `${colour} ${at * 100}%`).join(",")})`;
    legend.append(SB.make("li", {}, `${SB.axisTitle(spec.value_title || spec.value)}: ${low.toFixed(spec.whole ? 0 : 2)} `, ramp, ` ${high.toFixed(spec.whole ? 0 : 2)}`));
  } else if (spec.group && !(spec.label === spec.group && spec.kind === "scatter")) {
    for (const [group, look] of shared.look) {
      const glyph = SB.make("i", { class: "glyph" }, look.glyph);
      glyph.style.color = look.colour;
      legend.append(SB.make("li", {}, glyph, String(group)));
    }
  }
  legend.hidden = !legend.children.length;
};

SB.valueRange = function (spec, frame, rows) {
  const means = SB.cells(spec, frame, rows).means.filter((value) => value !== null);
  if (!means.length) return null;
  const low = Math.min(...means), high = Math.max(...means);
  if (spec.diverging) { const most = Math.max(Math.abs(low), Math.abs(high)) || 1; return [-most, most]; }
  return low < high ? [low, high] : [low, high + (spec.whole ? 1 : 0.05)];
};

// Means of a heat map's cells over (facet, y, x)
SB.cells = function (spec, frame, rows) {
  const x = frame.column(spec.x), y = frame.column(spec.y), value = frame.column(SB.columnName(spec.value));
  const facet = spec.facet ? frame.column(spec.facet) : null;
  const cells = new Map();
  for (const row of rows) {
    const key = JSON.stringify([facet && facet[row], y[row], x[row]]);
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push(value[row]);
  }
  return { keys: [...cells.keys()].map(JSON.parse), means: [...cells.values()].map(SB.mean) };
};

// The first text of each of a heat map's cells
SB.firsts = function (spec, frame, rows) {
  const x = frame.column(spec.x), y = frame.column(spec.y), text = frame.column(spec.text);
  const words = new Map();
  for (const row of rows) {
    const key = JSON.stringify([y[row], x[row]]);
    if (!words.has(key)) words.set(key, text[row]);
  }
  return words;
};

SB.order = function (names, means, given) {
  if (given) return names;
  // 'all' first, then by falling mean
  return names.sort((a, b) => (b === "all") - (a === "all") || (means.get(b) ?? -Infinity) - (means.get(a) ?? -Infinity));
};

SB.cut = (name) => (String(name).length > 32 ? String(name).slice(0, 30) + "…" : String(name));
// Plotly reads some HTML in its texts: what comes from the data must stay text
SB.plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
SB.ticks = (names) => ({ tickmode: "array", tickvals: names.map((_, n) => n), ticktext: names.map((name) => SB.plain(SB.cut(name))) });

SB.DRAW = {
  heatmap(spec, frame, rows, shared) {
    const { keys, means } = SB.cells(spec, frame, rows);
    const at = new Map(keys.map(([, y, x], n) => [JSON.stringify([y, x]), means[n]]));
    const side = (index) => {
      const names = SB.distinct(keys.map((key) => key[index]));
      const average = new Map(names.map((name) => [name, SB.mean(means.filter((_, n) => keys[n][index] === name))]));
      return SB.order(names, average, spec.order === "given");
    };
    const ys = side(1), xs = side(2);
    const z = ys.map((y) => xs.map((x) => at.get(JSON.stringify([y, x])) ?? null));
    const digits = spec.whole ? 0 : 2;
    const sign = spec.diverging ? "+" : "";
    const words = spec.text ? SB.firsts(spec, frame, rows) : null;
    const word = (y, x) => SB.plain(SB.cut(words.get(JSON.stringify([y, x])) ?? ""));
    const scale = spec.diverging ? SB.DIVERGING : SB.SEQUENTIAL;
    const number = (value) => {
      const size = Math.abs(value).toFixed(digits);
      return (Number(size) === 0 ? "" : value < 0 ? "\u2212" : sign) + size;
    };
    const [low, high] = shared.range ?? [0, 1];
    const written = ys.flatMap((y, j) => xs.map((x, i) => ({ x: i, y: j, value: z[j][i], label: [y, x] })))
      .filter((cell) => cell.value !== null).map((cell) => ({ ...cell, text: words ? word(...cell.label) : number(cell.value) }));
    const hover = ys.map((y) => xs.map((x) => `${SB.plain(y)}<br>${SB.plain(x)}${words ? "<br>" + word(y, x) : ""}`));
    const angled = xs.length > 4;
    const longest = Math.max(0, ...xs.map((name) => SB.cut(name).length));
    // Plotly leaves a plot 64 pixels and then cuts labels off
    const height = Math.max(64, ys.length * 26) + 50 + (angled ? Math.round(longest * 4.5) : 16);
    return {
      empty: !means.some((value) => value !== null),
      height,
      grid: { rows: ys, columns: xs.length },
      traces: [{
        type: "heatmap", z, x: xs.map((_, n) => n), y: ys.map((_, n) => n), hovertext: hover, xgap: 2, ygap: 2, zmin: shared.range?.[0], zmax: shared.range?.[1],
        colorscale: scale, showscale: false, hoverongaps: false,
        hovertemplate: `%{hovertext}<br><b>%{z:${sign}.${spec.whole ? 0 : 4}f}</b><extra></extra>`,
      }, {
        // Plotly's own texts of a heat map are grey on grey in the middle of the scale
        type: "scatter", mode: "text", x: written.map((cell) => cell.x), y: written.map((cell) => cell.y), text: written.map((cell) => cell.text), hoverinfo: "skip",
        textfont: { size: 11, color: written.map((cell) => SB.inkOn(SB.colourAt(scale, (cell.value - low) / (high - low)))) },
      }],
      layout: {
        xaxis: { ...SB.ticks(xs), title: { text: spec.x_title }, range: [-0.5, xs.length - 0.5], showgrid: false, zeroline: false, tickangle: angled ? -40 : 0, ticks: "" },
        yaxis: { ...SB.ticks(ys), title: { text: spec.y_title }, range: [ys.length - 0.5, -0.5], showgrid: false, zeroline: false, ticks: "" },
      },
    };
  },

  bars(spec, frame, rows, shared) {
    const y = frame.column(spec.y), x = frame.column(SB.columnName(spec.x));
    const group = spec.group ? frame.column(spec.group) : null;
    const sums = new Map();
    for (const row of rows) {
      if (x[row] === null) continue;
      const key = JSON.stringify([group ? group[row] : null, y[row]]);
      if (!sums.has(key)) sums.set(key, []);
      sums.get(key).push(x[row]);
    }
    // Counts add up; scores and seconds of several rows are averaged
    const total = (values) => (spec.x === "runs" ? values.reduce((a, b) => a + b, 0) : SB.mean(values));
    const value = (g, name) => { const values = sums.get(JSON.stringify([g, name])); return values ? total(values) : null; };
    const names = SB.distinct(rows.map((row) => y[row]));
    const lengths = new Map(names.map((name) => [name, shared.groups.reduce((sum, g) => sum + (value(g, name) ?? 0), 0)]));
    const ys = SB.order(names, lengths, spec.order === "given");
    const single = !spec.group;
    const traces = shared.groups.map((g) => ({
      type: "bar", orientation: "h", y: ys.map((_, n) => n), x: ys.map((name) => value(g, name)),
      marker: { color: single ? SB.COLOURS[0] : shared.look.get(g).colour, line: { width: 1, color: SB.isDark() ? "#171b21" : "#ffffff" } },
      texttemplate: single ? (spec.whole ? "%{x:,.0f}" : "%{x:.3f}") : undefined, textposition: single ? ys.map((name) => (value(g, name) > 0 ? "auto" : "outside")) : "none", insidetextanchor: "end", cliponaxis: false,
      hovertext: ys.map((name) => SB.plain(name) + (g === null ? "" : `<br>${SB.plain(g)}`)), hovertemplate: "%{hovertext}<br><b>%{x:.4~g}</b><extra></extra>",
    }));
    return {
      empty: sums.size === 0,
      height: Math.max(110, ys.length * 30 + 60),
      traces,
      layout: {
        xaxis: { title: { text: SB.axisTitle(spec.x_title || spec.x) }, range: shared.range ?? undefined, rangemode: "tozero" },
        yaxis: { ...SB.ticks(ys), autorange: "reversed", ticks: "", showgrid: false, zeroline: false },
      },
    };
  },

  dots(spec, frame, rows, shared) {
    const y = frame.column(spec.y), x = frame.column(SB.columnName(spec.x));
    const group = spec.group ? frame.column(spec.group) : null;
    const low = spec.low ? frame.column(spec.low) : null, high = spec.high ? frame.column(spec.high) : null;
    const kept = rows.filter((row) => x[row] !== null);
    const names = SB.distinct(kept.map((row) => y[row]));
    const average = new Map(names.map((name) => [name, SB.mean(kept.filter((row) => y[row] === name).map((row) => (spec.rising ? -x[row] : x[row])))]));
    const ys = SB.order(names, average, spec.order === "given");
    const place = new Map(ys.map((name, n) => [name, n]));
    // Intervals of several groups at one place would hide each other: they stand below each other
    const shift = (n) => (low && shared.groups.length > 1 ? (n - (shared.groups.length - 1) / 2) * 0.22 : 0);
    const traces = shared.groups.map((g, n) => {
      const own = kept.filter((row) => !group || group[row] === g);
      const look = shared.look.get(g);
      return {
        type: "scatter", mode: "markers", x: own.map((row) => x[row]), y: own.map((row) => place.get(y[row]) + shift(n)),
        marker: { size: 10, color: look.colour, symbol: look.symbol },
        error_x: low ? { type: "data", symmetric: false, array: own.map((row) => (high[row] ?? x[row]) - x[row]), arrayminus: own.map((row) => x[row] - (low[row] ?? x[row])), color: look.colour, thickness: 1.5, width: 4 } : undefined,
        hovertext: own.map((row) => SB.plain(y[row]) + (g === null ? "" : `<br>${SB.plain(g)}`)), hovertemplate: "%{hovertext}<br><b>%{x:.4~g}</b><extra></extra>",
      };
    });
    return {
      empty: !kept.length,
      height: Math.max(120, ys.length * (low && shared.groups.length > 1 ? 16 + 12 * shared.groups.length : 28) + 70),
      traces,
      layout: {
        xaxis: { title: { text: SB.axisTitle(spec.x_title || spec.x) }, type: spec.log_x ? "log" : "linear", range: spec.range ?? undefined, dtick: spec.whole && ys.length < 20 ? 1 : undefined, zeroline: !spec.log_x, ...(spec.log_x ? SB.logTicks(kept.map((row) => x[row])) : {}) },
        yaxis: { ...SB.ticks(ys), range: [ys.length - 0.4, -0.6], zeroline: false, ticks: "" },
      },
    };
  },

  scatter(spec, frame, rows, shared) {
    const x = frame.column(SB.columnName(spec.x)), y = frame.column(SB.columnName(spec.y));
    const group = spec.group ? frame.column(spec.group) : null, label = spec.label ? frame.column(spec.label) : null;
    const kept = rows.filter((row) => x[row] !== null && y[row] !== null && (!spec.log_x || x[row] > 0));
    const written = label && kept.length <= 12;
    const traces = shared.groups.map((g) => {
      const own = kept.filter((row) => !group || group[row] === g);
      const look = shared.look.get(g);
      return {
        type: "scatter", mode: written ? "markers+text" : "markers", x: own.map((row) => x[row]), y: own.map((row) => y[row]),
        text: written ? own.map((row) => SB.plain(SB.cut(label[row]))) : undefined, textposition: "top center", cliponaxis: false,
        marker: { size: 11, color: look.colour, symbol: look.symbol, line: { width: 1, color: SB.isDark() ? "#171b21" : "#ffffff" } },
        hovertext: own.map((row) => SB.plain(label ? label[row] : group ? group[row] : "")), hovertemplate: "%{hovertext}<br>%{x:.4~g}, <b>%{y:.4~g}</b><extra></extra>",
      };
    });
    if (spec.front) traces.unshift(SB.front(kept.map((row) => [x[row], y[row]])));
    return {
      empty: !kept.length,
      height: 320,
      traces,
      layout: {
        xaxis: { title: { text: SB.axisTitle(spec.x_title || spec.x) }, type: spec.log_x ? "log" : "linear", ...(spec.log_x ? SB.logTicks(kept.map((row) => x[row])) : {}) },
        yaxis: { title: { text: SB.axisTitle(spec.y_title || spec.y) }, type: spec.log_y ? "log" : "linear", range: spec.range ?? undefined },
      },
    };
  },

  lines(spec, frame, rows, shared) {
    const x = frame.column(SB.columnName(spec.x)), y = frame.column(SB.columnName(spec.y));
    const group = spec.group ? frame.column(spec.group) : null;
    const kept = rows.filter((row) => y[row] !== null);
    const traces = shared.groups.map((g) => {
      const own = kept.filter((row) => !group || group[row] === g);
      const at = SB.groupBy(own, (row) => x[row]);
      const xs = [...at.keys()].sort((a, b) => a - b);
      let ys = xs.map((value) => SB.mean(at.get(value).map((row) => y[row])));
      if (spec.relative) { const first = ys.find((value) => value > 0) ?? 1; ys = ys.map((value) => value / first); }
      const most = ys.indexOf(Math.max(...ys));
      const look = shared.look.get(g);
      return {
        type: "scatter", mode: "lines+markers", x: xs, y: ys,
        line: { color: look.colour, dash: look.dash, width: 2 },
        marker: { size: ys.map((_, n) => (spec.best && n === most ? 13 : 5)), color: look.colour, symbol: ys.map((_, n) => (spec.best && n === most ? "circle-open-dot" : look.symbol)) },
        hovertemplate: `${SB.plain(g ?? "")}<br>%{x:.4~g}: <b>%{y:.4~g}</b><extra></extra>`,
      };
    });
    return {
      empty: !kept.length,
      height: 320,
      traces,
      layout: {
        xaxis: { title: { text: SB.axisTitle(spec.x_title || spec.x) } },
        yaxis: { title: { text: SB.axisTitle(spec.y_title || spec.y) } },
      },
    };
  },
};

SB.groupBy = function (rows, key) {
  const groups = new Map();
  for (const row of rows) {
    const value = key(row);
    if (!groups.has(value)) groups.set(value, []);
    groups.get(value).push(row);
  }
  return groups;
};

// The points that no other is both left of and above, joined
SB.front = function (points) {
  const sorted = points.sort(([x1, y1], [x2, y2]) => x1 - x2 || y2 - y1);
  const front = [];
  for (const point of sorted) if (!front.length || point[1] > front.at(-1)[1]) front.push(point);
  return {
    type: "scatter", mode: "lines", x: front.map(([x]) => x), y: front.map(([, y]) => y), hoverinfo: "skip",
    line: { color: SB.isDark() ? "#aab4bf" : "#52606d", dash: "dot", width: 1.5 },
  };
};

// Seconds from milliseconds to days: one label a power of ten, with room at both ends
SB.logTicks = function (values) {
  const positive = values.filter((value) => value > 0);
  if (!positive.length) return {};
  const range = [Math.log10(Math.min(...positive)) - 0.3, Math.log10(Math.max(...positive)) + 0.3];
  const decades = range[1] - range[0];
  return { range, dtick: decades > 6 ? 2 : decades > 2.5 ? 1 : "D2", exponentformat: "none", separatethousands: true };
};
