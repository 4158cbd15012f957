// Draws a figure's description with Plotly, one small plot a facet.
"use strict";
// Okabe and Ito's colours, which stay apart for every kind of colour vision; a colour and a mark meet again after 56 groups
SB.COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B8A200", "#888888"];
// What is no method and no tissue has none of their colours
SB.PLAIN_COLOURS = ["#9467bd", "#8a94a0", "#b5651d", "#c2185b"];
SB.SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star"];
SB.GLYPHS = ["●", "■", "◆", "▲", "✚", "✖", "★"];
SB.DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "10px,3px,2px,3px,2px,3px"];
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

SB.cut = (name, most = 32) => (String(name).length > most ? String(name).slice(0, most - 2) + "…" : String(name));
// Plotly reads some HTML in its texts: what comes from the data must stay text
SB.plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
// Of so many groups each has its colour; of more, some are drawn in colours and the others in grey
SB.MOST_COLOURED = 8;
SB.HIGHLIGHTED = 6;
// Panels are drawn down to about this height (pixels), the others when they are opened
SB.MOST_HEIGHT = 1250;
SB.KIND_COLOURS = { missed: "#E69F00", split: "#CC79A7", merged: "#009E73", spurious: "#D55E00", loose: "#56B4E9" };

SB.methodPlace = (title) => { SB.methodPlaces ??= new Map(SB.choices.method.map(([, name], n) => [name, n])); return SB.methodPlaces.get(SB.unmarked(title)); };

// A colour and a mark for each group, the same wherever the group stands: methods by their place in the list of all
SB.look = function (column, groups, kind) {
  return new Map(groups.map((group, place) => {
    const n = (["method_title", "title"].includes(column) ? SB.methodPlace(group) : undefined) ?? place;
    const named = { status: SB.STATUS_COLOURS, phase: SB.PHASE_COLOURS, kind: SB.KIND_COLOURS }[column]?.[group];
    const colour = named || (SB.ORDERED[column] ? SB.COLOURS[n % SB.COLOURS.length] : SB.PLAIN_COLOURS[n % SB.PLAIN_COLOURS.length]);
    const m = n % SB.SYMBOLS.length;
    return [group, { colour, symbol: SB.SYMBOLS[m], glyph: kind === "bars" ? "■" : SB.GLYPHS[m], dash: SB.DASHES[m] }];
  }));
};

SB.buildFigure = function (spec) {
  const plots = SB.make("div", { class: "plots" });
  const legend = SB.make("ul", { class: "legend" });
  const place = SB.make("figure", { class: "figure", "data-kind": spec.kind, "data-frame": spec.frame }, SB.make("figcaption", {}, SB.make("h3", {}, spec.title)), legend, plots);
  // Which panels the reader has opened, and which groups are drawn in colour: kept when the choices change
  const kept = { open: new Set(), coloured: null };
  place.redraw = () => SB.drawFigure(spec, plots, legend, kept);
  return place;
};

SB.drawFigure = function (spec, plots, legend, kept) {
  const view = SB.view(spec);
  const shared = { look: SB.look(spec.group, view.groups, spec.kind), groups: view.groups, range: spec.kind === "heatmap" ? SB.valueRange(spec, view.marks) : spec.range };
  shared.coloured = SB.colouredGroups(spec, view, kept);
  // One that is still being drawn cannot be taken down
  for (const old of plots.querySelectorAll(".plot")) Promise.resolve(old.drawing).then(() => Plotly.purge(old));
  plots.replaceChildren();
  SB.drawLegend(spec, view, legend, shared, () => SB.drawFigure(spec, plots, legend, kept), kept);
  if (!view.chosen) plots.append(SB.make("p", { class: "note" }, "Nothing to show for this choice."));
  const facets = view.chosen ? view.facets : [];
  const widest = spec.kind === "heatmap" ? Math.max(0, ...facets.map((facet) => SB.distinct(view.marks.filter((mark) => mark.facet === facet).map((mark) => mark.x)).length)) : 0;
  plots.classList.toggle("many", facets.length > 1 && widest <= 8);
  const folded = facets.slice(SB.panelsShown(spec, view, facets, widest));
  for (const facet of facets.slice(0, facets.length - folded.length)) {
    const holder = SB.make("div", { class: "facet" });
    if (facet !== null) holder.append(SB.make("h4", {}, String(facet)));
    plots.append(holder);
    SB.drawPanel(spec, view, facet, shared, holder, legend);
  }
  if (folded.length) plots.append(SB.foldedPanels(spec, view, folded, shared, kept, legend));
};

// How many panels fit the height that a figure may have
SB.panelsShown = function (spec, view, facets, widest) {
  const rows = Math.max(1, ...facets.map((facet) => SB.distinct(view.marks.filter((mark) => mark.facet === facet).map((mark) => mark.y)).length));
  const row = spec.kind === "dots" && spec.low && view.groups.length > 1 ? 16 + 12 * view.groups.length : 26;
  const height = 40 + (["scatter", "lines"].includes(spec.kind) ? 400 : rows * row + 90);
  return Math.max(1, Math.floor(SB.MOST_HEIGHT / height)) * (facets.length > 1 && widest <= 8 ? 2 : 1);
};

// Panels that are drawn when they are opened
SB.foldedPanels = function (spec, view, facets, shared, kept, legend) {
  const panels = facets.map((facet) => {
    const holder = SB.make("div", { class: "facet" });
    const panel = SB.make("details", { class: "panel-more" }, SB.make("summary", {}, String(facet)), holder);
    panel.addEventListener("toggle", () => {
      panel.open ? kept.open.add(facet) : kept.open.delete(facet);
      if (panel.open && !holder.childElementCount) SB.drawPanel(spec, view, facet, shared, holder, legend);
    });
    panel.open = kept.open.has(facet);
    return panel;
  });
  const more = SB.make("details", { class: "more" }, SB.make("summary", {}, `${facets.length} more panel${facets.length === 1 ? "" : "s"}`), ...panels);
  more.open = kept.open.has("more") || panels.some((panel) => panel.open);
  more.addEventListener("toggle", () => (more.open ? kept.open.add("more") : kept.open.delete("more")));
  return more;
};

SB.drawPanel = function (spec, view, facet, shared, holder, legend) {
  const marks = view.marks.filter((mark) => mark.facet === facet);
  const drawn = SB.DRAW[spec.kind](spec, marks, { ...shared, width: Math.max(holder.clientWidth, 200) });
  const across = spec.reference ? SB.MARKS.lines_across(spec).filter((mark) => mark.facet === facet) : [];
  if (drawn.empty) {
    holder.append(SB.make("p", { class: "note" }, SB.whyEmpty(spec, view)));
    return;
  }
  const name = [spec.title, facet].filter(Boolean).join(" ").replace(/[^\w-]+/g, "-").toLowerCase();
  // Drawn anew for the file: on a phone the names of the rows stand beside the plot, not in it
  const save = () => Plotly.downloadImage({ data: drawn.traces, layout: SB.layout(drawn, spec) }, { format: "svg", filename: name, width: box.clientWidth, height: drawn.height });
  SB.wrapTitle(drawn, holder.clientWidth);
  const box = SB.make("div", { class: "plot", role: "img", "aria-label": `${spec.title}${facet === null ? "" : ", " + facet}. ${spec.alt}` });
  box.style.height = `${drawn.height}px`;
  holder.append(box);
  if (across.length) {
    drawn.layout.shapes = across.map(({ value }) => ({ type: "line", x0: value, x1: value, y0: 0, y1: 1, yref: "paper", line: { color: SB.isDark() ? "#aab4bf" : "#52606d", width: 1.5, dash: "dot" } }));
    holder.append(SB.make("p", { class: "axes" }, `dotted lines: controls, ${across.map(({ title, value }) => `${title} ${SB.shown(spec, value)}`).join(", ")}`));
  }
  holder.append(SB.make("button", { type: "button", class: "save", "aria-label": `Save as SVG: ${name}`, title: "Save as SVG", onclick: save }, "SVG"));
  const layout = drawn.grid ? SB.scrollAcross(box, spec, drawn.grid, SB.layout(drawn, spec)) : SB.layout(drawn, spec);
  box.drawing = Plotly.newPlot(box, drawn.traces, layout, SB.CONFIG).then(async () => {
    if (!box.isConnected) return;
    box.placeRows?.();
    if (box.placeRows) box.on("plotly_afterplot", box.placeRows);
    // A point without room for its name is found by its mark
    for (const group of (await drawn.after?.(box)) ?? []) SB.addToLegend(legend, shared.look, group);
  });
};

SB.whyEmpty = (spec, view) => (view.untrue ? `No ${SB.metricName()} here: the test data have no true instances.` : spec.lacking || "No value here for this choice.");

// No mode bar: it hides data on small plots and offers to send the figure to a server
SB.CONFIG = { responsive: true, displayModeBar: false, displaylogo: false, showLink: false, plotlyServerURL: "" };

SB.layout = function (drawn, spec) {
  const style = getComputedStyle(document.documentElement);
  const ink = SB.isDark() ? "#e8eaed" : "#1f2933";
  const grid = SB.isDark() ? "#3a424d" : "#e2e6ea";
  const zero = SB.isDark() ? "#9aa5b1" : "#616e7c";
  const axis = { automargin: true, gridcolor: grid, linecolor: grid, zerolinecolor: zero, zerolinewidth: 1.5, tickcolor: grid, fixedrange: spec.kind !== "scatter" && spec.kind !== "lines" };
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: style.getPropertyValue("--font"), size: 12, color: ink },
    showlegend: false,
    hoverlabel: { align: "left" },
    barmode: "stack",
    bargap: 0.25,
    dragmode: false,
    height: drawn.height,
    ...drawn.layout,
    margin: { l: 8, r: 12, t: 8, b: 8, pad: 4, ...drawn.layout.margin },
    xaxis: SB.apart({ ...axis, ...drawn.layout.xaxis }),
    yaxis: SB.apart({ ...axis, ...drawn.layout.yaxis }),
  };
};

// A title that is wider than its axis stands on several lines, with the room that they take
SB.wrapTitle = function (drawn, width) {
  const title = drawn.layout.xaxis?.title;
  // It stands in the middle of the axis, which begins beside the names of the rows
  // and is never as narrow as a word: a panel that is drawn before it is laid out has no width yet
  const room = Math.max(200, width - SB.sides((drawn.layout.yaxis.ticktext ?? [""]).map(String)) - 30);
  if (!title?.text || SB.textWidth(title.text, 14) <= room) return;
  const lines = [""];
  for (const word of title.text.split(" ")) {
    const longer = `${lines.at(-1)} ${word}`.trim();
    if (SB.textWidth(longer, 14) <= room || !lines.at(-1)) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  title.text = lines.join("<br>");
  drawn.height += 18 * (lines.length - 1);
};

// An axis's title with room to its numbers
SB.apart = (axis) => (axis.title?.text ? { ...axis, title: { ...axis.title, standoff: 12 } } : axis);

// The groups that are drawn in their colours: all of few; of many those with the greatest values, or the reader's choice
SB.colouredGroups = function (spec, view, kept) {
  if (view.groups.length <= SB.MOST_COLOURED || !["lines", "scatter"].includes(spec.kind) || spec.label === spec.group) return new Set(view.groups);
  if (!kept.coloured) {
    const peaks = new Map([...SB.groupBy(view.marks, (mark) => mark.group)].map(([group, own]) => [group, Math.max(...own.map((mark) => mark.y))]));
    kept.coloured = new Set([...view.groups].sort((a, b) => (peaks.get(b) ?? -Infinity) - (peaks.get(a) ?? -Infinity)).slice(0, SB.HIGHLIGHTED));
  }
  return kept.coloured;
};

SB.glyph = function (look) {
  const glyph = SB.make("i", { class: "glyph", "aria-hidden": "true" }, look.glyph);
  glyph.style.color = look.colour;
  return glyph;
};

SB.addToLegend = function (legend, looks, group) {
  if ([...legend.children].some((item) => item.dataset.group === String(group))) return;
  legend.append(SB.make("li", { "data-group": String(group) }, SB.glyph(looks.get(group)), String(group)));
  legend.hidden = false;
};

SB.drawLegend = function (spec, view, legend, shared, redraw, kept) {
  legend.replaceChildren();
  if (spec.kind === "heatmap") {
    if (shared.range) {
      const [low, high] = shared.range;
      const scale = spec.diverging ? SB.DIVERGING : SB.SEQUENTIAL;
      const ramp = SB.make("i", { class: "ramp" });
      ramp.style.background = `linear-gradient(to right, ${scale.map(([at, colour]) => `${colour} ${at * 100}%`).join(",")})`;
      const middle = spec.diverging ? SB.make("span", { class: "zero" }, " (0 in the middle)") : "";
      legend.append(SB.make("li", {}, `${SB.axisTitle(spec.value_title || spec.value)}: ${SB.shown(spec, low)} `, ramp, ` ${SB.shown(spec, high)}`, middle));
    }
    if (SB.someMissing(view)) legend.append(SB.make("li", {}, SB.make("i", { class: "lack" }, "–"), " not measured"));
  } else if (spec.group && !(spec.label === spec.group && spec.kind === "scatter")) {
    const many = shared.coloured.size < view.groups.length || kept.coloured;
    const sums = spec.x === "runs" ? SB.groupBy(view.marks, (mark) => mark.group) : null;
    for (const [group, look] of shared.look) {
      const count = sums ? ` ${(sums.get(group) ?? []).reduce((sum, mark) => sum + mark.value, 0).toLocaleString("en")}` : "";
      const shown = [SB.glyph(look), String(group) + count];
      if (!many) { legend.append(SB.make("li", { "data-group": String(group) }, ...shown)); continue; }
      const choose = () => { kept.coloured.has(group) ? kept.coloured.delete(group) : kept.coloured.add(group); redraw(); };
      legend.append(SB.make("li", { "data-group": String(group) }, SB.make("button", { type: "button", class: "quiet", "aria-pressed": String(kept.coloured.has(group)), onclick: choose }, ...shown)));
    }
  }
  legend.hidden = !legend.children.length;
};

SB.someMissing = function (view) {
  return [...SB.groupBy(view.marks, (mark) => mark.facet).values()].some((own) => {
    const size = SB.distinct(own.map((mark) => mark.x)).length * SB.distinct(own.map((mark) => mark.y)).length;
    return own.length < size || own.some((mark) => mark.value === null);
  });
};

SB.valueRange = function (spec, marks) {
  const values = marks.map((mark) => mark.value).filter((value) => value !== null);
  if (!values.length) return null;
  const low = Math.min(...values), high = Math.max(...values);
  if (spec.diverging) { const most = Math.max(Math.abs(low), Math.abs(high)) || 1; return [-most, most]; }
  return low < high ? [low, high] : [low, high + (spec.whole ? 1 : 0.05)];
};
