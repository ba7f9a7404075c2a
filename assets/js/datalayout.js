// How a dataset's rows are read: the question where that isn't clear, and the form that changes it.

import { fault, pour } from "./dataask.js";
import { h, say } from "./dom.js";

export class LayoutForm {
  /** `told`: the layout as the server knows it, or its question (see layoutview). */
  constructor(view, told) {
    this.view = view;
    this.told = told;
    this.problem = h("div", {});
    this.form = h("form", { class: "layout-form st-card", hidden: true });
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#save();
    });
    const question = told.question ? this.#question() : null;
    this.element = h("div", {}, question, this.problem, this.form);
  }

  /** Open or close the form; whether it is open now. */
  toggle() {
    if (this.form.hidden) this.#build();
    this.form.hidden = !this.form.hidden;
    if (!this.form.hidden) this.layout.focus();
    return !this.form.hidden;
  }

  #question() {
    const { question, fitting, suggestion, columns } = this.told;
    const take = (fields) => () => void this.#change(fields);
    const buttons = fitting.map(({ name, title }) =>
      h("button", { type: "button", class: "st-button", onclick: take({ format: name }) }, say("layout.as", { layout: title })),
    );
    const map = h("button", { type: "button", class: "st-button", id: "layout-map", onclick: () => this.toggle() }, say("layout.map"));
    const suggested = suggestion
      ? h(
          "p",
          { class: "suggestion" },
          pour(h("span", {}), suggestion.words),
          h(
            "button",
            { type: "button", class: "st-button primary", id: "layout-take", onclick: take({ format: suggestion.format, columns: suggestion.columns }) },
            say("layout.take"),
          ),
        )
      : null;
    return h(
      "section",
      { class: "st-note warn layout-question", role: "alert" },
      h("h3", {}, say("layout.question")),
      pour(h("p", {}), question),
      columns.length ? h("p", {}, say("layout.columns", { columns: columns.map(({ title }) => title).join(", ") })) : null,
      suggested,
      h("div", { class: "buttons" }, buttons, map),
    );
  }

  #build() {
    const { formats, tags } = this.told;
    const { known } = this.view;
    const options = [["auto", say("layout.auto.name")], ...formats.map(({ name, title }) => [name, title])];
    this.layout = h("select", { class: "st-input", id: "layout-name", "aria-label": say("layout.field") }, options.map(option));
    // Where it is asked how rows are read, "recognised" would only be asked again.
    this.layout.value = this.told.question && known.format === "auto" ? this.#likeliest() : known.format;
    this.mapping = h("div", { class: "layout-columns" });
    this.layout.addEventListener("change", () => this.#map());
    this.tags = tags.map((tag) => {
      const field = h("input", { class: "st-input", "data-tag": tag, "aria-label": tag });
      field.value = known.tags[tag] ?? "";
      return field;
    });
    const roles = this.tags.map((field) => h("label", {}, named(say(`layout.tag.${field.dataset.tag}`), field.dataset.tag), field));
    const cancel = h("button", { type: "button", class: "st-button", onclick: () => this.toggle() }, say("layout.cancel"));
    this.form.replaceChildren(
      h("h3", {}, say("layout.title")),
      h("label", { class: "layout-field" }, h("span", {}, say("layout.field")), this.layout),
      h("h4", {}, say("layout.map")),
      h("p", { class: "st-hint" }, say("layout.map.note")),
      this.mapping,
      h("details", { class: "st-fold", open: Object.keys(known.tags).length > 0 }, h("summary", {}, say("layout.roles")),
        h("div", { class: "inside" }, h("p", { class: "st-hint" }, say("layout.roles.note")), h("div", { class: "layout-columns" }, roles))),
      h("div", { class: "buttons" }, h("button", { type: "submit", class: "st-button primary", id: "layout-save" }, say("layout.save")), cancel),
    );
    this.#map();
  }

  #likeliest() {
    const { suggestion, fitting, formats } = this.told;
    const plain = formats.find(({ name }) => name === "prompt_completion") ?? formats[0];
    return suggestion?.format ?? fitting[0]?.name ?? plain.name;
  }

  /** Open the form, if it isn't yet, and bring it into sight; with the names of roles, where they are at fault. */
  open(roles) {
    if (this.form.hidden) this.toggle();
    if (roles) this.form.querySelector("details").open = true;
    this.form.scrollIntoView({ block: "center" });
  }

  /** One line for each column that the layout needs or reads. */
  #map() {
    const { formats, columns, suggestion } = this.told;
    const { known } = this.view;
    const name = this.layout.value === "auto" ? this.told.format : this.layout.value;
    const format = formats.find((each) => each.name === name);
    const suggested = suggestion?.format === name ? suggestion.columns : {};
    const expected = format ? [...format.needs, ...format.reads] : Object.keys(known.columns);
    const lines = expected.map((wanted) => {
      const found = columns.filter(({ name: column }) => column !== wanted).map(({ name: column, title }) => [column, title]);
      const there = columns.some(({ name: column }) => column === wanted);
      const absent = format?.needs.includes(wanted) ? "layout.absent" : "layout.absent.optional";
      const unset = option(["", say(there ? "layout.unset" : absent)]);
      const field = h("select", { class: "st-input", "data-column": wanted, "aria-label": wanted }, unset, found.map(option));
      field.value = known.columns[wanted] ?? suggested[wanted] ?? "";
      return h("label", {}, named(say(`layout.column.${wanted}`), wanted), field);
    });
    this.mapping.replaceChildren(...lines);
  }

  #save() {
    const given = (fields, key) => Object.fromEntries(fields.filter((field) => field.value.trim()).map((field) => [field.dataset[key], field.value.trim()]));
    const columns = given([...this.mapping.querySelectorAll("select")], "column");
    return this.#change({ format: this.layout.value, columns, tags: given(this.tags, "tag") });
  }

  async #change(fields) {
    try {
      await this.view.change(fields);
    } catch (problem) {
      this.problem.replaceChildren(fault(problem.message));
    }
  }
}

/** A plain name, and the real one under it. */
function named(words, name) {
  return h("span", { class: "of" }, words, h("code", { class: "st-arg" }, name));
}

function option([value, words]) {
  return h("option", { value }, words);
}
