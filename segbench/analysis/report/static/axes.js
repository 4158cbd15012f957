// Axes and numbers as people read them: whole runs, seconds to days, scores with the digits that the figure shows.
"use strict";
SB.DAY = 86_400;

// A time span in its two largest units, as the rest of segbench says it
SB.duration = function (seconds) {
  if (seconds < 60) return `${Number(seconds.toPrecision(3))} s`;
  const total = Math.round(seconds);
  for (const [size, unit, small, name] of [[SB.DAY, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]]) {
    if (total < size) continue;
    const rest = Math.floor((total % size) / small);
    return `${Math.floor(total / size).toLocaleString("en")} ${unit}` + (rest ? ` ${rest} ${name}` : "");
  }
  return `${total} s`;
};

SB.span = function (seconds) {
  const [size, unit] = [[SB.DAY, "d"], [3600, "h"], [60, "min"], [1, "s"]].find(([size]) => seconds >= size) ?? [0.001, "ms"];
  return `${Number((seconds / size).toPrecision(3)).toLocaleString("en")} ${unit}`;
};

// A value as its figure writes it; sentences use the same
SB.shown = function (spec, value) {
  if (value === null || value === undefined) return "unknown";
  if (spec.unit === "seconds") return SB.duration(value);
  if (spec.whole || spec.x === "runs") return SB.minus(Math.round(value).toLocaleString("en"));
  const size = Math.abs(value).toFixed(spec.kind === "bars" ? 3 : 2);
  const signed = spec.diverging || spec.signed;
  return (Number(size) === 0 ? "" : value < 0 ? "\u2212" : signed ? "+" : "") + size;
};
SB.minus = (text) => text.replace(/^-/, "\u2212");

SB.SPANS = [0.001, 0.01, 0.1, 1, 10, 60, 600, 3600, 6 * 3600, SB.DAY, 7 * SB.DAY, 30 * SB.DAY, 365 * SB.DAY, 3650 * SB.DAY];
SB.STEPS = [0.001, 0.01, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 3 * 3600, 6 * 3600, 12 * 3600,
  ...[1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 20_000].map((days) => days * SB.DAY)];

// Ticks of an axis of seconds: seconds, minutes, hours and days at round numbers, as many as there is room for
SB.timeAxis = function (values, log, width) {
  const known = values.filter((value) => value > 0);
  if (!known.length) return {};
  const most = Math.max(...known), room = Math.max(2, Math.floor(width / 62));
  if (!log) {
    // Halves of a unit can be read, thirds cannot
    const unit = [SB.DAY, 3600, 60].find((size) => most >= size) ?? 0;
    const step = SB.STEPS.find((step) => most / step <= room && step >= unit / 2) ?? SB.STEPS.at(-1);
    const ticks = Array.from({ length: Math.floor(most * 1.05 / step) + 1 }, (_, n) => n * step);
    return { tickmode: "array", tickvals: ticks, ticktext: ticks.map((tick) => (tick ? SB.span(tick) : "0")), rangemode: "tozero" };
  }
  const range = [Math.log10(Math.min(...known)) - 0.3, Math.log10(most) + 0.3];
  let ticks = SB.SPANS.filter((tick) => Math.log10(tick) >= range[0] && Math.log10(tick) <= range[1]);
  // Within one unit there are too few: the round numbers between them
  if (ticks.length < 3) ticks = SB.STEPS.filter((tick) => Math.log10(tick) >= range[0] && Math.log10(tick) <= range[1]);
  const apart = 56 / Math.max(width, 1) * (range[1] - range[0]);
  ticks = ticks.reduce((kept, tick) => (!kept.length || Math.log10(tick / kept.at(-1)) >= apart ? [...kept, tick] : kept), []);
  return { range, tickmode: "array", tickvals: ticks, ticktext: ticks.map(SB.span), type: "log" };
};

// Ticks of counts and ranks: whole numbers only
SB.wholeAxis = function (most, width) {
  const room = Math.max(2, Math.floor(width / 46));
  const step = [1, 2, 5].flatMap((digit) => [0, 1, 2, 3, 4, 5, 6].map((power) => digit * 10 ** power)).sort((a, b) => a - b).find((step) => most / step <= room) ?? 1e7;
  return { dtick: step, tick0: 0, tickformat: ",d" };
};
