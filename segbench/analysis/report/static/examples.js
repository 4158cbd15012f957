// The examples: one window a row, image, truth and the chosen methods' outlines beside each other, and a viewer that zooms.
"use strict";
SB.EXAMPLES_PAGE = 6;
SB.SIDE_BY_SIDE = 4;
SB.TELLING = ["worst", "median", "best"];

SB.buildExamples = function (section) {
  const place = section.querySelector(".examples");
  const { examples, kinds } = JSON.parse(document.getElementById("data-examples").textContent);
  const find = (selector) => place.querySelector(selector);
  const [task, tissue, images, size] = [".pick-task", ".pick-tissue", ".pick-images", ".pick-size"].map(find);
  const windows = find(".windows"), more = find(".more"), chips = find(".chips");
  const boxes = [...place.querySelectorAll(".key input")];
  // What the reader chose, by task; null before that
  const chosen = new Map();
  let pages = 1;
  const fill = (select, values) => {
    const before = select.value;
    select.replaceChildren(...values.map(([value, title]) => SB.make("option", { value }, title)));
    select.value = values.some(([value]) => value === before) ? before : values[0]?.[0] ?? "";
  };
  const allowed = (filter, value) => !SB.state[filter] || SB.state[filter].has(value);
  const hidden = () => boxes.filter((box) => !box.checked).map((box) => box.value);

  function row(example, methods) {
    const where = `${example.image}, ${example.tissue}`;
    const panels = methods.map((name) => example.panels.find((p) => p.method === name)).filter(Boolean).map((p) => {
      const score = p.ap50 === null ? "no truth" : `AP50 ${p.ap50.toFixed(2)}`;
      const trained = p.train_tissue === "all" ? "" : `, trained on ${p.train_tissue}`;
      return { title: p.title + trained, detail: `${score}: ${p.told}`, overlay: p.overlay, lacking: !p.overlay, alt: `${p.title} on ${where}: ${score}, ${p.told}`, run: p.run };
    });
    const all = [
      { title: "Image", detail: `${example.dataset}, window ${example.row}`, alt: `Image ${where}` },
      { title: "Truth", detail: `${example.cells} cells`, overlay: example.truth, alt: `True outlines of ${example.cells} cells in ${where}` },
      ...panels,
    ];
    const view = () => SB.openViewer(find(".viewer"), example, all, kinds, hidden());
    return SB.make("article", { class: "window" },
      SB.make("h3", {}, `${example.tissue} · ${example.image}`, ...example.tags.map((tag) => SB.make("span", { class: "tag" }, tag))),
      SB.channelKey(example),
      SB.make("div", { class: "panels" }, ...all.map((p) => SB.panel(example, p, kinds, hidden(), view))));
  }

  // The windows where a method shown does worst, middling and best of the whole test set, the worst ones first
  function telling(shown, methods) {
    const places = [];
    for (const example of shown) for (const { method, kind, of } of example.telling) {
      const panel = methods.includes(method) && example.panels.find((p) => p.method === method);
      if (panel && panel.ap50 !== null) places.push({ example, kind: SB.TELLING.indexOf(kind), ap50: panel.ap50, tag: `${kind} of all ${of} test windows for ${panel.title}: AP50 ${panel.ap50.toFixed(2)}` });
    }
    places.sort((a, b) => a.kind - b.kind || a.ap50 - b.ap50);
    const tags = new Map();
    for (const { example, tag } of places) tags.set(example, [...(tags.get(example) ?? []), tag]);
    return [...[...tags.keys()].map((example) => ({ ...example, tags: tags.get(example) })), ...shown.filter((example) => !tags.has(example)).map((example) => ({ ...example, tags: [] }))];
  }

  // Of the windows of a choice, which is the worst, the median and the best by the mean AP50 of the methods shown
  function tagged(shown, methods) {
    const mean = (example) => SB.mean(example.panels.filter((p) => methods.includes(p.method)).map((p) => p.ap50));
    const scored = shown.map((example) => ({ example, value: mean(example) })).filter(({ value }) => value !== null).sort((a, b) => a.value - b.value);
    const tags = new Map(shown.map((example) => [example, []]));
    if (scored.length > 1) {
      const tag = (place, word) => tags.get(scored[place].example).push(`${word} of the ${scored.length} windows kept: mean AP50 ${scored[place].value.toFixed(2)}`);
      tag(0, "worst");
      if (scored.length > 2) tag((scored.length - 1) >> 1, "median");
      tag(scored.length - 1, "best");
    }
    const order = new Map(scored.map(({ example }, n) => [example, n]));
    return [...shown].sort((a, b) => (order.get(a) ?? Infinity) - (order.get(b) ?? Infinity)).map((example) => ({ ...example, tags: tags.get(example) }));
  }

  // The methods of a task, best first by their mean AP50 on its windows
  function ranked(own) {
    const scores = new Map();
    for (const panel of own.flatMap((example) => example.panels)) {
      if (!scores.has(panel.method)) scores.set(panel.method, { title: panel.title, values: [] });
      scores.get(panel.method).values.push(panel.ap50);
    }
    return [...scores].filter(([name]) => allowed("method", name)).map(([name, { title, values }]) => ({ name, title, mean: SB.mean(values) ?? -1 })).sort((a, b) => b.mean - a.mean || a.title.localeCompare(b.title));
  }

  // The two best, one in the middle and the last: not only those that do well
  function firstChoice(methods) {
    const n = methods.length;
    const places = n <= SB.SIDE_BY_SIDE ? methods.keys() : [0, 1, n >> 1, n - 1];
    return new Set([...places].map((place) => methods[place].name));
  }

  function drawChips(methods, shown) {
    chips.replaceChildren(...methods.map(({ name, title }) => {
      const box = SB.make("input", { type: "checkbox", value: name });
      box.checked = shown.has(name);
      box.addEventListener("change", () => {
        const kept = new Set([...chips.querySelectorAll("input:checked")].map((input) => input.value));
        chosen.set(task.value, kept);
        draw();
        chips.querySelector(`input[value="${CSS.escape(name)}"]`)?.focus();
      });
      return SB.make("label", {}, box, " ", title);
    }));
    find(".pick-methods").hidden = methods.length < 2;
  }

  function draw() {
    fill(task, [...new Set(examples.map((e) => e.task))].filter((t) => allowed("task", t)).map((t) => [t, t]));
    const own = examples.filter((e) => e.task === task.value && allowed("tissue", e.tissue));
    fill(tissue, [["", "every tissue"], ...[...new Set(own.map((e) => e.tissue))].sort().map((t) => [t, t])]);
    const methods = ranked(own);
    const picked = chosen.get(task.value) ?? firstChoice(methods);
    const names = methods.map(({ name }) => name).filter((name) => picked.has(name));
    drawChips(methods, picked);
    const chosenTissue = tissue.value || SB.state.tissue;
    const mine = own.filter((e) => !tissue.value || e.tissue === tissue.value);
    // What is worst of all says nothing of one tissue; runs of an earlier segbench do not tell it at all
    const whole = !chosenTissue && mine.some((e) => e.telling.some(({ method }) => names.includes(method)));
    let shown = whole ? telling(mine, names) : tagged(mine, names);
    // The section's sentence is about the windows of this choice and the methods side by side
    section.shown = shown.map((example) => ({ ...example, panels: example.panels.filter((panel) => names.includes(panel.method)) }));
    SB.tell(section);
    if (images.value === "telling" && shown.some((example) => example.tags.length)) shown = shown.filter((example) => example.tags.length);
    windows.replaceChildren(...shown.slice(0, pages * SB.EXAMPLES_PAGE).map((example) => row(example, names)));
    more.hidden = shown.length <= pages * SB.EXAMPLES_PAGE;
    more.textContent = `Show more of ${shown.length} images`;
    if (!shown.length) windows.append(SB.make("p", { class: "note" }, "No example for this choice."));
  }
  const again = () => { pages = 1; draw(); };
  for (const control of [task, tissue, images]) control.addEventListener("change", again);
  for (const box of boxes) box.addEventListener("change", draw);
  more.addEventListener("click", () => { pages++; draw(); });
  size.addEventListener("input", () => place.style.setProperty("--tile", `${size.value}px`));
  section.redraw = draw;
};

SB.channelKey = function (example) {
  const entries = example.channels.flatMap(([name, colour]) => {
    const swatch = SB.make("i");
    swatch.style.background = colour;
    return [" ", swatch, name];
  });
  return SB.make("p", { class: "key-line" }, entries.length ? "channels:" : "", ...entries);
};

SB.panel = function (example, { title, detail, overlay, alt, run, lacking }, kinds, hidden, view) {
  const layers = SB.make("div", { class: lacking ? "layers lacking" : "layers" }, SB.make("img", { src: `data:image/webp;base64,${example.picture}`, alt, loading: "lazy", decoding: "async" }));
  if (overlay) {
    const over = SB.make("img", { class: "overlay", alt: "", decoding: "async" });
    layers.append(over);
    SB.shownKinds(overlay, kinds, hidden).then((source) => { over.src = source; });
  }
  const tile = SB.make(view ? "button" : "div", view ? { type: "button", class: "tile", onclick: view, "aria-label": `Enlarge: ${alt}` } : { class: "tile" }, layers, SB.scaleBar(example, 1));
  tile.style.aspectRatio = `${example.size[1]} / ${example.size[0]}`;
  return SB.make("figure", { class: "panel", "data-run": run ?? "" }, tile, SB.make("figcaption", {}, SB.make("b", {}, title), SB.make("span", {}, detail)));
};

// An overlay without the kinds of outline that the reader does not want to see
SB.shownKinds = async function (overlay, kinds, hidden) {
  const source = `data:image/webp;base64,${overlay}`;
  if (!hidden.length) return source;
  const unwanted = new Set(hidden.map((name) => parseInt(kinds[name].slice(1), 16)));
  const image = new Image();
  image.src = source;
  await image.decode();
  const canvas = SB.make("canvas", { width: image.naturalWidth, height: image.naturalHeight });
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    const [red, green, blue] = pixels.data.subarray(at, at + 3);
    if (unwanted.has((red << 16) + (green << 8) + blue)) pixels.data[at + 3] = 0;
  }
  context.putImageData(pixels, 0, 0);
  return canvas.toDataURL();
};

// A bar of a round length, at most a quarter of what is seen
SB.scaleBar = function (example, zoom) {
  const unit = example.um_per_pixel ?? 1;
  const most = (example.size[1] * unit) / zoom / 4;
  const ten = 10 ** Math.floor(Math.log10(most));
  const length = [5, 2, 1].map((n) => n * ten).find((n) => n <= most * (1 + 1e-9)) ?? ten;
  const text = `${Number(length.toPrecision(3))} ${example.um_per_pixel ? "µm" : "px"}`;
  const bar = SB.make("span", { class: "bar-of" }, SB.make("b", {}, text));
  bar.style.width = `${((length / unit) * zoom * 100) / example.size[1]}%`;
  return bar;
};

// All panels of a window, large; zooming and moving one moves all
SB.openViewer = function (dialog, example, panels, kinds, hidden) {
  const holder = dialog.querySelector(".panels");
  const state = { zoom: 1, x: 0, y: 0 };
  holder.replaceChildren(...panels.map((p) => SB.panel(example, p, kinds, hidden, null)));
  dialog.querySelector(".where").textContent = `${example.tissue} · ${example.image}`;
  const tiles = [...holder.querySelectorAll(".tile")];
  // x and y: which share of the image lies at the left and upper edge
  function show() {
    const most = 1 - 1 / state.zoom;
    state.x = Math.min(most, Math.max(0, state.x));
    state.y = Math.min(most, Math.max(0, state.y));
    for (const tile of tiles) {
      tile.querySelector(".layers").style.transform = `scale(${state.zoom}) translate(${-state.x * 100}%, ${-state.y * 100}%)`;
      // A finger scrolls the viewer until there is something to move
      tile.style.touchAction = state.zoom > 1 ? "none" : "pan-y";
      tile.querySelector(".bar-of").replaceWith(SB.scaleBar(example, state.zoom));
    }
    dialog.querySelector(".zoom").textContent = `${Number(state.zoom.toPrecision(2))}×`;
  }
  // Keeps in place what lies at this share of the tile
  function zoomBy(factor, left = 0.5, up = 0.5) {
    const zoom = Math.min(16, Math.max(1, state.zoom * factor));
    state.x += left / state.zoom - left / zoom;
    state.y += up / state.zoom - up / zoom;
    state.zoom = zoom;
    show();
  }
  for (const tile of tiles) {
    tile.addEventListener("wheel", (event) => {
      event.preventDefault();
      const box = tile.getBoundingClientRect();
      zoomBy(event.deltaY < 0 ? 1.25 : 0.8, (event.clientX - box.x) / box.width, (event.clientY - box.y) / box.height);
    }, { passive: false });
    tile.addEventListener("pointerdown", (event) => tile.setPointerCapture(event.pointerId));
    tile.addEventListener("pointermove", (event) => {
      if (!tile.hasPointerCapture(event.pointerId)) return;
      state.x -= event.movementX / tile.clientWidth / state.zoom;
      state.y -= event.movementY / tile.clientHeight / state.zoom;
      show();
    });
    tile.addEventListener("dblclick", () => zoomBy(2));
  }
  const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
  dialog.onkeydown = (event) => {
    if (event.key === "+" || event.key === "=") zoomBy(1.5);
    else if (event.key === "-") zoomBy(1 / 1.5);
    else if (event.key === "0") { state.zoom = 1; show(); }
    else if (step[event.key] && state.zoom > 1) {
      event.preventDefault();
      state.x += step[event.key][0] / state.zoom;
      state.y += step[event.key][1] / state.zoom;
      show();
    }
  };
  dialog.querySelector(".in").onclick = () => zoomBy(1.5);
  dialog.querySelector(".out").onclick = () => zoomBy(1 / 1.5);
  dialog.querySelector(".whole").onclick = () => { state.zoom = 1; show(); };
  dialog.querySelector(".close").onclick = () => dialog.close();
  show();
  dialog.showModal();
};
