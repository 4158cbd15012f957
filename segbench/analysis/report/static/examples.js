// The examples: one window a row, image, truth and each method's outlines beside each other.
"use strict";
SB.buildExamples = function (section) {
  const place = section.querySelector(".examples");
  const examples = JSON.parse(document.getElementById("data-examples").textContent).examples;
  const task = place.querySelector(".pick-task");
  const tissue = place.querySelector(".pick-tissue");
  const outlines = place.querySelector(".pick-outlines");
  const windows = place.querySelector(".windows");
  const fill = (select, values) => {
    const before = select.value;
    select.replaceChildren(...values.map(([value, title]) => SB.make("option", { value }, title)));
    select.value = values.some(([value]) => value === before) ? before : values[0]?.[0] ?? "";
  };
  const allowed = (filter, value) => !SB.state[filter] || SB.state[filter].has(value);
  const picture = (base, overlay, alt) => {
    const tile = SB.make("div", { class: "tile" }, SB.make("img", { src: `data:image/webp;base64,${base}`, alt, loading: "lazy", decoding: "async" }));
    if (overlay) tile.append(SB.make("img", { class: "overlay", src: `data:image/webp;base64,${overlay}`, alt: "", loading: "lazy", decoding: "async" }));
    return tile;
  };
  const panel = (title, detail, tile, run) =>
    SB.make("figure", { class: "panel", "data-run": run ?? "" }, tile, SB.make("figcaption", {}, SB.make("b", {}, title), SB.make("span", {}, detail)));

  function row(example) {
    const where = `${example.image}, ${example.tissue}`;
    const panels = example.panels.filter((p) => allowed("method", p.method)).map((p) => {
      const score = p.ap50 === null ? "no truth" : `AP50 ${p.ap50.toFixed(2)}`;
      const trained = p.train_tissue === "all" ? "" : `, trained on ${p.train_tissue}`;
      const told = `${p.found} found, ${p.false} false, ${p.missed} missed`;
      return panel(p.title + trained, `${score}: ${told}`, picture(example.picture, p.overlay, `${p.title} on ${where}: ${score}, ${told}`), p.run);
    });
    return SB.make("article", { class: "window" },
      SB.make("h4", {}, `${example.tissue} · ${example.image}`, example.worst ? SB.make("span", { class: "tag" }, "worst of its tissue") : ""),
      SB.make("div", { class: "panels" },
        panel("Image", `${example.dataset}, window ${example.row}`, picture(example.picture, null, `Image ${where}`)),
        panel("Truth", `${example.cells} cells`, picture(example.picture, example.truth, `True outlines of ${example.cells} cells in ${where}`)),
        ...panels));
  }

  function draw() {
    fill(task, [...new Set(examples.map((e) => e.task))].filter((t) => allowed("task", t)).map((t) => [t, t]));
    const own = examples.filter((e) => e.task === task.value && allowed("tissue", e.tissue));
    fill(tissue, [["", "every tissue"], ...[...new Set(own.map((e) => e.tissue))].sort().map((t) => [t, t])]);
    const shown = own.filter((e) => !tissue.value || e.tissue === tissue.value);
    shown.sort((a, b) => a.tissue.localeCompare(b.tissue) || (b.mean_ap50 ?? -1) - (a.mean_ap50 ?? -1));
    for (const example of shown) {
      const peers = own.filter((e) => e.tissue === example.tissue && e.mean_ap50 !== null);
      example.worst = peers.length > 1 && peers.every((e) => e.mean_ap50 >= (example.mean_ap50 ?? Infinity));
    }
    windows.replaceChildren(...shown.map(row));
    if (!shown.length) windows.append(SB.make("p", { class: "note" }, "No example for this choice."));
    windows.classList.toggle("bare", !outlines.checked);
  }
  for (const control of [task, tissue, outlines]) control.addEventListener("change", draw);
  section.redraw = draw;
};
