// The Check section: what is to be looked for, and the whole report.

import { fault, pour, read, reading } from "./dataask.js";
import { listen } from "./datacheck.js";
import { h, say } from "./dom.js";
import { get } from "./live.js";

export class Section {
  constructor(view) {
    this.view = view;
    this.full = h("div", { class: "check-full" });
    const near = h("input", { type: "checkbox", id: "check-near" });
    near.checked = reading.near;
    near.addEventListener("change", () => read({ near: near.checked }));
    this.validation = h("select", { class: "st-input", id: "check-validation" });
    this.validation.addEventListener("change", () => void this.#validate());
    this.problem = h("div", {});
    void offerDatasets(this.validation, view);
    const start = h("button", { type: "button", class: "st-button primary", id: "check-start", "data-act": "check" }, say("check.start"));
    const compare = h("label", {}, h("span", {}, say("check.validation")), this.validation);
    const knobs = h(
      "div",
      { class: "check-knobs" },
      h("div", {}, h("label", { class: "switch" }, near, h("span", {}, say("check.near"))), hint("check.near.note")),
      h("div", {}, compare, hint("check.validation.note")),
      start,
      this.problem,
    );
    this.element = h("div", { class: "section-check" }, knobs, this.full);
    listen(this.element, view.strip);
    view.strip.onReport((report) => this.#draw(report));
  }

  #draw(report) {
    const folded = new Set([...this.full.querySelectorAll("details:not([open])")].map((fold) => fold.dataset.kind));
    pour(this.full, report.full ?? "");
    for (const fold of this.full.querySelectorAll("details[data-kind]")) if (folded.has(fold.dataset.kind)) fold.open = false;
  }

  changed(fields) {
    if (fields.knobs) this.validation.value = this.view.known.knobs.validation_path ?? "";
  }

  async #validate() {
    try {
      await this.view.change({ knobs: { validation_path: this.validation.value || null } });
      this.problem.replaceChildren();
    } catch (problem) {
      this.problem.replaceChildren(fault(problem.message));
    }
  }
}

/** Fill a select with the other datasets, the one that this one is validated on chosen. */
export async function offerDatasets(select, view) {
  select.replaceChildren(h("option", { value: "" }, say("check.validation.none")));
  const { datasets } = await get("data/list");
  const chosen = view.known.knobs.validation_path ?? "";
  const others = datasets.filter(({ name }) => name !== view.name);
  if (chosen && !others.some(({ name }) => name === chosen)) others.push({ name: chosen, title: chosen });
  select.append(...others.map(({ name, title }) => h("option", { value: name }, title)));
  select.value = chosen;
}

const hint = (key) => h("p", { class: "st-hint" }, say(key));
