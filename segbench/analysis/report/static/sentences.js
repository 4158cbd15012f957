// What is to be seen, in sentences: each made from the marks of the figures beside it, as they are drawn at the moment.
"use strict";
{
SB.FIRST_FINDINGS = 5;
const count = (n, noun, plural) => `${n.toLocaleString("en")} ${n === 1 ? noun : plural ?? noun + "s"}`;
const listed = (names, most = 5) => {
  const cut = names.length > most ? [...names.slice(0, most), `${names.length - most} more`] : names;
  return cut.length < 2 ? cut.join("") : `${cut.slice(0, -1).join(", ")} and ${cut.at(-1)}`;
};
const metric = () => (SB.state.metric === "accuracy" ? "accuracy" : SB.metricName());
const trained = () => (SB.state.train === "all" ? "trained on all tissues" : `trained on ${SB.state.train}`);
const on = (facet) => (facet === null ? "" : ` on ${facet}`);
const at = (facet) => (facet === null ? "" : `${facet}: `);
const top = (marks, of = (mark) => mark.value) => marks.reduce((most, mark) => (most === null || of(mark) > of(most) ? mark : most), null);
const low = (marks, of = (mark) => mark.value) => top(marks, (mark) => -of(mark));
const valued = (marks) => marks.filter((mark) => mark.value !== null);
const panels = (marks) => [...SB.groupBy(marks, (mark) => mark.facet)];
const single = (marks) => marks.filter((mark) => mark.x !== "all");
const upper = (text) => text[0].toUpperCase() + text.slice(1);
const ERRORS = { missed: "missed cells", split: "cells split into several", merged: "cells merged into one", spurious: "predictions where there is no cell", loose: "outlines that are not close enough" };
// What is not told apart by the digits that the figure shows is equal
const alike = (spec, a, b) => SB.shown(spec, a) === SB.shown(spec, b);

// {sentence, findings: [{text, size}]} of a section; figure(frame, kind) gives one of its figures, empty where it has none such
SB.SAY = {
  overview(figure) {
    const { spec, view: { marks } } = figure("statuses");
    const total = (of) => of.reduce((sum, mark) => sum + mark.value, 0);
    const methods = SB.distinct(marks.map((mark) => mark.y));
    const states = [...SB.groupBy(marks, (mark) => mark.group)];
    const ended = states.length === 1 && states[0][0] === "done" ? "all of them finished" : listed(states.map(([status, own]) => `${SB.shown(spec, total(own))} ${status}`), 9);
    const findings = [...SB.groupBy(marks.filter((mark) => mark.group !== "done"), (mark) => mark.y)]
      .map(([method, own]) => ({ size: total(own), text: `${method}: ${listed(own.map((mark) => `${SB.shown(spec, mark.value)} ${mark.group}`), 9)}, of ${count(total(marks.filter((mark) => mark.y === method)), "run")}.` }));
    return { sentence: `${count(methods.length, "method")}, ${count(total(marks), "run")}: ${ended}.`, findings };
  },

  ranking(figure) {
    const { spec, view: { marks } } = figure("leaderboard");
    const tasks = panels(marks).map(([task, own]) => {
      const best = top(own);
      return { task, own, best, firsts: own.filter((mark) => alike(spec, mark.value, best.value)).map((mark) => mark.y) };
    });
    const findings = tasks.length > 1 ? tasks.map(({ task, own, best, firsts }) => {
      const next = top(own.filter((mark) => !firsts.includes(mark.y)));
      const size = next ? best.value - next.value : 0;
      return { size, text: `${task}: ${listed(firsts)} ${firsts.length > 1 ? "share the first place" : own.length > 1 ? "is first" : "is alone"} with ${SB.shown(spec, best.value)}${next ? `, then ${next.y} with ${SB.shown(spec, next.value)}` : ""}.` };
    }) : [];
    return { sentence: tasks.length ? SB.firstPlaces(spec, tasks) : "", findings: [...findings, ...SB.overall(figure("components"), figure("ranking"))] };
  },

  accuracy(figure) {
    const { spec, view: { marks } } = figure("scores");
    const cells = valued(single(marks));
    if (!cells.length) {
      const pooled = valued(marks), best = top(pooled);
      return { sentence: `The images have no tissues to tell apart here: the best ${metric()} is that of ${best.y}${on(best.facet)}, ${SB.shown(spec, best.value)} (${trained()}).`, findings: [] };
    }
    const tissues = [...SB.groupBy(cells, (mark) => `${mark.facet} ${mark.x}`).values()].map((own) => top(own));
    const easy = top(tissues), hard = low(tissues);
    const sentence = tissues.length < 2
      ? `On ${easy.x} (${easy.facet}) ${easy.y} has the highest ${metric()}, ${SB.shown(spec, easy.value)} (${trained()}).`
      : `${upper(metric())} by tissue, of methods ${trained()}: the highest is that of ${easy.y} on ${easy.x}, ${SB.shown(spec, easy.value)} (${easy.facet}); on ${hard.x} no method is above ${SB.shown(spec, hard.value)} (${hard.y}, ${hard.facet}).`;
    const findings = panels(cells).flatMap(([task, own]) => {
      const places = [...SB.groupBy(own, (mark) => mark.x).values()], rows = SB.distinct(own.map((mark) => mark.y));
      if (rows.length < 2) return [];
      // First is who no other is above by the digits that stand in the cells
      const firsts = SB.groupBy(places.flatMap((column) => column.filter((mark) => alike(spec, mark.value, top(column).value))), (mark) => mark.y);
      const [name, won] = [...firsts].sort(([, a], [, b]) => b.length - a.length)[0];
      const others = [...firsts].filter(([other, theirs]) => other !== name && theirs.length === won.length).map(([other]) => other);
      const spread = Math.max(...places.map((column) => top(column).value - low(column).value));
      const text = others.length ? `${task}: ${listed([name, ...others])} are first on ${won.length} of ${count(places.length, "tissue")} each.` : `${task}: ${name} is first on ${won.length} of ${count(places.length, "tissue")}.`;
      const widest = places.find((column) => top(column).value - low(column).value === spread);
      return [{ size: spread, text: `${text} The methods lie furthest apart on ${widest[0].x}, from ${SB.shown(spec, low(widest).value)} (${low(widest).y}) to ${SB.shown(spec, top(widest).value)} (${top(widest).y}).` }];
    });
    return { sentence, findings };
  },

  diagnosis(figure) {
    const { spec, view: { marks } } = figure("gap-kinds");
    const told = panels(valued(marks)).map(([task, own]) => {
      const costs = [...SB.groupBy(own, (mark) => mark.y).values()].map((bars) => top(bars));
      const kinds = [...SB.groupBy(costs, (mark) => mark.group)].sort(([, a], [, b]) => b.length - a.length);
      const [kind, whose] = kinds[0], most = top(costs);
      const which = costs.length === 1 ? `${most.y} loses most` : kinds.length > 1 && kinds[1][1].length === whose.length ? "No kind of error is the costliest of most methods; the single greatest loss is" : `${whose.length} of ${count(costs.length, "method")} lose most to ${ERRORS[kind]}; the single greatest loss is`;
      return { size: most.value, text: `${task}: ${which} ${costs.length === 1 ? "" : `that of ${most.y} `}to ${ERRORS[most.group]}, ${SB.shown(spec, most.value)} of AP50.` };
    });
    return SB.strongest(told, []);
  },

  regression(figure) {
    const { spec, view: { marks } } = figure("regression");
    const told = [...SB.groupBy(marks, (mark) => mark.group)].map(([predictor, own]) => {
      const known = own.filter((mark) => mark.low !== null && mark.high !== null);
      const above = known.filter((mark) => mark.low > 0).length, below = known.filter((mark) => mark.high < 0).length;
      const far = top(own, (mark) => Math.abs(mark.value));
      const sure = known.length ? `its 95 % interval lies above zero in ${above} and below zero in ${below} of ${count(known.length, "fit")}` : `no interval is known of ${count(own.length, "fit")}`;
      return { size: Math.abs(far.value), text: `${upper(predictor)}: ${sure}; the largest coefficient is ${SB.shown(spec, far.value)}, of ${far.y}${on(far.facet)}.` };
    }).sort((a, b) => b.size - a.size);
    return { sentence: told[0]?.text ?? "", findings: told.slice(1) };
  },

  morphology(figure) {
    const { view: { marks } } = figure("morphology", "scatter"), windows = figure("morphology", "bars");
    const whole = (value) => value.toLocaleString("en", { maximumFractionDigits: 0 });
    const told = panels(marks).map(([panel, own]) => {
      const big = top(own, (mark) => mark.x), small = low(own, (mark) => mark.x), long = low(own, (mark) => mark.y), round = top(own, (mark) => mark.y);
      if (own.length < 2) return { size: 0, text: `${at(panel)}${own[0].label} has cells of ${whole(own[0].x)} pixels and elongation ${own[0].y.toFixed(2)}.` };
      return { size: big.x / Math.max(small.x, 1), text: `${at(panel)}the largest cells are those of ${big.label} (${whole(big.x)} pixels), the smallest those of ${small.label} (${whole(small.x)}); the roundest ${round.label} (elongation ${round.y.toFixed(2)}), the longest ${long.label} (${long.y.toFixed(2)}).` };
    }).sort((a, b) => b.size - a.size);
    const learned = panels(valued(windows.view.marks)).filter(([, own]) => own.length > 1).map(([panel, own]) => {
      const most = top(own), least = low(own);
      return { size: 0, text: `${at(panel)}${most.y} has the most training windows (${SB.shown(windows.spec, most.value)}), ${least.y} the fewest (${SB.shown(windows.spec, least.value)}).` };
    });
    return { sentence: told[0]?.text ?? "", findings: [...told.slice(1), ...learned] };
  },

  channels(figure) {
    const { spec, view: { marks } } = figure("channels", "dots"), tissues = figure("channels", "heatmap");
    const told = panels(marks).map(([panel, own]) => ({ size: Math.abs(top(own, (mark) => Math.abs(mark.value)).value), text: `${panel}: a second channel raises ${metric()} for ${SB.changes(spec, own, "up")}.` }));
    return SB.strongest(told, SB.extremes(tissues, "gain"));
  },

  modality(figure) {
    const { spec, view: { marks } } = figure("modality", "dots"), tissues = figure("modality", "heatmap");
    const told = panels(marks).map(([panel, own]) => ({ size: Math.abs(top(own, (mark) => Math.abs(mark.value)).value), text: `${panel}: ${metric()} is lower than that of the same method trained on these images for ${SB.changes(spec, own, "down")}.` }));
    if (told.length) return SB.strongest(told, []);
    const crossed = panels(valued(tissues.view.marks)).map(([panel, own]) => ({ size: top(own).value, text: `${panel}: ${top(own).y} reaches ${SB.shown(tissues.spec, top(own).value)} on ${place(top(own).x)}; no method here was trained on these images itself, so the change is not known.` }));
    return SB.strongest(crossed, []);
  },

  transfer(figure) {
    const { spec, view: { marks } } = figure("transfer");
    const cells = valued(single(marks)).filter((mark) => mark.y !== "all");
    const away = cells.filter((mark) => mark.x !== mark.y);
    if (!away.length) {
      const pooled = valued(marks), best = top(pooled);
      return { sentence: `No model was tested on another tissue than its own here; the best score is ${SB.shown(spec, best.value)}, trained on ${place(best.y)} and tested on ${place(best.x)} (${best.facet}).`, findings: [] };
    }
    const best = top(away), worst = low(away);
    const sentence = `Of models trained on one tissue and tested on another, the best is trained on ${best.y} and tested on ${best.x} with ${SB.shown(spec, best.value)} (${best.facet})`
      + (away.length > 1 ? `, the worst trained on ${worst.y} and tested on ${worst.x} with ${SB.shown(spec, worst.value)} (${worst.facet}).` : ".");
    const findings = panels(cells).flatMap(([panel, own]) => {
      const columns = [...SB.groupBy(own, (mark) => mark.x)].filter(([tissue, column]) => column.length > 1 && column.some((mark) => mark.y === tissue));
      if (!columns.length) return [];
      const home = columns.filter(([tissue, column]) => top(column).y === tissue).length;
      const loss = top(columns.map(([tissue, column]) => {
        const mine = column.find((mark) => mark.y === tissue), other = low(column.filter((mark) => mark.y !== tissue));
        return { tissue, mine, other, value: Math.abs(mine.value - other.value) };
      }));
      return [{ size: loss.value, text: `${panel}: training on the tissue itself is best for ${home} of ${count(columns.length, "tissue")}; on ${loss.tissue} it gives ${SB.shown(spec, loss.mine.value)}, training on ${loss.other.y} ${SB.shown(spec, loss.other.value)}.` }];
    });
    return { sentence, findings };
  },

  dilation(figure) {
    const { spec, view: { marks } } = figure("dilation-curves");
    const told = panels(marks).flatMap(([panel, own]) => {
      const gains = [...SB.groupBy(own, (mark) => mark.group)].flatMap(([method, line]) => {
        const none = line.find((mark) => mark.x === 0), best = top(line, (mark) => mark.y);
        return none ? [{ method, none, best, value: best.y - none.y }] : [];
      });
      if (!gains.length) return [];
      const most = top(gains), helped = gains.filter((gain) => gain.best.x > 0).length;
      const shown = (value) => value.toFixed(2);
      return [{ size: most.value, text: `${panel}: it raises ${metric()} for ${helped} of ${count(gains.length, "method")}${helped ? `, most for ${most.method}, from ${shown(most.none.y)} at 0 pixels to ${shown(most.best.y)} at ${most.best.x}` : ""}.` }];
    });
    return told.length ? SB.strongest(told, []) : { sentence: "No curve here has a point without dilation or erosion, so what it brings is not known.", findings: [] };
  },

  time(figure) {
    const times = figure("times");
    const own = times.view.marks.filter((mark) => mark.group === "T, as run");
    const fast = low(own), slow = top(own);
    let sentence = "No method that was trained is among those chosen.";
    if (own.length) sentence = `${fast.y} trained fastest, in ${SB.duration(fast.value)}${on(fast.facet)}` + (own.length > 1 ? `, and ${slow.y} slowest, in ${SB.duration(slow.value)}${on(slow.facet)}` : "") + ` (${trained()}).`;
    const scaled = panels(times.view.marks.filter((mark) => mark.group === "standardised")).filter(([, marks]) => marks.length > 1)
      .map(([task, marks]) => ({ size: 0, text: `${task}: at batch 8 and 50 epochs ${low(marks).y} takes ${SB.duration(low(marks).value)} and ${top(marks).y} ${SB.duration(top(marks).value)}.` }));
    return { sentence, findings: [...SB.fronts(figure("cost")), ...scaled] };
  },

  recommendation(figure) {
    const { spec, view: { marks } } = figure("recommendation"), training = figure("training-data");
    const cells = valued(marks);
    const pooled = cells.filter((mark) => mark.y === "all");
    const told = [...SB.groupBy(pooled.length ? pooled : cells, (mark) => mark.x)].map(([purpose, own]) => ({ size: top(own).value, text: `${purpose}: ${top(own).text} has the highest accuracy, ${SB.shown(spec, top(own).value)} on ${place(top(own).y)}.` }));
    const others = [...SB.groupBy(cells.filter((mark) => mark.y !== "all"), (mark) => mark.x)].flatMap(([purpose, own]) => {
      const all = pooled.find((mark) => mark.x === purpose);
      const different = all ? own.filter((mark) => mark.text !== all.text) : [];
      return different.map((mark) => ({ size: mark.value / 10, text: `${purpose}, ${mark.y}: ${mark.text}, with ${SB.shown(spec, mark.value)}.` }));
    });
    const taught = valued(training.view.marks).map((mark) => ({ size: mark.value / 100, text: `${mark.x}, to segment ${mark.y}: train on ${place(mark.text)} (${SB.shown(training.spec, mark.value)}).` }));
    return SB.strongest(told, [...others, ...taught]);
  },

  compare(figure) {
    const { spec, view: { marks } } = figure("compare");
    return SB.besideEachOther(spec, marks, "these results", "the other results", "in the other store");
  },

  published(figure) {
    const { spec, view: { marks } } = figure("published");
    return SB.besideEachOther(spec, marks, "these results", "published", "as published");
  },

  runs(figure) {
    const frame = SB.frames.get("runs"), rows = frame.select();
    const distinct = (name) => SB.distinct(rows.map((row) => frame.column(name)[row])).length;
    const ends = [...SB.groupBy(figure("history").view.marks, (mark) => `${mark.facet} ${mark.group}`).values()].filter((line) => line.length > 1).map((line) => line.at(-1));
    const findings = ends.map((mark) => ({ size: Math.abs(1 - mark.y), text: `${mark.facet}: the loss of ${mark.group} ends at ${mark.y.toFixed(2)} of where it began (${trained()}).` }));
    return { sentence: `The table below holds ${count(rows.length, "attempt")} at ${count(distinct("run_id"), "run")} on ${count(distinct("host"), "machine")}; a row holds all that is needed to repeat its run.`, findings };
  },

  methods(figure) {
    const { spec, view: { marks } } = figure("methods");
    const frame = SB.frames.get("methods"), rows = frame.select();
    const ran = rows.filter((row) => frame.column("runs_here")[row] > 0).length;
    const known = valued(marks), best = top(known), worst = low(known);
    const findings = known.length > 1 ? [{ size: best.value - worst.value, text: `The study found ${best.y} the easiest to use (${SB.shown(spec, best.value)}) and ${worst.y} the hardest (${SB.shown(spec, worst.value)}) of the ${known.length} shown.` }] : [];
    return { sentence: `The table below holds the cards of ${count(rows.length, "method")}; ${ran} of them finished a run here.`, findings };
  },

  examples(figure, section) {
    const shown = section.shown ?? [];
    if (!shown.length) return { sentence: "No example is left by the choices above.", findings: [] };
    const methods = SB.distinct(shown.flatMap((example) => example.panels.map((panel) => panel.title)));
    const scored = shown.map((example) => ({ ...example, value: SB.mean(example.panels.map((panel) => panel.ap50)) })).filter((example) => example.value !== null);
    const windows = `${count(shown.length, "test window")} of ${SB.distinct(shown.map((example) => example.task))[0]}, with ${count(methods.length, "method")} side by side`;
    if (!scored.length) return { sentence: `${windows}.`, findings: [] };
    const worst = low(scored), best = top(scored);
    const range = scored.length > 1 ? `the hardest for them is ${worst.image} (${worst.tissue}) with a mean AP50 of ${worst.value.toFixed(2)}, the easiest ${best.image} (${best.tissue}) with ${best.value.toFixed(2)}` : `their mean AP50 on ${worst.image} (${worst.tissue}) is ${worst.value.toFixed(2)}`;
    return { sentence: `${windows}; ${range}.`, findings: [] };
  },
};

const place = (tissue) => (tissue === "all" ? "all tissues together" : tissue);

// The methods that are first, task by task: one that is first more often than every other, or all that share that
SB.firstPlaces = function (spec, tasks) {
  const what = `${metric()}, pooled over the test tissues, of methods ${trained()}`;
  if (tasks.length === 1) {
    const [{ task, own, best, firsts }] = tasks;
    const next = top(own.filter((mark) => !firsts.includes(mark.y)));
    if (own.length === 1) return `On ${task}, ${best.y} alone has a score, ${SB.shown(spec, best.value)} (${what}).`;
    if (firsts.length > 1) return `On ${task}, ${listed(firsts)} share the first place with ${SB.shown(spec, best.value)} (${what}).`;
    return `On ${task}, ${best.y} is first with ${SB.shown(spec, best.value)}, ahead of ${next.y} with ${SB.shown(spec, next.value)} (${what}).`;
  }
  const methods = SB.distinct(tasks.flatMap(({ own }) => own.map((mark) => mark.y)));
  const bests = tasks.map(({ best }) => best.value);
  const range = `the best score of a task lies between ${SB.shown(spec, Math.min(...bests))} and ${SB.shown(spec, Math.max(...bests))} (${what})`;
  if (methods.length === 1) return `${methods[0]} alone has scores: ${range}.`;
  const wins = [...SB.groupBy(tasks.flatMap(({ firsts }) => firsts), (name) => name)].map(([name, won]) => [name, won.length]);
  const most = Math.max(...wins.map(([, won]) => won));
  const winners = SB.inOrder(spec.y, wins.filter(([, won]) => won === most).map(([name]) => name));
  const shared = tasks.some(({ firsts }) => firsts.length > 1) ? ", counting shared places" : "";
  return winners.length === 1
    ? `${winners[0]} is first in ${most} of ${count(tasks.length, "task")}${shared}; ${range}.`
    : `${listed(winners)} are first in ${most} of ${count(tasks.length, "task")} each${shared}; ${range}.`;
};

// What the overall score and its ranks say; both compare all methods of the results, whichever are shown
SB.overall = function (components, ranks) {
  const findings = [];
  for (const [suite, own] of panels(valued(components.view.marks).filter((mark) => mark.x === "overall"))) {
    if (own.length < 2) continue;
    const best = top(own), last = low(own);
    findings.push({ size: best.value - last.value, text: `${suite}: of the ${own.length} methods shown with every component, ${best.y} has the highest overall score, ${SB.shown(components.spec, best.value)}, and ${last.y} the lowest, ${SB.shown(components.spec, last.value)}.` });
  }
  for (const [suite, own] of panels(ranks.view.marks)) {
    const best = low(own);
    if (best.low !== null && best.high !== null) findings.push({ size: 0, text: `${suite}: among all methods of these results, ${best.y} has rank ${SB.shown(ranks.spec, best.value)}, by resampling ${SB.shown(ranks.spec, best.low)} to ${SB.shown(ranks.spec, best.high)}.` });
  }
  return findings;
};

// "3 of 4 methods (surely for 2), from -0.01 (A) to +0.20 (B)"
SB.changes = function (spec, marks, direction) {
  const sign = direction === "up" ? 1 : -1;
  const so = marks.filter((mark) => sign * mark.value > 0).length;
  const known = marks.filter((mark) => mark.low !== null && mark.high !== null);
  const sure = known.filter((mark) => (sign > 0 ? mark.low > 0 : mark.high < 0)).length;
  const least = low(marks), most = top(marks);
  const range = marks.length > 1 ? `from ${SB.shown(spec, least.value)} (${least.y}) to ${SB.shown(spec, most.value)} (${most.y})` : `by ${SB.shown(spec, most.value)} (${most.y})`;
  return `${so} of ${count(marks.length, "method")}, ${range}` + (known.length ? `; the whole 95 % interval says so for ${sure}` : "");
};

SB.strongest = function (told, more) {
  const sorted = [...told].sort((a, b) => b.size - a.size);
  return { sentence: sorted[0]?.text ?? "", findings: [...sorted.slice(1), ...more] };
};

SB.extremes = ({ spec, view: { marks } }, what) => panels(valued(single(marks))).filter(([, own]) => own.length > 1).map(([panel, own]) => {
  const most = top(own), least = low(own);
  return { size: Math.max(Math.abs(most.value), Math.abs(least.value)), text: `${panel}: by tissue, the greatest ${what} is ${SB.shown(spec, most.value)} (${most.y} on ${most.x}), the least ${SB.shown(spec, least.value)} (${least.y} on ${least.x}).` };
});

SB.fronts = ({ spec, view: { marks } }) => panels(marks).filter(([, own]) => own.length > 1).map(([task, own]) => {
  const front = SB.onFront(own), quick = front[0], good = front.at(-1);
  const score = (mark) => `${mark.y.toFixed(2)} in ${SB.duration(mark.x)}`;
  const names = listed(front.map((mark) => mark.label), 8);
  const size = good.y - quick.y;
  if (front.length === 1) return { size, text: `${task}: ${good.label} is both the most accurate and the fastest, with ${score(good)}.` };
  const all = front.length === own.length ? `none of the ${own.length} methods is beaten in both time and ${metric()}` : `${front.length} of ${own.length} methods are beaten by none in both time and ${metric()}: ${names}`;
  return { size, text: `${task}: ${all}; the fastest of them, ${quick.label}, has ${score(quick)}, the best, ${good.label}, ${score(good)}.` };
});

SB.besideEachOther = function (spec, marks, here, there, where) {
  const pairs = [...SB.groupBy(marks, (mark) => JSON.stringify([mark.facet, mark.y])).values()].flatMap((own) => {
    const [mine, theirs] = [here, there].map((name) => own.filter((mark) => mark.group === name));
    return mine.length === 1 && theirs.length === 1 ? [{ mine: mine[0], theirs: theirs[0], value: Math.abs(mine[0].value - theirs[0].value) }] : [];
  });
  if (!pairs.length) return { sentence: `No method shown has one score here and one ${where} to set beside it.`, findings: [] };
  const told = pairs.map(({ mine, theirs, value }) => ({ size: value, text: `${mine.y}${on(mine.facet)}: ${SB.shown(spec, mine.value)} here, ${SB.shown(spec, theirs.value)} ${where}.` })).sort((a, b) => b.size - a.size);
  const up = pairs.filter(({ mine, theirs }) => mine.value > theirs.value).length;
  return { sentence: `${count(pairs.length, "score stands", "scores stand")} beside each other; ${up} ${up === 1 ? "is" : "are"} higher here. The furthest apart: ${told[0].text}`, findings: told.slice(1) };
};

SB.OF_TABLES = new Set(["runs", "methods"]);

// Puts a section's sentence and findings into the page, from what its figures show now
SB.tell = function (section) {
  const say = SB.SAY[section.dataset.section], spec = SB.sections.get(section.dataset.section);
  const sentence = section.querySelector(".sentence"), findings = section.querySelector(".findings");
  if (!say || !spec || !sentence) return;
  const figures = spec.figures.map((figure) => ({ spec: figure, view: SB.view(figure) }));
  const none = { spec: {}, view: { chosen: false, marks: [], facets: [], groups: [] } };
  const figure = (frame, kind) => figures.find((one) => one.spec.frame === frame && (!kind || one.spec.kind === kind)) ?? none;
  // Without a value there is nothing to say but why; tables and pictures may still hold something
  const bare = figures.length > 0 && !SB.OF_TABLES.has(section.dataset.section) && !figures.some(({ view }) => view.marks.some((mark) => mark.value !== null));
  const told = bare ? { sentence: "", findings: [] } : say(figure, section);
  if (!told) return;
  const first = figures[0];
  sentence.textContent = told.sentence || (first?.view.chosen ? SB.whyEmpty(first.spec, first.view) : `The choices above leave nothing of the first figure${first ? `, "${first.spec.title}"` : ""}.`);
  const sorted = told.findings.map((finding, n) => [finding, n]).sort(([a, m], [b, n]) => b.size - a.size || m - n).map(([finding]) => SB.make("li", {}, finding.text));
  findings.replaceChildren();
  findings.hidden = !sorted.length;
  if (sorted.length) findings.append(SB.make("ul", {}, ...sorted.slice(0, SB.FIRST_FINDINGS)));
  const rest = sorted.slice(SB.FIRST_FINDINGS);
  if (rest.length) findings.append(SB.make("details", {}, SB.make("summary", {}, `${count(rest.length, "more finding")}, by falling size`), SB.make("ul", {}, ...rest)));
};
}
