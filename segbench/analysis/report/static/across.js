// Heat maps on a phone: wider than the page, they scroll inside their own box, while the names of their rows stay.
"use strict";
SB.NARROW = matchMedia("(max-width: 800px)");
SB.NARROW_CELL = 36;

// The least width of a heat map's cell in pixels: on paper nothing scrolls, on a wide screen numbers give way instead
SB.leastCell = (words = []) => {
  if (!SB.NARROW.matches || "print" in document.documentElement.dataset) return 0;
  // Words are what such a figure says: its cells are as wide as they need, but for very long ones
  return Math.max(SB.NARROW_CELL, Math.min(110, Math.ceil(Math.max(0, ...words.map((word) => SB.textWidth(word, 11)))) + 8));
};

SB.textWidth = function (text, size = 12) {
  SB.ruler ??= document.createElement("canvas").getContext("2d");
  SB.ruler.font = `${size}px ${getComputedStyle(document.documentElement).getPropertyValue("--font")}`;
  return SB.ruler.measureText(text).width;
};

// Puts a heat map's box into one that scrolls where its cells would be too narrow; returns the layout to draw it with
SB.scrollAcross = function (box, spec, grid, layout) {
  const least = SB.leastCell(grid.words);
  const room = box.parentElement.clientWidth;
  if (!least || !room) return layout;
  const names = grid.rows.map((name) => String(name));
  const side = Math.min(Math.ceil(Math.max(...names.map((name) => SB.textWidth(name)))) + 10, Math.round(room * 0.4));
  // Turned names of columns begin at their column and go to the right: to the left they would lie under the rows' names
  const turned = Boolean(layout.xaxis.tickangle);
  const beyond = (layout.xaxis.ticktext ?? []).map((text, n) => SB.textWidth(String(text)) * 0.77 - (grid.columns - n - 0.5) * least);
  const right = turned ? Math.max(12, Math.ceil(Math.max(...beyond)) + 8) : 12;
  const width = side + grid.columns * least + right;
  if (width <= room) return layout;
  const list = SB.make("div", { class: "row-names", "aria-hidden": "true" }, ...names.map((name) => SB.make("span", { title: name }, name)));
  const across = SB.make("div", { class: "across", tabindex: "0", role: "region", "aria-label": `${spec.title}: scrolls sideways` });
  box.replaceWith(across);
  across.append(box, list);
  const axes = [spec.y_title && `rows: ${spec.y_title}`, spec.x_title && `columns: ${spec.x_title}`, "scrolls sideways"];
  across.before(SB.make("p", { class: "axes" }, axes.filter(Boolean).join("; ")));
  box.style.width = `${width}px`;
  list.style.width = `${side}px`;
  box.placeRows = () => {
    const { _offset: top, _length: height } = box._fullLayout.yaxis;
    list.childNodes.forEach((name, n) => { name.style.top = `${top + ((n + 0.5) * height) / names.length}px`; });
  };
  return {
    ...layout,
    margin: { ...layout.margin, l: side, r: right },
    xaxis: { ...layout.xaxis, title: { text: "" }, tickangle: turned ? 40 : 0 },
    yaxis: { ...layout.yaxis, showticklabels: false, automargin: false, title: { text: "" } },
  };
};
