// The table behind a figure, by Tabulator: sorted, filtered and scrolled there; what a cell says and what is saved is said here.
"use strict";
SB.TABLE_HEIGHT = 480;

SB.buildTable = function (spec) {
  const frame = SB.frames.get(spec.frame);
  const names = spec.columns.length ? spec.columns : [...frame.columns.keys()];
  const note = SB.make("span", { class: "count", role: "status" });
  const search = SB.make("input", { type: "search", placeholder: "Filter rows", "aria-label": `Filter the rows of ${spec.title}` });
  const holder = SB.make("div", { class: "grid scroll" });
  let table = null, total = 0;

  const count = () => {
    const shown = table ? table.getDataCount("active") : 0;
    note.textContent = `${shown.toLocaleString("en")} of ${total.toLocaleString("en")} rows`;
  };
  const matches = () => {
    const words = search.value.toLowerCase();
    return words ? (row) => names.some((_, n) => row[n] !== null && String(row[n]).toLowerCase().includes(words)) : () => true;
  };
  search.addEventListener("input", () => { table?.setFilter(matches()); });

  // A row is an object by the columns' places: a column may be called what Tabulator would read as a path
  const rows = () => frame.select(spec.where).map((row) => Object.fromEntries(names.map((name, n) => [n, frame.column(name)[row]])));

  function draw() {
    if (!place.open) return;
    const data = rows();
    total = data.length;
    if (table) { table.replaceData(data).then(count); return; }
    table = new Tabulator(holder, {
      data, height: Math.min(SB.TABLE_HEIGHT, 40 + 30 * Math.max(3, data.length)), layout: "fitDataFill", placeholder: "No row for this choice",
      columnDefaults: { headerSortStartingDir: "asc", headerSortTristate: true, resizable: "header" },
      columns: names.map((name, n) => SB.tableColumn(frame, name, n)),
    });
    table.on("tableBuilt", () => { SB.readableTable(holder, spec.title); count(); });
    table.on("dataFiltered", (_, left) => { note.textContent = `${left.length.toLocaleString("en")} of ${total.toLocaleString("en")} rows`; });
    table.on("dataSorted", () => SB.readableTable(holder, spec.title));
    table.on("renderComplete", () => SB.readableTable(holder, spec.title));
  }

  const download = SB.make("button", { type: "button", class: "quiet csv", onclick: () => SB.downloadCsv(frame.name, names, table.getData("active").map((row) => names.map((_, n) => row[n]))) }, "Download CSV");
  const source = SB.make("details", { class: "sql" }, SB.make("summary", {}, "SQL"), SB.make("pre", { tabindex: "0" }, frame.source),
    SB.make("button", { type: "button", class: "quiet", onclick: () => SB.copy(frame.source, "SQL copied") }, "Copy"));
  const place = SB.make("details", { class: "table", "data-frame": spec.frame },
    SB.make("summary", {}, `Table: ${spec.title}`),
    SB.make("div", { class: "controls" }, search, note, download, source),
    holder);
  place.redraw = draw;
  place.addEventListener("toggle", draw);
  return place;
};

SB.tableColumn = function (frame, name, n) {
  const text = frame.isText(name);
  return {
    title: String(n), field: String(n), sorter: SB.compareCells, hozAlign: text ? "left" : "right", headerHozAlign: text ? "left" : "right",
    headerSortStartingDir: text ? "asc" : "desc", maxInitialWidth: 340,
    // Tabulator takes titles and values for HTML: both come from a store, and must stay text
    titleFormatter: () => { const title = SB.make("span", {}, name.replaceAll("_", " ")); if (SB.WORDS?.[name]) title.title = SB.WORDS[name]; return title; },
    formatter: (cell) => SB.cell(cell.getValue()),
  };
};

// Empty cells last, whichever way it is sorted
SB.compareCells = function (a, b, first, second, column, way) {
  if (a === null || b === null) return ((a === null) - (b === null)) * (way === "desc" ? -1 : 1);
  return typeof a === "number" ? a - b : String(a).localeCompare(String(b));
};

// Logs and settings are long: the cell is cut, the whole text is a click away
SB.cell = function (value) {
  const text = SB.cellText(value);
  if (text.length <= 80) return document.createTextNode(text);
  return SB.make("button", { type: "button", class: "quiet long", onclick: () => SB.readLong(text), "aria-label": `Show the whole text: ${text.slice(0, 60)}` }, text.slice(0, 60) + "…");
};

SB.readLong = function (text) {
  const close = SB.make("button", { type: "button", onclick: () => dialog.close() }, "Close");
  const dialog = SB.make("dialog", { class: "long-text", "aria-label": "The whole text", onclose: () => dialog.remove() }, SB.make("pre", { tabindex: "0" }, text), close);
  document.body.append(dialog);
  dialog.showModal();
};

// What reads the page aloud, and what moves through it by keys, finds the table's name and its scrolling part
SB.readableTable = function (holder, title) {
  holder.setAttribute("aria-label", title);
  const body = holder.querySelector(".tabulator-tableholder");
  if (!body) return;
  // A grid's children are groups of rows: the box that scrolls is one, and what is inside it is only there to hold them
  holder.removeAttribute("aria-owns");
  body.tabIndex = 0;
  body.setAttribute("role", "rowgroup");
  body.setAttribute("aria-label", `${title}: rows`);
  body.querySelector(".tabulator-table")?.setAttribute("role", "none");
};

SB.cellText = (value) => {
  if (value === null) return "";
  if (typeof value !== "number") return value;
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)));
};

SB.downloadCsv = function (name, names, rows) {
  // A leading =, +, - or @ of a text would be a formula to a spreadsheet
  const quote = (value) => {
    if (value === null) return "";
    if (typeof value === "number") return String(value);
    const text = /^[=+\-@\t\r]/.test(value) ? "'" + value : value;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = [names.map(quote).join(","), ...rows.map((row) => row.map(quote).join(","))];
  const url = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
  const link = SB.make("a", { href: url, download: `${name}.csv` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
};

SB.copy = async function (text, said) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // A page opened from a file has no clipboard in some browsers: the old way
    const area = SB.make("textarea", { "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  SB.say(said);
};
