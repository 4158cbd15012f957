// The table behind a figure: sortable, filterable, downloadable as CSV.
"use strict";
SB.PAGE_ROWS = 50;

SB.buildTable = function (spec) {
  const frame = SB.frames.get(spec.frame);
  const names = spec.columns.length ? spec.columns : [...frame.columns.keys()];
  const state = { sort: null, falling: false, words: "", shown: SB.PAGE_ROWS };
  const head = SB.make("tr");
  const body = SB.make("tbody");
  const note = SB.make("span", { class: "count", role: "status" });
  const more = SB.make("button", { type: "button", class: "quiet", onclick: () => { state.shown *= 10; draw(); } }, "Show more");
  const search = SB.make("input", { type: "search", placeholder: "Filter rows", "aria-label": `Filter the rows of ${spec.title}` });
  search.addEventListener("input", () => { state.words = search.value.toLowerCase(); state.shown = SB.PAGE_ROWS; draw(); });
  const headers = names.map((name) => {
    const cell = SB.make("th", { scope: "col", class: frame.isText(name) ? "" : "number" });
    cell.append(SB.make("button", { type: "button", onclick: () => {
      state.falling = state.sort === name ? !state.falling : !frame.isText(name);
      state.sort = name;
      draw();
    } }, name.replaceAll("_", " ")));
    head.append(cell);
    return cell;
  });

  function chosenRows() {
    let rows = frame.select(spec.where);
    if (state.words) {
      const columns = names.map((name) => frame.column(name));
      rows = rows.filter((row) => columns.some((values) => values[row] !== null && String(values[row]).toLowerCase().includes(state.words)));
    }
    if (state.sort) {
      const values = frame.column(state.sort);
      const sign = state.falling ? -1 : 1;
      rows.sort((a, b) => {
        if (values[a] === null || values[b] === null) return (values[a] === null) - (values[b] === null);
        return sign * (typeof values[a] === "number" ? values[a] - values[b] : values[a].localeCompare(values[b]));
      });
    }
    return rows;
  }

  function draw() {
    const rows = chosenRows();
    headers.forEach((cell, n) => cell.setAttribute("aria-sort", state.sort !== names[n] ? "none" : state.falling ? "descending" : "ascending"));
    body.replaceChildren(...rows.slice(0, state.shown).map((row) =>
      SB.make("tr", {}, ...names.map((name) => {
        const value = frame.column(name)[row];
        const text = SB.cellText(value);
        const cell = SB.make("td", { class: typeof value === "number" ? "number" : "" });
        // Logs and settings are long: the cell is cut, the whole text is a click away
        if (text.length > 80) cell.append(SB.make("details", { class: "long" }, SB.make("summary", {}, text.slice(0, 60) + "…"), SB.make("pre", {}, text)));
        else cell.textContent = text;
        return cell;
      }))));
    note.textContent = `${Math.min(rows.length, state.shown).toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`;
    more.hidden = rows.length <= state.shown;
  }

  const download = SB.make("button", { type: "button", class: "quiet csv", onclick: () => SB.downloadCsv(frame, names, chosenRows()) }, "Download CSV");
  const source = SB.make("details", { class: "sql" }, SB.make("summary", {}, "SQL"), SB.make("pre", { tabindex: "0" }, frame.source),
    SB.make("button", { type: "button", class: "quiet", onclick: () => SB.copy(frame.source, "SQL copied") }, "Copy"));
  const place = SB.make("details", { class: "table", "data-frame": spec.frame },
    SB.make("summary", {}, `Table: ${spec.title}`),
    SB.make("div", { class: "controls" }, search, note, more, download, source),
    SB.make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": spec.title }, SB.make("table", {}, SB.make("thead", {}, head), body)));
  place.redraw = () => { if (place.open) draw(); };
  place.addEventListener("toggle", place.redraw);
  return place;
};

SB.cellText = (value) => {
  if (value === null) return "";
  if (typeof value !== "number") return value;
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)));
};

SB.downloadCsv = function (frame, names, rows) {
  // A leading =, +, - or @ of a text would be a formula to a spreadsheet
  const quote = (value) => {
    if (value === null) return "";
    if (typeof value === "number") return String(value);
    const text = /^[=+\-@\t\r]/.test(value) ? "'" + value : value;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const columns = names.map((name) => frame.column(name));
  const lines = [names.map(quote).join(","), ...rows.map((row) => columns.map((values) => quote(values[row])).join(","))];
  const url = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
  const link = SB.make("a", { href: url, download: `${frame.name}.csv` });
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
