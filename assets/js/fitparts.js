// Memory part by part: one bar against what is free, and the same as a table. Both are changed in place, so that a
// figure that moves is seen moving and nothing flickers.

import { h, put, say, term } from "./dom.js";

export class FitParts {
  constructor() {
    this.stack = h("div", { class: "fit-stack" });
    this.range = h("span", { class: "fit-range" });
    this.free = h("span", { class: "fit-free" });
    this.bar = h("div", { class: "fit-bar", role: "img" }, this.stack, this.range, this.free);
    this.used = h("span");
    this.freeText = h("span", { class: "num" });
    this.kind = term("", "");
    this.left = h("span", {}, this.freeText, " ", this.kind, ` ${say("fit.free")}`);
    this.scale = h("div", { class: "fit-scale st-hint" }, this.used, this.left);
    this.rows = h("tbody");
    this.total = h("td", { class: "num" });
    const head = h("tr", {}, h("th", { scope: "col" }, say("fit.parts.part")), h("th", { scope: "col" }, say("fit.parts.size")));
    this.table = h(
      "table",
      { class: "fit-parts" },
      h("caption", {}, say("fit.parts")),
      h("thead", {}, head),
      this.rows,
      h("tfoot", {}, h("tr", {}, h("th", { scope: "row" }, say("fit.total")), this.total)),
    );
    this.element = h("div", {}, this.bar, this.scale, this.table);
    this.known = new Map();
  }

  draw({ parts, low, high, free, free_text: freeText, kind, total, bar, used, verdict }) {
    const most = Math.max(free ?? 0, high) * (free !== null && high > free ? 1.02 : 1);
    const share = (bytes) => `${((100 * bytes) / most).toFixed(2)}%`;
    this.bar.dataset.state = verdict.state;
    this.bar.setAttribute("aria-label", bar);
    this.#keep(parts, share);
    this.range.style.left = share(low);
    this.range.style.width = share(Math.max(0, high - low));
    this.free.hidden = free === null || high <= free;
    this.free.style.left = share(free ?? 0);
    put(this.used, used);
    put(this.freeText, freeText);
    this.left.hidden = !freeText;
    this.#explain(this.kind, say(`fit.kind.${kind}`), say(`fit.kind.${kind}.tip`));
    put(this.total, total);
  }

  /** One segment and one row for each part; those that were there before stay the same elements. */
  #keep(parts, share) {
    const keys = new Set(parts.map(({ key }) => key));
    for (const [key, { segment, row }] of this.known) {
      if (keys.has(key)) continue;
      segment.remove();
      row.remove();
      this.known.delete(key);
    }
    parts.forEach((part, place) => {
      const { segment, row, size, tip } = this.known.get(part.key) ?? this.#add(part);
      segment.style.width = share(part.bytes);
      segment.title = `${part.name}: ${part.gb} GB`;
      put(size, part.gb);
      if (tip) this.#explain(tip, part.name, part.tip);
      if (this.stack.children[place] !== segment) this.stack.insertBefore(segment, this.stack.children[place] ?? null);
      if (this.rows.children[place] !== row) this.rows.insertBefore(row, this.rows.children[place] ?? null);
    });
  }

  #explain(element, word, sentence) {
    put(element, word);
    if (element.dataset.tip === sentence) return;
    element.dataset.tip = sentence;
    element.setAttribute("aria-description", sentence);
  }

  #add({ key, name, tip: words }) {
    const segment = h("span", { "data-part": key });
    const size = h("td", { class: "num" });
    const tip = words ? term(name, words) : null;
    const row = h("tr", {}, h("th", { scope: "row" }, h("span", { class: "fit-swatch", "data-part": key }), tip ?? name), size);
    const made = { segment, row, size, tip };
    this.known.set(key, made);
    return made;
  }
}
