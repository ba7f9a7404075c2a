// One search, opened on the Runs tab: how far it is, its picture, its trials, and what can be done with it.

import { h, put, say } from "./dom.js";
import { askNow, get, post } from "./live.js";
import { go } from "./route.js";
import { SweepPicture } from "./sweeppicture.js";
import { figure, SweepTable } from "./sweeptable.js";

export const LIVE = ["running", "waiting", "stopping"];
const PILL = { waiting: "queued" }; // states that look like those of runs
const WHY = ["waiting", "stopping", "stopped"];

export class SweepView {
  constructor() {
    this.id = "";
    this.element = h("section", { class: "run sweep", hidden: true });
    this.name = h("h2", {});
    this.pill = h("span", { class: "st-pill" });
    this.count = h("span", { class: "attempt num" });
    this.about = h("p", { class: "about" });
    this.cause = h("p", { class: "cause", hidden: true });
    this.best = h("p", { class: "sweep-told num", role: "status" });
    const light = (number) => {
      this.picture.light(number);
      this.table.light(number);
    };
    this.picture = new SweepPicture(light);
    this.table = new SweepTable(light);
    this.fill = h("span", { class: "fill" });
    this.bar = h("div", { class: "bar", "aria-hidden": "true" }, this.fill);
    this.first = h("p", { class: "st-hint" }, say("sweeps.first"));
    this.trials = h("div", { class: "sweep-trials" }, this.picture.element, this.table.element);
    this.#buildActions();
    const title = h("div", { class: "title" }, this.name, this.pill, this.count);
    const head = h("header", {}, title, this.about, this.cause);
    this.body = h("div", { class: "run-body" }, head, this.actions, this.bar, this.best, this.first, this.trials);
  }

  /** Show another search, or none. */
  show(id) {
    this.element.hidden = !id;
    if (id === this.id) return;
    this.id = id;
    this.version = "";
    this.seen = null;
    this.status = "running"; // until it is known, it is asked for
    this.body.classList.add("waiting");
    this.#say("");
    this.element.replaceChildren(this.body);
  }

  /** The page's second has come: ask for news where there can be any. */
  async update({ runs_version: runs }) {
    if (!this.id || (runs === this.seen && !LIVE.includes(this.status))) return;
    const id = this.id;
    try {
      const { sweep, version } = await get(`sweeps/${encodeURIComponent(id)}?version=${this.version}`);
      if (id !== this.id) return;
      this.seen = runs;
      this.version = version;
      if (sweep) this.#draw(sweep);
    } catch (problem) {
      if (problem.status === 400 && id === this.id) this.#gone();
    }
  }

  #draw(sweep) {
    this.status = sweep.status;
    this.sweep = sweep;
    this.body.classList.remove("waiting");
    put(this.name, sweep.name);
    put(this.pill, say(`sweeps.status.${sweep.status}`));
    this.pill.dataset.status = PILL[sweep.status] ?? sweep.status;
    put(this.count, say("sweeps.count", sweep));
    const judged = say("sweeps.about.judged", { figure: small(sweep.figure) });
    put(this.about, [sweep.method.toUpperCase(), sweep.model, sweep.dataset, judged].filter(Boolean).join(" · "));
    const done = sweep.status === "stopped" && sweep.rows.length >= sweep.trials;
    const why = WHY.includes(sweep.status) && !done ? say(`sweeps.${sweep.status}.why`) : "";
    const nothing = sweep.status === "finished" && sweep.best === null ? say("sweeps.no_best") : "";
    put(this.cause, sweep.problem || why || nothing);
    this.cause.hidden = !this.cause.textContent;
    this.cause.dataset.status = sweep.status;
    this.bar.hidden = !LIVE.includes(sweep.status);
    this.fill.style.width = `${(100 * sweep.ended) / sweep.trials}%`;
    const key = sweep.status === "finished" ? "sweeps.best.final" : "sweeps.best";
    const best = { number: sweep.best_trial + 1, figure: small(sweep.figure), value: sweep.best === null ? "" : figure(sweep.best) };
    put(this.best, sweep.best === null ? "" : say(key, best));
    this.best.hidden = sweep.best === null;
    this.first.hidden = sweep.rows.length > 0 || !LIVE.includes(sweep.status);
    this.trials.hidden = sweep.rows.length === 0;
    const live = ["running", "stopping"].includes(sweep.status);
    this.buttons.stop.hidden = !["running", "waiting"].includes(sweep.status);
    this.buttons.resume.hidden = !["waiting", "stopped", "failed"].includes(sweep.status) || sweep.rows.length >= sweep.trials;
    this.buttons.use.hidden = sweep.best === null;
    this.buttons.use.classList.toggle("primary", sweep.status === "finished");
    this.buttons.delete.hidden = live;
    this.picture.draw(sweep);
    this.table.draw(sweep);
  }

  #buildActions() {
    const acts = {
      stop: () => this.#post("stop"),
      resume: () => this.#post("resume"),
      use: () => go("train", this.sweep.rows.find(({ number }) => number === this.sweep.best_trial).run),
      delete: () => this.#askDelete(),
    };
    this.buttons = Object.fromEntries(
      Object.entries(acts).map(([verb, onclick]) => {
        const looks = `st-button${verb === "delete" ? " quiet-bad" : ""}`;
        const title = verb === "delete" ? null : say(`sweeps.${verb}.info`);
        return [verb, h("button", { type: "button", class: looks, hidden: true, title, onclick }, say(`sweeps.${verb}`))];
      }),
    );
    this.error = h("p", { class: "st-error", role: "alert", hidden: true });
    this.actions = h("div", { class: "run-actions" }, Object.values(this.buttons), this.error);
  }

  async #post(verb) {
    const button = this.buttons[verb];
    button.disabled = true;
    this.#say("");
    let done = true;
    try {
      await post(`sweeps/${encodeURIComponent(this.id)}/${verb}`);
    } catch (problem) {
      done = false;
      this.#say(problem.message);
    }
    button.disabled = false;
    this.seen = null;
    askNow();
    return done;
  }

  #say(sentence) {
    put(this.error, sentence);
    this.error.hidden = !sentence;
  }

  #askDelete() {
    const keep = h("button", { type: "button", class: "st-button" }, say("sweeps.delete.keep"));
    const remove = h("button", { type: "button", class: "st-button bad" }, say("sweeps.delete"));
    const dialog = h(
      "dialog",
      { class: "st-dialog" },
      h("h2", {}, say("sweeps.delete.ask", { name: this.sweep.name })),
      h("p", {}, say("sweeps.delete.info")),
      h("div", { class: "buttons" }, keep, remove),
    );
    keep.addEventListener("click", () => dialog.close());
    remove.addEventListener("click", async () => {
      dialog.close();
      if (await this.#post("delete")) go("runs", "", { replace: true });
    });
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
    keep.focus();
  }

  /** Deleted, or never there: said once, and not asked for again. */
  #gone() {
    this.id = "";
    const words = [h("h2", {}, say("sweeps.missing")), h("p", {}, say("sweeps.missing.next"))];
    this.element.replaceChildren(h("div", { class: "st-empty" }, words));
  }
}

/** A title inside of a sentence. */
function small(title) {
  return `${title.slice(0, 1).toLowerCase()}${title.slice(1)}`;
}
