// One row: as a conversation, raw, as it is trained on; to be left out, or changed for a new dataset.

import { fault, from, pour } from "./dataask.js";
import { h, say } from "./dom.js";

const LIGHTS = ["conversation", "raw", "trained"];
const KEPT_AS = "studio.data.light";

export class RowView {
  /** `marked` is called when the row was left out or taken back. */
  constructor(view, marked) {
    this.view = view;
    this.marked = marked;
    this.position = -1;
    const kept = localStorage.getItem(KEPT_AS);
    this.light = LIGHTS.includes(kept) ? kept : LIGHTS[0];
    this.place = h("div", {});
    this.out = h("input", { type: "checkbox", id: "row-leave" });
    this.out.addEventListener("change", () => void this.#leave());
    this.editButton = h("button", { type: "button", class: "st-button small", id: "row-edit", onclick: () => void this.#edit() }, say("rows.edit"));
    const leave = h("label", { class: "switch" }, this.out, h("span", {}, say("rows.leave")));
    this.note = h("p", { class: "st-hint", hidden: true });
    this.content = h("div", { class: "row-content" });
    this.problem = h("div", {});
    this.element = h(
      "section",
      { class: "row-view" },
      h("div", { class: "row-head" }, this.place, leave, this.editButton),
      this.#lights(),
      this.note,
      this.problem,
      this.content,
    );
  }

  async show(position) {
    this.position = position;
    this.editing = false;
    this.out.checked = this.view.known.exclude_rows.includes(position);
    this.noteEdit();
    const number = (this.asking = (this.asking ?? 0) + 1);
    const slow = this.light === "trained";
    const wait = setTimeout(
      () => number === this.asking && this.content.replaceChildren(h("p", { class: "loading", role: "status" }, say(slow ? "rows.loading" : "data.reading"))),
      slow ? 150 : 400,
    );
    try {
      const told = await from(this.view.name, `/row/${position}`, { light: this.light });
      if (number !== this.asking) return;
      pour(this.place, told.place);
      pour(this.content, told.html);
      this.problem.replaceChildren();
    } catch (problem) {
      if (number === this.asking) this.content.replaceChildren(fault(problem.message));
    } finally {
      clearTimeout(wait);
    }
  }

  /** Another model or length: only what is trained on looks otherwise. */
  readOtherwise() {
    if (this.light === "trained" && this.position >= 0 && !this.editing) void this.show(this.position);
  }

  #lights() {
    const bar = h("div", { class: "segments-bar small", role: "radiogroup", "aria-label": say("rows.view") });
    const buttons = LIGHTS.map((light) =>
      h("button", { type: "button", role: "radio", "data-light": light, onclick: () => choose(light) }, say(`rows.view.${light}`)),
    );
    const mark = () => {
      for (const button of buttons) {
        const chosen = button.dataset.light === this.light;
        button.setAttribute("aria-checked", String(chosen));
        button.tabIndex = chosen ? 0 : -1;
      }
    };
    const choose = (light) => {
      this.light = light;
      localStorage.setItem(KEPT_AS, light);
      mark();
      if (this.position >= 0) void this.show(this.position);
    };
    bar.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const next = (LIGHTS.indexOf(this.light) + step + LIGHTS.length) % LIGHTS.length;
      buttons[next].focus();
      choose(LIGHTS[next]);
    });
    mark();
    bar.append(...buttons);
    return bar;
  }

  async #leave() {
    const out = this.out.checked;
    try {
      await this.view.change(out ? { leave_out: this.position } : { take_back: this.position });
      this.problem.replaceChildren();
      this.marked({ leftOut: out });
    } catch (problem) {
      this.out.checked = !out;
      this.problem.replaceChildren(fault(problem.message));
    }
  }

  /** Say that this row was changed, if it was. */
  noteEdit() {
    const edited = this.view.edits.has(this.position);
    const go = h("button", { type: "button", class: "link", onclick: () => this.view.go("shape") }, say("rows.edited.go"));
    this.note.replaceChildren(...(edited ? [`${say("rows.edited")} `, go, "."] : []));
    this.note.hidden = !edited;
  }

  /** The row as JSON to be changed; the change waits for a recipe. */
  async #edit() {
    const { position } = this;
    let written = this.view.edits.get(position);
    try {
      written ??= (await from(this.view.name, `/row/${position}`, { light: "edit" })).written;
    } catch (problem) {
      return this.problem.replaceChildren(fault(problem.message));
    }
    if (position !== this.position) return undefined;
    if (!written) return this.problem.replaceChildren(fault(say("rows.edit.too_long")));
    this.editing = true;
    const text = h("textarea", { class: "st-input code", rows: 16, spellcheck: "false", "aria-label": say("rows.edit.text") });
    text.value = written;
    const wrong = h("div", {});
    const done = () => void this.show(position);
    const keep = h("button", { type: "button", class: "st-button primary small", id: "row-edit-keep" }, say("rows.edit.keep"));
    keep.addEventListener("click", () => {
      const reason = faultIn(text.value);
      if (reason) return wrong.replaceChildren(fault(say("rows.edit.bad", { reason })));
      if (text.value !== written) this.view.edit(position, text.value);
      return done();
    });
    const drop = h("button", { type: "button", class: "st-button small" }, say("rows.edit.drop"));
    drop.addEventListener("click", () => {
      this.view.edit(position, null);
      done();
    });
    const hint = h("p", { class: "st-hint" }, say("rows.edit.note"));
    this.content.replaceChildren(h("div", { class: "row-edit" }, hint, text, wrong, h("div", { class: "buttons" }, keep, drop)));
    text.setSelectionRange(0, 0);
    text.focus({ preventScroll: true });
    return undefined;
  }
}

/** Why a text is no row; "" if it is one. It stays text: large numbers would lose digits here. */
function faultIn(text) {
  try {
    const value = JSON.parse(text);
    return value && typeof value === "object" && !Array.isArray(value) ? "" : "{…}";
  } catch (problem) {
    return problem.message;
  }
}
