// How runs split a dataset: kept with it, and what every run on it begins with.

import { fault } from "./dataask.js";
import { offerDatasets } from "./datacheckall.js";
import { h, put, say } from "./dom.js";

const GROUPS = ["exact", "near", "off"];
const PLAIN = { validation_split: 0.1, test_split: 0, group_duplicates: "exact" };

export class Split {
  constructor(view) {
    this.view = view;
    const field = (key) => h("input", { class: "st-input num short", inputmode: "decimal", id: `split-${key}`, "aria-label": say(`split.${key}`) });
    this.validation = field("validation");
    this.test = field("test");
    this.stratify = h("select", { class: "st-input", "aria-label": say("split.stratify") });
    this.group = h("select", { class: "st-input", "aria-label": say("split.group") }, GROUPS.map((name) => h("option", { value: name }, say(`split.group.${name}`))));
    this.path = h("select", { class: "st-input", "aria-label": say("split.path") });
    this.told = h("div", { role: "status" });
    const line = (key, argument, control, note) =>
      h(
        "label",
        { class: "split-line" },
        h("span", { class: "of" }, say(`split.${key}`), h("code", { class: "st-arg" }, argument)),
        control,
        note ? h("span", { class: "st-hint" }, say(note)) : null,
      );
    const save = h("button", { type: "submit", class: "st-button primary", id: "split-save" }, say("split.save"));
    this.element = h(
      "form",
      { class: "st-card split" },
      h("h3", {}, say("split.title")),
      h("p", { class: "st-hint" }, say("split.note")),
      line("path", "validation_path", this.path, "split.path.note"),
      line("validation", "validation_split", this.validation, "split.share"),
      line("test", "test_split", this.test, "split.share"),
      line("stratify", "stratify_by", this.stratify),
      line("group", "group_duplicates", this.group),
      h("div", { class: "buttons" }, save),
      this.told,
    );
    this.element.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#save();
    });
    this.path.addEventListener("change", () => this.#dim());
    void offerDatasets(this.path, view).then(() => this.#dim());
    this.#fill();
  }

  changed(fields) {
    if (fields.knobs) this.#fill();
  }

  #fill() {
    const { knobs } = this.view.known;
    const known = { ...PLAIN, ...knobs };
    this.validation.value = known.validation_split;
    this.test.value = known.test_split;
    this.group.value = known.group_duplicates;
    this.path.value = known.validation_path ?? "";
    const columns = (this.view.layout?.columns ?? []).map(({ name, title }) => [name, title]);
    if (known.stratify_by && !columns.some(([name]) => name === known.stratify_by)) columns.push([known.stratify_by, known.stratify_by]);
    const options = [["", say("split.stratify.none")], ...columns];
    this.stratify.replaceChildren(...options.map(([value, words]) => h("option", { value }, words)));
    this.stratify.value = known.stratify_by ?? "";
    this.#dim();
  }

  /** Where other rows are validated on, none of these are held out for it. */
  #dim() {
    this.validation.disabled = this.path.value !== "";
  }

  async #save() {
    const number = (field) => (Number.isFinite(Number(field.value)) && field.value.trim() ? Number(field.value) : field.value);
    const knobs = {
      validation_split: number(this.validation),
      test_split: number(this.test),
      stratify_by: this.stratify.value || null,
      group_duplicates: this.group.value,
      validation_path: this.path.value || null,
    };
    try {
      await this.view.change({ knobs });
      this.told.replaceChildren(h("p", { class: "st-hint" }, say("split.saved")));
    } catch (problem) {
      this.told.replaceChildren(fault(problem.message));
    }
  }
}
