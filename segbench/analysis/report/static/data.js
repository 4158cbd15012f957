// Unpacks the embedded data into frames of columns.
"use strict";
const SB = {};

SB.unpack = async function () {
  const text = document.getElementById("data").textContent;
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const data = JSON.parse(await new Response(stream).text());
  SB.frames = new Map(Object.entries(data.frames).map(([name, frame]) => [name, new SB.Frame(name, frame)]));
  SB.sections = new Map(Object.entries(data.sections));
  SB.metrics = new Map(Object.entries(data.metrics));
  SB.choices = data.choices;
  SB.order = data.order;
  // Which of the report's two orders a column's names stand in, the same in every figure
  SB.ORDERED = data.ordered;
  SB.words = data.words;
  SB.mark = data.mark;
};

SB.Frame = class {
  constructor(name, data) {
    this.name = name;
    this.rows = data.rows;
    this.source = data.source;
    this.filters = data.filters;
    this.columns = new Map(data.columns.map((column) => [column.name, column]));
  }

  // The values of a column, texts decoded
  column(name) {
    const column = this.columns.get(name);
    if (!column) throw new Error(`frame ${this.name} has no column ${name}`);
    if (!column.values) column.values = column.codes.map((code) => (code < 0 ? null : column.levels[code]));
    return column.values;
  }

  isText(name) {
    return Boolean(this.columns.get(name).levels);
  }

  // The numbers of the rows that the conditions and the global filters let through
  select(where = {}) {
    const tests = [];
    for (const [name, wanted] of Object.entries(where)) {
      const values = this.column(name);
      const allowed = new Set([].concat(wanted === "@train" ? SB.state.train : wanted === "@metric" ? SB.state.metric : wanted));
      tests.push((row) => allowed.has(values[row]));
    }
    for (const [filter, names] of Object.entries(this.filters)) {
      const chosen = SB.state[filter];
      if (!(chosen instanceof Set)) continue;
      for (const name of names) {
        const values = this.column(name);
        // 'all' is pooled over tissues: a choice of tissues does not take it away
        tests.push((row) => values[row] === null || chosen.has(values[row]) || (filter === "tissue" && values[row] === "all"));
      }
    }
    const rows = [];
    for (let row = 0; row < this.rows; row++) if (tests.every((test) => test(row))) rows.push(row);
    return rows;
  }
};

SB.mean = (values) => {
  let sum = 0, n = 0;
  for (const value of values) if (value !== null) { sum += value; n++; }
  return n ? sum / n : null;
};

SB.make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
};

SB.say = (text) => { document.getElementById("said").textContent = text; };
