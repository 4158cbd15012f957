// Says what segbench's words mean where a section first uses them: to the pointer, to the keyboard and to a finger.
"use strict";
// Words that need no explaining to somebody who looks at cells
SB.PLAIN = new Set(["cell", "method", "model", "analysis"]);

SB.buildWords = function (words) {
  const known = Object.entries(words).filter(([word]) => !SB.PLAIN.has(word)).sort(([a], [b]) => b.length - a.length);
  SB.WORDS = Object.fromEntries(known.map(([word, text]) => [word.replaceAll(" ", "_"), `${word}: ${text}`]));
  for (const [column, word] of [["test_tissue", "tissue"], ["train_tissue", "training_tissue"], ["train_s", "T"], ["standardised_s", "standardised_time"], ["run_id", "run"], ["operation", "post-operation"]]) SB.WORDS[column] = SB.WORDS[word];
  const tip = SB.make("div", { class: "tip", "aria-hidden": "true", hidden: true });
  document.body.append(tip);
  const hide = () => { tip.hidden = true; };
  const show = (button) => {
    tip.textContent = button.nextSibling.textContent;
    tip.hidden = false;
    const at = button.getBoundingClientRect(), own = tip.getBoundingClientRect(), room = document.documentElement.clientWidth - own.width - 8;
    tip.style.left = `${Math.max(8, Math.min(at.left, room))}px`;
    tip.style.top = `${at.bottom + own.height + 8 < innerHeight ? at.bottom + 4 : Math.max(8, at.top - own.height - 4)}px`;
  };
  let number = 0;
  const explain = (word, text) => {
    const id = `word-${++number}`;
    const button = SB.make("button", { type: "button", class: "word", "aria-describedby": id }, word);
    for (const event of ["mouseenter", "focus", "click"]) button.addEventListener(event, () => show(button));
    for (const event of ["mouseleave", "blur"]) button.addEventListener(event, hide);
    return [button, SB.make("span", { id, hidden: true }, text)];
  };
  addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  addEventListener("scroll", hide, { passive: true });
  addEventListener("pointerdown", (event) => { if (!event.target.closest?.(".word")) hide(); });
  for (const section of document.querySelectorAll("section[data-section]")) {
    const said = new Set();
    for (const place of section.querySelectorAll(".about, .facts dt")) SB.explainIn(place, known, said, explain);
  }
};

// Turns the first mention of each word that is not said yet into a button
SB.explainIn = function (place, known, said, explain) {
  for (const [word, text] of known) {
    if (said.has(word)) continue;
    const mention = new RegExp(`(?<![\\w-])${word.replace(/s$/, "")}(?:s|es)?(?![\\w-])`, word === "T" ? "" : "i");
    for (const node of [...place.childNodes]) {
      const found = node.nodeType === Node.TEXT_NODE && node.data.match(mention);
      if (!found) continue;
      const rest = node.splitText(found.index);
      // a button may be followed by a new line: what ends a sentence stays with its word
      const [, end] = rest.data.slice(found[0].length).match(/^([.,;:)]*)/);
      rest.data = rest.data.slice(found[0].length + end.length);
      rest.before(SB.make("span", { class: "unbroken" }, ...explain(found[0], `${word}: ${text}`), end));
      said.add(word);
      break;
    }
  }
};
