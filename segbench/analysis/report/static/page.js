// Brings the page to life: draws a section when it is near, redraws when the choices change.
"use strict";
SB.start = async function () {
  await SB.unpack();
  SB.readFragment();
  SB.buildTheme();
  const sections = [...document.querySelectorAll("section[data-section]")];
  const stale = new Set(sections);
  const near = new Set();
  SB.buildWords(SB.words);
  for (const section of sections) SB.buildSection(section);

  const drawNear = () => {
    for (const section of near) if (stale.delete(section)) SB.drawSection(section);
  };
  const drawAll = () => {
    for (const section of sections) if (stale.delete(section)) SB.drawSection(section);
  };
  const refresh = () => {
    sections.forEach((section) => stale.add(section));
    SB.showFilters();
    drawNear();
  };
  const current = () => location.hash.slice(1).split("?")[0];
  const changed = () => {
    history.replaceState(null, "", SB.fragment(current()) || location.pathname + location.search);
    refresh();
  };
  SB.buildFilters(changed);
  SB.redrawAll = refresh;
  SB.showFilters();

  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) (isIntersecting ? near.add(target) : near.delete(target));
    drawNear();
  }, { rootMargin: "600px" });
  sections.forEach((section) => watcher.observe(section));

  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  for (const link of document.querySelectorAll("nav a, a.anchor")) {
    // A link keeps the reader's choices
    link.addEventListener("click", (event) => {
      event.preventDefault();
      history.pushState(null, "", SB.fragment(link.hash.slice(1)));
      open(link.hash.slice(1));
    });
  }
  const spy = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      for (const [key, link] of links) key === target.id ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  sections.forEach((section) => spy.observe(section));

  function open(key) {
    const section = sections.find((candidate) => candidate.id === key);
    if (!section) return;
    // Sections above have no height before they are drawn: draw them first, or the target moves away
    for (const above of sections.slice(0, sections.indexOf(section) + 1)) if (stale.delete(above)) SB.drawSection(above);
    section.scrollIntoView();
  }
  window.addEventListener("hashchange", () => { const key = SB.readFragment(); refresh(); open(key); });
  window.addEventListener("popstate", () => { const key = SB.readFragment(); refresh(); open(key); });
  // Paper is white and narrow: every figure is drawn anew for it, and once more for the screen
  window.addEventListener("beforeprint", () => {
    document.documentElement.dataset.print = "";
    sections.forEach((section) => stale.add(section));
    drawAll();
  });
  window.addEventListener("afterprint", () => {
    delete document.documentElement.dataset.print;
    refresh();
  });
  document.getElementById("link").addEventListener("click", () => {
    const url = new URL(location.href);
    url.hash = SB.fragment(current());
    SB.copy(url.href, "Link copied");
  });

  open(current());
  document.documentElement.dataset.ready = "";
};

SB.buildSection = function (section) {
  const spec = SB.sections.get(section.dataset.section);
  if (!spec) return;
  section.querySelector(".figures").append(...spec.figures.map(SB.buildFigure));
  section.querySelector(".tables").append(...spec.tables.map(SB.buildTable));
  if (section.querySelector(".examples")) SB.buildExamples(section);
};

SB.drawSection = function (section) {
  for (const part of section.querySelectorAll(".figure, details.table")) part.redraw();
  if (section.redraw) section.redraw();
  SB.tell(section);
  section.dataset.drawn = "";
};

SB.buildTheme = function () {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  SB.isDark = () => !("print" in root.dataset) && (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  document.getElementById("theme").addEventListener("click", () => { root.dataset.theme = SB.isDark() ? "light" : "dark"; SB.redrawAll(); });
  dark.addEventListener("change", () => SB.redrawAll());
  SB.NARROW.addEventListener("change", () => { if (!("print" in root.dataset)) SB.redrawAll(); });
};

SB.start().catch((error) => {
  document.getElementById("main").prepend(SB.make("p", { class: "note", role: "alert" }, `This report cannot be shown: ${error.message}. A browser of 2023 or later is needed.`));
  throw error;
});
