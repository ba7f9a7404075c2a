// Which methods fit the device at hand: in a line for the chosen model, and in a table for every model there is.

import { h, put, say } from "./dom.js";
import { change } from "./fitmend.js";
import { get, post } from "./live.js";

const MODEL = "model.name_or_path";
const KEPT_AS = "studio.fit.models"; // models of the hub that were asked for once: their shapes are known since then
const EVERY = 700; // milliseconds between two looks at a model that is being looked up
const PAUSE = 900; // milliseconds after the card's own answer: the line may come last
let view = null;

export function buildModels() {
  view ??= new FitModels();
  return view.element;
}

/** The form or the card has changed. */
export function drawMethods(question) {
  view?.about(question);
}

class FitModels {
  constructor() {
    this.line = h("ul", { class: "fit-methods" });
    this.label = h("span", { class: "fit-methods-label" }, say("fit.methods"));
    this.table = h("table", { class: "st-table fit-models" });
    const note = h("p", { class: "st-hint" }, say("fit.models.note"));
    this.fold = h("details", { class: "st-fold" }, h("summary", {}, say("fit.models")), note, h("div", { class: "fit-models-frame" }, this.table));
    this.fold.addEventListener("toggle", () => this.fold.open && void this.#fill());
    this.row = h("div", { class: "fit-methods-row", hidden: true }, this.label, this.line);
    this.element = h("div", { class: "fit-choice" }, this.row, this.fold);
    this.asked = 0;
    this.filled = 0;
  }

  about(question) {
    const key = JSON.stringify(question);
    if (key === this.key) return;
    this.key = key;
    this.question = question;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.#ask(), PAUSE);
  }

  async #ask() {
    const number = ++this.asked;
    const { card } = this.question;
    try {
      const { methods } = await post("estimate/methods", this.question);
      if (number !== this.asked) return;
      this.row.hidden = !methods.length;
      put(this.label, card ? say("fit.methods.on", { size: card }) : say("fit.methods"));
      if (this.line.childElementCount !== methods.length) this.line.replaceChildren(...methods.map(() => h("li", {}, h("span", { class: "mark", "aria-hidden": "true" }), h("span"))));
      methods.forEach(({ title, state, word, size }, place) => {
        const item = this.line.children[place];
        item.dataset.state = state;
        put(item.lastChild, `${title} ${word} (${size} GB)`);
      });
      if (this.fold.open) void this.#fill();
    } catch {
      this.row.hidden = true;
    }
  }

  /** The table: a row a model, asked one after the other; another question ends it. */
  async #fill() {
    if (!this.question) return;
    const number = ++this.filled;
    const { values, card } = this.question;
    const { models, methods: titles } = await get("estimate/models").catch(() => ({ models: [], methods: [] }));
    if (number !== this.filled) return;
    this.#rows(models, titles);
    const looked = lookedUp();
    for (const { name, here } of models) {
      if (!here && !looked.includes(name)) this.#offer(name);
      else if (!(await this.#answer(name, values, card, () => number === this.filled))) return;
    }
  }

  /** One row's answer; false where nobody waits for it any more. */
  async #answer(name, values, card, wanted) {
    const { methods, busy } = await post("estimate/methods", { values, card, model: name }).catch(() => ({ methods: [], busy: false }));
    if (!wanted()) return false;
    this.#cells(name, methods, busy);
    return true;
  }

  /** A model of the hub that nobody has asked for: nothing is fetched before someone does. */
  #offer(name) {
    const tip = say("fit.models.ask.tip", { model: name });
    const button = h("button", { type: "button", class: "fit-link", title: tip, "aria-label": tip }, say("fit.models.ask"));
    button.addEventListener("click", () => void this.#lookUp(name));
    this.#put(name, h("td", { colspan: "3" }, button));
  }

  async #lookUp(name) {
    localStorage.setItem(KEPT_AS, JSON.stringify([...new Set([...lookedUp(), name])]));
    const number = this.filled;
    const row = this.#row(name);
    do {
      const { values, card } = this.question;
      if (!(await this.#answer(name, values, card, () => number === this.filled))) return;
      await new Promise((resolve) => setTimeout(resolve, EVERY));
    } while (row.hasAttribute("data-busy") && number === this.filled);
  }

  #rows(models, titles) {
    const names = models.map(({ name }) => name).join("\n");
    if (names === this.names) return;
    this.names = names;
    const kinds = titles.map((title) => h("th", { scope: "col" }, title));
    const rows = models.map(({ name, title }) => h("tr", { "data-model": name, "data-title": title }, h("th", { scope: "row" }, title), h("td", { colspan: "3" })));
    this.table.replaceChildren(h("thead", {}, h("tr", {}, h("th", { scope: "col" }, say("fit.models.model")), kinds)), h("tbody", {}, rows));
  }

  #cells(name, methods, busy) {
    const model = this.#row(name).dataset.title;
    const cells = methods.map(({ kind, title, state, word, size }) => {
      const label = say("fit.methods.cell", { model, method: title, verdict: word, size });
      const pick = () => change({ [MODEL]: name, adapter: kind });
      return h("td", {}, h("button", { type: "button", class: "fit-link num", "data-state": state, title: label, "aria-label": label, onclick: pick }, size));
    });
    const unknown = h("td", { colspan: "3", class: "st-hint" }, say(busy ? "fit.models.asking" : "fit.models.unknown"));
    this.#row(name).toggleAttribute("data-busy", busy);
    this.#put(name, ...(cells.length ? cells : [unknown]));
  }

  #row(name) {
    return this.table.querySelector(`tr[data-model="${CSS.escape(name)}"]`);
  }

  #put(name, ...cells) {
    const row = this.#row(name);
    row.replaceChildren(row.firstElementChild, ...cells);
  }
}

function lookedUp() {
  try {
    return JSON.parse(localStorage.getItem(KEPT_AS)) ?? [];
  } catch {
    return [];
  }
}
