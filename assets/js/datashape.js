// The Shape & split section: a recipe for a new dataset, with how many rows would remain, and how runs split this one.

import { asked, from, Work } from "./dataask.js";
import { Split } from "./datasplit.js";
import { h, put, say } from "./dom.js";
import { integer } from "./format.js";

const PARTS = ["whole", "prompt", "answer"];

export class Section {
  constructor(view) {
    this.view = view;
    this.split = new Split(view);
    this.told = h("div", { class: "shape-told", role: "status" });
    this.work = new Work((task) => this.#ended(task));
    this.form = h("form", { class: "st-card shape" });
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#begin(false);
    });
    this.form.addEventListener("input", () => this.told.replaceChildren());
    this.element = h("div", { class: "section-shape" }, this.form, this.split.element);
    this.#build();
    view.strip.onReport((report) => this.#offerProblems(report.kinds));
  }

  open() {
    this.#fill();
    if (!this.opened) void this.#findAgain();
    this.opened = true;
  }

  /** What a reload of the page left alone is followed again. */
  async #findAgain() {
    try {
      const tasks = await from(this.view.name, "/tasks");
      const running = [tasks.shape, tasks.preview].find((task) => task?.state === "running");
      if (running && !this.work.busy) await this.work.follow(running);
    } catch {
      // it can be begun again
    }
  }

  close() {
    this.work.forget();
  }

  changed(fields) {
    this.#fill();
    this.split.changed(fields);
  }

  edited() {
    this.#fill();
  }

  #build() {
    this.least = number("shape.length.least");
    this.most = number("shape.length.most");
    this.unit = select("shape.unit.characters", ["characters", "tokens"].map((unit) => [unit, say(`shape.unit.${unit}`)]));
    this.languages = text("shape.language", "shape.language.example");
    this.scripts = text("shape.script", "shape.script.example");
    this.matching = select("shape.pattern", [["matching", say("shape.pattern")], ["others", say("shape.pattern.not")]]);
    this.pattern = text("shape.pattern.example", "shape.pattern.example", "grow code");
    this.part = select("shape.part", PARTS.map((part) => [part, say(`shape.part.${part}`)]));
    this.column = text("shape.score.column", "shape.score.column", "column");
    this.scoreLeast = number("shape.score.least");
    this.scoreMost = number("shape.score.most");
    this.problems = h("div", { class: "shape-problems" });
    this.rows = h("input", { type: "checkbox", id: "shape-rows", checked: true });
    this.rowsWords = h("span", {});
    this.rowsLine = h("label", { class: "switch", hidden: true }, this.rows, this.rowsWords);
    this.edits = h("p", { class: "st-hint", hidden: true });
    this.sample = number("shape.sample.rows");
    this.seed = number("shape.sample.seed");
    this.seed.value = "42";
    this.system = h("textarea", { class: "st-input", rows: 2, "aria-label": say("shape.system"), placeholder: say("shape.system.note") });
    this.convert = h("select", { class: "st-input", "aria-label": say("shape.convert") });
    this.title = text("shape.name", "shape.name", "grow");
    this.title.id = "shape-name";
    this.file = select("shape.file", [["jsonl", "jsonl"], ["parquet", "parquet"]]);
    const preview = h("button", { type: "button", class: "st-button", id: "shape-preview", onclick: () => this.#begin(true) }, say("shape.preview"));
    const save = h("button", { type: "submit", class: "st-button primary", id: "shape-do" }, say("shape.do"));
    const line = (key, ...fields) => h("div", { class: "shape-line" }, h("span", { class: "of" }, say(key)), ...fields);
    const plain = (key) => h("span", {}, say(key));
    this.form.append(
      h("h3", {}, say("shape.title")),
      h("p", { class: "st-hint" }, say("shape.note")),
      h("h4", {}, say("shape.keep")),
      line("shape.length", plain("shape.length.least"), this.least, plain("shape.length.most"), this.most, this.unit),
      line("shape.language", this.languages),
      line("shape.script", this.scripts),
      h("div", { class: "shape-line" }, h("span", { class: "of" }, this.matching), this.pattern, this.part),
      line("shape.score", this.column, plain("shape.score.least"), this.scoreLeast, plain("shape.score.most"), this.scoreMost),
      h("h4", {}, say("shape.problems")),
      h("p", { class: "st-hint" }, say("shape.problems.note")),
      this.problems,
      this.rowsLine,
      this.edits,
      h("h4", {}, say("shape.write")),
      line("shape.convert", this.convert),
      line("shape.system", this.system),
      line("shape.sample", this.sample, plain("shape.sample.rows"), plain("shape.sample.seed"), this.seed),
      h("div", { class: "shape-line end" }, h("span", { class: "of" }, say("shape.name")), this.title, this.file),
      h("div", { class: "buttons" }, preview, save),
      this.work.element,
      this.told,
    );
  }

  /** What follows from the dataset as it is now. */
  #fill() {
    const { known, layout, edits } = this.view;
    if (!this.title.value) this.title.value = say("shape.name.first", { title: known.title });
    if (layout && this.convert.childElementCount !== layout.formats.length + 1) {
      const chosen = this.convert.value;
      const options = [["", say("shape.convert.same")], ...layout.formats.map(({ name, title }) => [name, title])];
      this.convert.replaceChildren(...options.map(([value, words]) => h("option", { value }, words)));
      this.convert.value = chosen;
    }
    const count = known.exclude_rows.length;
    this.rowsLine.hidden = count === 0;
    put(this.rowsWords, say("shape.rows", { count: integer(count) }));
    this.edits.hidden = edits.size === 0;
    put(this.edits, say("shape.edits", { rows: [...edits.keys()].map((position) => integer(position + 1)).join(", ") }));
  }

  #offerProblems(kinds) {
    const chosen = new Set([...this.problems.querySelectorAll("input:checked")].map((box) => box.value));
    const excluded = new Set(this.view.known.exclude);
    const boxes = kinds.filter(({ severity }) => severity === "warning").map(({ kind, title, count }) => {
      const box = h("input", { type: "checkbox", value: kind });
      box.checked = chosen.has(kind) || excluded.has(kind);
      return h("label", { class: "switch" }, box, h("span", {}, `${title} (${integer(count)})`));
    });
    this.problems.replaceChildren(...boxes);
  }

  /** The recipe's steps, as core/recipe has them; edits are put before them by the server. */
  #steps() {
    const steps = [];
    const part = this.part.value;
    const list = (field) => field.value.split(",").map((one) => one.trim()).filter(Boolean);
    const add = (there, step) => there && steps.push(step);
    const kinds = [...this.problems.querySelectorAll("input:checked")].map((box) => box.value);
    const positions = this.view.known.exclude_rows;
    add(positions.length && this.rows.checked, { do: "rows", positions });
    add(kinds.length, { do: "problems", kinds });
    add(this.least.value || this.most.value, { do: "length", unit: this.unit.value, least: value(this.least), most: value(this.most) });
    add(list(this.languages).length, { do: "language", keep: list(this.languages) });
    add(list(this.scripts).length, { do: "script", keep: list(this.scripts) });
    add(this.pattern.value, { do: "pattern", pattern: this.pattern.value, part, keep: this.matching.value });
    add(this.column.value.trim(), { do: "score", column: this.column.value.trim(), least: value(this.scoreLeast), most: value(this.scoreMost) });
    add(this.sample.value.trim(), { do: "sample", rows: value(this.sample), seed: value(this.seed) ?? 42 });
    add(this.system.value.trim(), { do: "system", text: this.system.value });
    add(this.convert.value, { do: "convert", format: this.convert.value });
    return steps;
  }

  #begin(preview) {
    this.told.replaceChildren();
    this.sent = [...this.view.edits.keys()];
    const shape = { steps: this.#steps(), edits: Object.fromEntries(this.view.edits), title: this.title.value, format: this.file.value, preview };
    void this.work.begin(this.view.name, { op: preview ? "preview" : "shape", asked: asked(), shape });
  }

  #ended({ op, state, result, steps }) {
    if (state !== "done") return undefined;
    if (op === "preview") return this.#remaining(result, steps);
    const open = h("button", { type: "button", class: "st-button small", id: "shape-open", onclick: () => this.view.outside.made(result.name) }, say("shape.open"));
    this.told.replaceChildren(h("p", {}, say("shape.made", { name: this.title.value, rows: integer(result.rows) })), open);
    this.view.saved(this.sent ?? []);
    this.view.outside.changed();
    return undefined;
  }

  /** How many rows would remain, and what leaves out the others. */
  #remaining({ rows }, steps) {
    const total = steps[0]?.rows_in ?? this.view.known.rows;
    const lines = steps
      .map((step) => [step.do, step.rows_in - step.rows_out])
      .filter(([, out]) => out > 0)
      .map(([what, out]) => h("li", {}, say("shape.preview.step", { step: say(`shape.step.${what}`), count: integer(out) })));
    this.told.replaceChildren(h("p", { class: "learned" }, say("shape.preview.told", { rows: integer(rows), total: integer(total) })), h("ul", {}, lines));
  }
}

function number(key) {
  return h("input", { class: "st-input num short", inputmode: "decimal", "aria-label": say(key) });
}

function text(key, example, looks = "") {
  return h("input", { class: `st-input ${looks}`, spellcheck: "false", placeholder: say(example), "aria-label": say(key) });
}

function select(key, options) {
  return h("select", { class: "st-input", "aria-label": say(key) }, options.map(([name, words]) => h("option", { value: name }, words)));
}

/** A typed number; what is none is passed on for the server to say so. */
function value(field) {
  const typed = field.value.trim();
  if (!typed) return null;
  const found = Number(typed);
  return Number.isFinite(found) ? found : typed;
}
