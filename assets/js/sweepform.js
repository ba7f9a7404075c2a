// "Search for better settings" on the Train tab: what to vary, how often to try, what to go by. The form's values are
// the base of every trial; what is wrong is said by core, as it is typed.

import { h, put, say } from "./dom.js";
import { post } from "./live.js";
import { go, onRoute, route } from "./route.js";
import { SweepRow } from "./sweeprow.js";

const KEPT_AS = "studio.fold.sweep";
const TYPED = 250; // milliseconds without a key before it is looked at
const MOST = 16;

let form = null;

export function buildSweepForm() {
  form ??= new SweepForm();
  return form.element;
}

window.addEventListener("studio:form", () => form?.soon());
onRoute(({ tab }) => tab === "train" && form?.soon());

class SweepForm {
  constructor() {
    this.rows = [];
    this.made = 0;
    this.asked = 0;
    this.knobs = null;
    this.#makeFields();
    this.list = h("div", { class: "sweep-rows" });
    this.add = h("button", { type: "button", class: "st-button small", hidden: true }, say("sweep.add"));
    this.add.addEventListener("click", () => this.#another());
    this.time = h("p", { class: "st-hint num", role: "status" });
    this.error = h("p", { class: "st-error", role: "alert", hidden: true });
    this.start = h("button", { type: "button", class: "st-button primary" }, say("sweep.start"));
    this.start.addEventListener("click", () => void this.#start());
    this.find = h("button", { type: "button", class: "st-button" }, say("sweep.rate.start"));
    this.find.addEventListener("click", () => void this.#find());
    this.findError = h("p", { class: "st-error", role: "alert", hidden: true });
    const inside = h("div", { class: "inside" }, this.#search(), this.#finder());
    this.element = h("details", { class: "st-fold sweep-fold" }, h("summary", {}, say("sweep.fold")), inside);
    this.element.open = localStorage.getItem(KEPT_AS) === "open";
    this.element.addEventListener("toggle", () => {
      localStorage.setItem(KEPT_AS, this.element.open ? "open" : "");
      this.soon(0);
    });
    // What is typed here is no news for the form around it.
    for (const event of ["input", "keydown"]) inside.addEventListener(event, (typed) => typed.stopPropagation());
    this.soon(0);
  }

  #makeFields() {
    const changed = () => this.soon();
    this.trials = h("input", { type: "text", class: "st-input num", inputmode: "numeric", value: "8", id: "sweep-trials" });
    this.name = h("input", { type: "text", class: "st-input", placeholder: say("sweep.name.none"), id: "sweep-name", maxlength: 200 });
    this.metric = h("select", { class: "st-input", id: "sweep-metric" });
    this.prune = h("input", { type: "checkbox", id: "sweep-prune" });
    this.prune.checked = true;
    this.trials.addEventListener("input", changed);
    this.name.addEventListener("input", changed);
    this.metric.addEventListener("change", changed);
    this.prune.addEventListener("change", changed);
    const problem = () => h("p", { class: "st-error", hidden: true });
    this.problems = { trials: problem(), metric: problem() };
  }

  #search() {
    const field = (key, control, ...more) =>
      h("div", { class: "sweep-field" }, h("label", { for: control.id, title: say(`sweep.${key}.info`) }, say(`sweep.${key}`)), control, more);
    const judged = h("div", { class: "sweep-field" }, h("label", { for: "sweep-metric" }, say("sweep.figure")), this.metric, this.problems.metric);
    const prune = h("label", { class: "switch sweep-check", title: say("sweep.prune.info") }, this.prune, say("sweep.prune"));
    return h(
      "section",
      { class: "sweep-search" },
      h("p", { class: "st-hint" }, say("sweep.intro")),
      h("h4", {}, say("sweep.vary")),
      this.list,
      this.add,
      h("div", { class: "sweep-fields" }, field("trials", this.trials, this.problems.trials), judged, field("name", this.name)),
      prune,
      h("div", { class: "sweep-foot" }, this.start, this.time),
      this.error,
    );
  }

  #finder() {
    return h(
      "section",
      { class: "sweep-finder" },
      h("h4", {}, say("sweep.rate")),
      h("p", { class: "st-hint" }, say("sweep.rate.intro")),
      this.find,
      this.findError,
    );
  }

  /** Look at it again once nothing more is typed. */
  soon(pause = TYPED) {
    clearTimeout(this.timer);
    if (this.element?.open && route.tab === "train") this.timer = setTimeout(() => void this.#check(), pause);
  }

  #wish() {
    return {
      values: window.studioForm,
      vary: this.knobs === null ? null : this.rows.map((row) => row.wish),
      trials: this.trials.value,
      metric: this.metric.value || "eval_loss",
      prune: this.prune.checked,
      name: this.name.value,
    };
  }

  async #check() {
    if (!window.studioForm) return;
    const number = ++this.asked;
    const fresh = this.knobs === null;
    try {
      const told = await post("sweeps/check", this.#wish());
      if (number !== this.asked) return;
      if (told.knobs) this.#offer(told);
      if (fresh && told.knobs) return this.soon(0); // now with what was suggested
      if (JSON.stringify(this.rows.map((row) => row.wish)) !== this.judged) return this.soon(0);
      this.#faults(told.problems);
      put(this.time, told.time);
    } catch (problem) {
      if (number === this.asked) this.#say(this.error, problem.message);
    }
  }

  #offer({ knobs, figures, first }) {
    const fresh = this.knobs === null;
    this.judged = JSON.stringify(this.rows.map((row) => row.wish));
    this.knobs = knobs;
    if (fresh) for (const path of first) this.#row(path);
    this.#deal();
    const options = figures.map(({ name, title, high }) => ({ name, words: say(`sweep.figure.${high ? "high" : "low"}`, { title }) }));
    if (JSON.stringify(options) !== this.figures) {
      this.figures = JSON.stringify(options);
      const kept = this.metric.value;
      this.metric.replaceChildren(...options.map(({ name, words }) => h("option", { value: name }, words)));
      this.metric.value = options.some(({ name }) => name === kept) ? kept : "eval_loss";
    }
  }

  /** Every row is told what it may be; what another row varies already it may not. */
  #deal() {
    for (const row of this.rows) {
      row.offer(this.knobs, new Set(this.rows.filter((other) => other !== row).map(({ path }) => path)));
    }
    this.add.hidden = this.rows.length >= Math.min(MOST, this.knobs.length);
  }

  #row(path) {
    const row = new SweepRow(this.made, () => this.#changed(), () => this.#remove(row));
    this.made += 1;
    row.path = path;
    this.rows.push(row);
    this.list.append(row.element);
    return row;
  }

  #changed() {
    this.#deal();
    this.soon();
  }

  #another() {
    const taken = new Set(this.rows.map(({ path }) => path));
    const row = this.#row(this.knobs.find(({ path }) => !taken.has(path)).path);
    this.#changed();
    row.knob.focus();
  }

  #remove(row) {
    this.rows = this.rows.filter((other) => other !== row);
    row.element.remove();
    this.#changed();
    this.add.focus();
  }

  #faults(problems) {
    const of = (field) => problems.find((problem) => problem.field === field)?.text ?? "";
    this.rows.forEach((row, place) => row.fault(of(`vary.${place}`)));
    for (const [field, element] of Object.entries(this.problems)) {
      this.#say(element, of(field));
      this[field].setAttribute("aria-invalid", String(Boolean(of(field))));
    }
    this.#say(this.error, of(""));
  }

  #say(element, sentence) {
    put(element, sentence);
    element.hidden = !sentence;
  }

  async #start() {
    if (this.knobs === null) return;
    await this.#once(this.start, this.error, async () => {
      const { sweep } = await post("sweeps", this.#wish());
      go("runs", "", { sweep });
    });
  }

  async #find() {
    await this.#once(this.find, this.findError, async () => {
      const { run } = await post("sweeps/rate", { values: window.studioForm });
      go("runs", run);
    });
  }

  /** What a button does, and what goes wrong with it said under it. */
  async #once(button, error, act) {
    button.disabled = true;
    this.#say(error, "");
    try {
      await act();
    } catch (problem) {
      this.#say(error, problem.message);
    }
    button.disabled = false;
  }
}
