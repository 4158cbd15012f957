"use strict";
// Filters, sorts and deep links of the index page; copy buttons of every page. Nothing is fetched.
(() => {
  const root = document.documentElement;
  const all = (selector) => [...document.querySelectorAll(selector)];

  // where this gallery lies, for the commands: the folder of its index
  for (const span of all(".here")) {
    const folder = new URL(span.dataset.up ? "../" : "./", location.href.split(/[?#]/)[0]);
    const plain = folder.protocol === "file:" ? decodeURIComponent(folder.pathname) : folder.href;
    span.textContent = /[^\w@%+=:,./-]/.test(plain) ? `'${plain.replaceAll("'", "'\\''")}'` : plain;
  }

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const area = Object.assign(document.createElement("textarea"), { value: text });
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  }
  for (const button of all("[data-copy]")) {
    button.addEventListener("click", async () => {
      const done = await copy(document.getElementById(button.dataset.copy).textContent);
      button.textContent = done ? "Copied" : "Select and copy";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }

  const body = document.querySelector("#models tbody");
  if (!body) { root.dataset.ready = ""; return; }
  const rows = [...body.rows].map((row, place) => ({ row, place, data: row.dataset, text: row.textContent.toLowerCase() }));
  const selects = all("[data-filter]"), search = document.getElementById("search"), least = document.getElementById("least");
  const sorts = all("[data-sort]"), form = document.getElementById("filters");
  let sort = { key: "", down: false };

  function fits({ data, text }) {
    for (const select of selects) {
      if (select.value && !data[select.dataset.filter].split("|").includes(select.value)) return false;
    }
    if (least.value && !(Number(data.accuracy || -1) >= Number(least.value))) return false;
    return search.value.toLowerCase().split(/\s+/).every((word) => text.includes(word));
  }
  function compare(a, b) {
    const button = sorts.find((one) => one.dataset.sort === sort.key);
    if (!button) return a.place - b.place;
    const [x, y] = [a.data[sort.key], b.data[sort.key]];
    if ((x === "") !== (y === "")) return x === "" ? 1 : -1;  // what is not known comes last either way
    const order = button.dataset.number === "1" ? x - y : x.localeCompare(y);
    return (sort.down ? -order : order) || a.place - b.place;
  }
  function show() {
    let n = 0;
    for (const one of rows) {
      one.row.hidden = !fits(one);
      n += !one.row.hidden;
    }
    body.append(...[...rows].sort(compare).map((one) => one.row));
    for (const button of sorts) {
      const on = button.dataset.sort === sort.key;
      button.closest("th").setAttribute("aria-sort", on ? (sort.down ? "descending" : "ascending") : "none");
    }
    document.getElementById("told").textContent = `${n} of ${rows.length} models`;
    document.getElementById("none").hidden = n > 0;
  }
  function toAddress() {
    const kept = new URLSearchParams();
    for (const select of selects) if (select.value) kept.set(select.dataset.filter, select.value);
    if (search.value) kept.set("search", search.value);
    if (least.value) kept.set("least", least.value);
    if (sort.key) kept.set("sort", (sort.down ? "-" : "") + sort.key);
    history.replaceState(null, "", kept.size ? `#${kept}` : location.pathname + location.search);
  }
  function fromAddress() {
    const kept = new URLSearchParams(location.hash.slice(1));
    for (const select of selects) {
      const wanted = kept.get(select.dataset.filter) ?? "";
      select.value = [...select.options].some((option) => option.value === wanted) ? wanted : "";
    }
    search.value = kept.get("search") ?? "";
    least.value = kept.get("least") ?? "";
    const told = kept.get("sort") ?? "";
    sort = { key: told.replace(/^-/, ""), down: told.startsWith("-") };
    show();
  }
  form.addEventListener("input", () => { show(); toAddress(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { show(); toAddress(); }));
  document.getElementById("again").addEventListener("click", () => form.reset());
  for (const button of sorts) {
    button.addEventListener("click", () => {
      const key = button.dataset.sort;
      // the first click shows the best first: the highest accuracy, the shortest time
      sort = { key, down: sort.key === key ? !sort.down : key === "accuracy" };
      show();
      toAddress();
    });
  }
  addEventListener("hashchange", fromAddress);
  fromAddress();
  root.dataset.ready = "";
})();
