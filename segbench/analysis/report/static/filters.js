// The reader's choices: global filters, metric, training tissue; kept in the URL's fragment.
"use strict";
SB.state = { metric: "accuracy", train: null, method: null, task: null, tissue: null };
SB.FILTERS = { method: "Methods", task: "Tasks", tissue: "Tissues" };

// Fragment: #SECTION?metric=ap50&method=a&method=b
SB.readFragment = function () {
  const [section, query = ""] = splitFragment(location.hash.slice(1));
  const parameters = new URLSearchParams(query);
  const metric = parameters.get("metric");
  SB.state.metric = SB.metrics.has(metric) ? metric : "accuracy";
  const trains = SB.choices.train.map(([value]) => value);
  const train = parameters.get("train");
  SB.state.train = trains.includes(train) ? train : trains[0] ?? "all";
  for (const name of Object.keys(SB.FILTERS)) {
    const known = new Set(SB.choices[name].map(([value]) => value));
    const chosen = parameters.getAll(name).filter((value) => known.has(value));
    SB.state[name] = chosen.length && chosen.length < known.size ? new Set(chosen) : null;
  }
  return section;
};

function splitFragment(fragment) {
  const cut = fragment.indexOf("?");
  return cut < 0 ? [fragment] : [fragment.slice(0, cut), fragment.slice(cut + 1)];
}

SB.fragment = function (section) {
  const parameters = new URLSearchParams();
  if (SB.state.metric !== "accuracy") parameters.set("metric", SB.state.metric);
  if (SB.choices.train.length && SB.state.train !== SB.choices.train[0][0]) parameters.set("train", SB.state.train);
  for (const name of Object.keys(SB.FILTERS)) for (const value of SB.state[name] ?? []) parameters.append(name, value);
  const query = parameters.toString();
  return section || query ? `#${section}${query ? "?" + query : ""}` : "";
};

SB.isFiltered = () => Object.keys(SB.FILTERS).some((name) => SB.state[name]);

SB.buildFilters = function (changed) {
  const metric = document.getElementById("metric");
  metric.addEventListener("change", () => { SB.state.metric = metric.value; changed(); });
  const train = document.getElementById("train");
  train.append(...SB.choices.train.map(([value, title]) => SB.make("option", { value }, title)));
  document.getElementById("train-label").hidden = SB.choices.train.length < 2;
  train.addEventListener("change", () => { SB.state.train = train.value; changed(); });
  const place = document.getElementById("filters");
  for (const [name, title] of Object.entries(SB.FILTERS)) {
    if (SB.choices[name].length < 2) continue;
    const boxes = SB.choices[name].map(([value, text]) => {
      const box = SB.make("input", { type: "checkbox", value });
      box.checked = true;
      return [box, SB.make("label", {}, box, " ", text)];
    });
    const collect = () => {
      const chosen = boxes.filter(([box]) => box.checked).map(([box]) => box.value);
      SB.state[name] = chosen.length < boxes.length ? new Set(chosen) : null;
      changed();
    };
    const all = SB.make("button", { type: "button", class: "quiet", onclick: () => { boxes.forEach(([box]) => { box.checked = true; }); collect(); } }, "All");
    const none = SB.make("button", { type: "button", class: "quiet", onclick: () => { boxes.forEach(([box]) => { box.checked = false; }); collect(); } }, "None");
    const list = SB.make("div", { class: "choices" }, SB.make("div", { class: "row" }, all, none), ...boxes.map(([, label]) => label));
    const details = SB.make("details", { class: "filter", "data-filter": name }, SB.make("summary", {}, title, " ", SB.make("span", { class: "n" })), list);
    boxes.forEach(([box]) => box.addEventListener("change", collect));
    details.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { details.open = false; details.querySelector("summary").focus(); }
    });
    details.addEventListener("toggle", () => {
      // A list near the window's right edge opens to the left
      list.style.left = "";
      if (details.open) {
        const over = list.getBoundingClientRect().right - document.documentElement.clientWidth + 8;
        if (over > 0) list.style.left = `${-over}px`;
      }
    });
    place.append(details);
  }
  document.addEventListener("click", (event) => {
    for (const details of document.querySelectorAll(".filter[open]")) if (!details.contains(event.target)) details.open = false;
  });
  document.getElementById("reset").addEventListener("click", () => {
    for (const name of Object.keys(SB.FILTERS)) SB.state[name] = null;
    changed();
  });
};

// Shows the state in the controls
SB.showFilters = function () {
  document.getElementById("metric").value = SB.state.metric;
  document.getElementById("train").value = SB.state.train;
  for (const details of document.querySelectorAll(".filter")) {
    const chosen = SB.state[details.dataset.filter];
    const boxes = [...details.querySelectorAll("input")];
    boxes.forEach((box) => { box.checked = !chosen || chosen.has(box.value); });
    details.querySelector(".n").textContent = chosen ? `${chosen.size} of ${boxes.length}` : "all";
    details.classList.toggle("on", Boolean(chosen));
  }
  document.getElementById("reset").hidden = !SB.isFiltered();
  for (const item of document.querySelectorAll(".failures > li, .cards > article")) {
    item.hidden = ["method", "task"].some((name) => SB.state[name] && item.dataset[name] && !SB.state[name].has(item.dataset[name]));
  }
  // A heading of nothing says something else than it should
  const none = [...document.querySelectorAll(".failures > li")].every((item) => item.hidden);
  for (const part of document.querySelectorAll(".failures-title, .failures-note")) part.hidden = none;
  for (const list of document.querySelectorAll(".more:has(> .failures)")) list.hidden = [...list.querySelectorAll("li")].every((item) => item.hidden);
};
