// The searches at the head of the list of runs, and which run is which trial of them.

import { h, put, say } from "./dom.js";
import { loss } from "./format.js";
import { get } from "./live.js";
import { go } from "./route.js";
import { LIVE } from "./sweepview.js";

const FEW = 4; // searches that are seen before all of them are asked for
const DOTS = { waiting: "queued" };

export class SweepsList {
  constructor() {
    this.version = "";
    this.seen = null;
    this.lines = [];
    this.rows = new Map();
    this.chosen = "";
    this.trials = new Map(); // run -> { sweep, number, trials, name }
    this.onChange = () => {};
    this.items = h("div", { class: "sweeps-items" });
    this.more = h("button", { type: "button", class: "st-button small", hidden: true, onclick: () => this.#showAll() });
    const head = h("h2", { id: "sweeps-title" }, say("sweeps.title"));
    this.element = h("section", { class: "sweeps", "aria-labelledby": "sweeps-title", hidden: true }, head, this.items, this.more);
  }

  /** The page's second has come: ask for news where there can be any. */
  async update({ runs_version: runs }) {
    if (runs === this.seen && !this.lines.some(({ status }) => LIVE.includes(status))) return;
    try {
      const { sweeps, version } = await get(`sweeps?version=${this.version}`);
      this.seen = runs;
      this.version = version;
      if (sweeps) this.#take(sweeps);
    } catch {
      // asked again at the next second
    }
  }

  /** Something was just done to a search: whatever was seen is old. */
  forget() {
    this.seen = null;
  }

  choose(id) {
    this.chosen = id;
    for (const [other, row] of this.rows) row.setAttribute("aria-current", String(other === id));
  }

  #take(lines) {
    this.lines = lines;
    this.trials = new Map(
      lines.flatMap(({ id, name, trials, runs }) => runs.map((run, at) => [run, { sweep: id, number: at + 1, trials, name }])),
    );
    this.#draw();
    this.onChange();
  }

  #showAll() {
    this.all = true;
    this.#draw();
  }

  #draw() {
    const focused = this.items.contains(document.activeElement) ? document.activeElement.dataset.sweep : null;
    const shown = this.lines.filter((line, place) => this.all || place < FEW || line.id === this.chosen);
    this.rows = new Map(shown.map((line) => [line.id, rowOf(line)]));
    this.items.replaceChildren(...this.rows.values());
    this.element.hidden = this.lines.length === 0;
    this.more.hidden = shown.length === this.lines.length;
    put(this.more, say("sweeps.more", { count: this.lines.length }));
    this.choose(this.chosen);
    this.rows.get(focused)?.focus();
  }
}

function rowOf(line) {
  const state = LIVE.includes(line.status) || line.status === "failed" ? `${say(`sweeps.status.${line.status}`)} · ` : "";
  return h(
    "button",
    {
      type: "button",
      class: "runs-item",
      "data-sweep": line.id,
      title: line.problem || null,
      onclick: () => go("runs", "", { sweep: line.id }),
    },
    h("span", { class: "dot", "data-status": DOTS[line.status] ?? line.status }),
    h("span", { class: "name" }, line.name),
    h("span", { class: "num best", title: line.figure }, line.best === null ? "" : loss(line.best)),
    h("span", { class: "under" }, `${state}${say("sweeps.count", line)}`),
  );
}
