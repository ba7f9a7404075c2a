// One setting that a search varies: which, between what or among what, and what is wrong with it.

import { h, put, say } from "./dom.js";

const TYPED = ["low", "high", "choices"];

export class SweepRow {
  /** `onChange()` hears of everything that is picked or typed, `onRemove()` of the button. */
  constructor(number, onChange, onRemove) {
    this.onChange = onChange;
    this.touched = false;
    this.path = "";
    this.problemId = `sweep-problem-${number}`;
    const text = (key, name) =>
      h("input", { type: "text", class: "st-input num", "aria-label": say(name), "data-key": key, spellcheck: "false" });
    this.knob = h("select", { class: "st-input", "aria-label": say("sweep.knob") });
    this.by = h("select", { class: "st-input by", "aria-label": say("sweep.how") });
    this.by.append(...["range", "choices"].map((by) => h("option", { value: by }, say(`sweep.by.${by}`))));
    this.low = text("low", "sweep.low");
    this.high = text("high", "sweep.high");
    this.choices = text("choices", "sweep.choices");
    this.log = h("input", { type: "checkbox" });
    const log = h("label", { class: "switch sweep-log", title: say("sweep.log.info") }, this.log, say("sweep.log"));
    this.range = h("span", { class: "sweep-range" }, this.low, h("span", {}, say("sweep.and")), this.high, log);
    this.remove = h("button", { type: "button", class: "sweep-remove", onclick: onRemove }, h("span", { "aria-hidden": "true" }, "×"));
    this.about = h("p", { class: "under" });
    this.problem = h("p", { class: "st-error", id: this.problemId, hidden: true });
    this.element = h(
      "div",
      { class: "sweep-row", role: "group" },
      h("div", { class: "sweep-what" }, this.knob, this.about),
      this.by,
      h("div", { class: "sweep-values" }, this.range, this.choices, this.problem),
      this.remove,
    );
    this.#listen();
  }

  #listen() {
    this.knob.addEventListener("change", () => {
      this.touched = false;
      this.path = this.knob.value;
      this.onChange();
    });
    this.by.addEventListener("change", () => this.#changed());
    this.log.addEventListener("change", () => this.#changed());
    for (const key of TYPED) this[key].addEventListener("input", () => this.#changed());
  }

  #changed() {
    this.touched = true;
    this.#shape();
    this.onChange();
  }

  #shape() {
    const range = this.by.value === "range";
    this.range.hidden = !range;
    this.choices.hidden = range;
  }

  /** As the server takes it. */
  get wish() {
    const [by, low, high, choices] = [this.by, this.low, this.high, this.choices].map(({ value }) => value);
    return { path: this.path, by, low, high, choices, log: this.log.checked };
  }

  /** What can be picked now, by group; `taken` are those of the other rows. Untouched values follow the form's. */
  offer(knobs, taken) {
    const spelt = JSON.stringify([knobs.map(({ path }) => path), [...taken]]);
    if (spelt !== this.offered) {
      this.offered = spelt;
      const groups = new Map();
      for (const knob of knobs) groups.set(knob.group, [...(groups.get(knob.group) ?? []), knob]);
      const option = ({ path, title }) => h("option", { value: path, disabled: taken.has(path) }, title);
      const known = knobs.some(({ path }) => path === this.path);
      this.knob.replaceChildren(
        ...(known ? [] : [h("option", { value: this.path }, this.path)]), // the method or the adapter was changed
        ...[...groups].map(([label, some]) => h("optgroup", { label }, some.map(option))),
      );
      this.knob.value = this.path;
    }
    const knob = knobs.find(({ path }) => path === this.path);
    this.#tell(knob);
    if (knob && !this.touched) this.#suggest(knob.suggestion);
  }

  #tell(knob) {
    const title = knob?.title ?? this.path;
    this.element.setAttribute("aria-label", title);
    const label = say("sweep.remove", { title });
    this.remove.setAttribute("aria-label", label);
    this.remove.title = label;
    this.knob.title = knob?.help ?? "";
    const now = knob ? (knob.now === "" ? say("sweep.now.none") : say("sweep.now", { value: knob.now })) : "";
    const spelt = `${knob?.name} ${now}`;
    if (spelt === this.told) return;
    this.told = spelt;
    this.about.replaceChildren(...(knob ? [h("code", { class: "st-arg" }, knob.name), ` ${now}`] : []));
  }

  #suggest({ by, low, high, log, choices }) {
    this.by.value = by;
    Object.entries({ low, high, choices }).forEach(([key, value]) => this[key].value !== value && (this[key].value = value));
    this.log.checked = log;
    this.#shape();
  }

  /** What is wrong, or nothing. */
  fault(sentence) {
    put(this.problem, sentence);
    this.problem.hidden = !sentence;
    for (const key of TYPED) {
      this[key].setAttribute("aria-invalid", String(Boolean(sentence)));
      if (sentence) this[key].setAttribute("aria-describedby", this.problemId);
      else this[key].removeAttribute("aria-describedby");
    }
  }
}
