// One dataset: its head, by whom it is read, what a check found, and its sections, each built when it is first opened.

import { fault, from, onReading, pour, to } from "./dataask.js";
import { CheckStrip } from "./datacheck.js";
import { Edits } from "./dataedits.js";
import { LayoutForm } from "./datalayout.js";
import { ReadBy } from "./datareading.js";
import { h, put, say } from "./dom.js";
import { integer } from "./format.js";
import { post } from "./live.js";
import { go } from "./route.js";

// Each section's module is fetched when it is first opened.
const SECTIONS = {
  rows: () => import("./datarows.js"),
  check: () => import("./datacheckall.js"),
  stats: () => import("./datastats.js"),
  map: () => import("./datamap.js"),
  shape: () => import("./datashape.js"),
};
const COUNTED_EVERY = 1500;
let seen = null; // the dataset that is looked at: settings are shared by all, and the one in sight redraws

onReading((change) => seen?.readOtherwise(change));

export class DatasetView {
  /** `outside`: what to call when the list changes, when this was removed, when another was made of it. */
  constructor(name, outside) {
    this.name = name;
    this.outside = outside;
    this.known = null;
    this.edits = new Edits(name);
    this.sections = {};
    this.head = h("div", { class: "data-head" }, h("p", { class: "loading" }, say("data.reading")));
    this.body = h("div", { class: "dataset-body" });
    this.element = h("div", { class: "dataset-view" }, this.head, this.body);
    seen = this;
    this.ready = this.#load();
  }

  close() {
    this.closed = true;
    clearTimeout(this.counting);
    this.strip?.close();
    for (const section of Object.values(this.sections)) section.close?.();
    if (seen === this) seen = null;
  }

  /** Show a section. */
  async show(view = "") {
    this.wanted = view in SECTIONS ? view : "rows";
    await this.ready;
    if (!this.known || this.broken || this.closed) return;
    for (const [name, button] of Object.entries(this.tabs)) {
      const chosen = name === this.wanted;
      button.setAttribute("aria-selected", String(chosen));
      button.tabIndex = chosen ? 0 : -1;
    }
    const section = await this.#section(this.wanted);
    if (this.closed || !section || section.name !== this.wanted) return;
    this.element.dataset.view = this.wanted;
    this.panel.setAttribute("aria-labelledby", `section-${this.wanted}`);
    if (this.panel.firstElementChild !== section.element) this.panel.replaceChildren(section.element);
    section.open?.();
  }

  go(view) {
    go("data", "", { dataset: this.name, view: view === "rows" ? "" : view });
  }

  /** Show the rows that a problem was found in, or one row. */
  async showRows(found) {
    this.go("rows");
    const rows = await this.#section("rows");
    rows.only(found);
    this.tabs.rows.scrollIntoView({ block: "nearest" });
  }

  /** Change a row for a new dataset; null drops the change. */
  edit(position, written) {
    if (written === null) this.edits.delete(position);
    else this.edits.set(position, written);
    this.#edited();
  }

  /** The changes were saved in a new dataset. */
  saved(positions) {
    for (const position of positions) this.edits.delete(position);
    this.#edited();
  }

  #edited() {
    this.#markEdits();
    for (const section of Object.values(this.sections)) section.edited?.();
  }

  /** How many changed rows are to be saved stands on the section that saves them. */
  #markEdits() {
    const { size } = this.edits;
    const mark = h("span", { class: "st-pill unsaved", title: say("shape.edits.unsaved") }, integer(size));
    this.tabs.shape.replaceChildren(say("section.shape"), ...(size ? [" ", mark] : []));
  }

  readOtherwise(change) {
    void this.strip?.refresh();
    for (const section of Object.values(this.sections)) section.readOtherwise?.(change);
  }

  /** Keep something of the dataset, and redraw what follows from it. Throws. */
  async change(fields) {
    this.known = await to(this.name, "change", fields);
    const read = ["format", "columns", "tags"].some((key) => key in fields);
    void this.strip.refresh();
    for (const section of Object.values(this.sections)) section.changed?.(fields);
    if (read) await this.reload();
    this.outside.changed();
    return this.known;
  }

  /** The head anew. */
  async reload() {
    this.known = await from(this.name);
    pour(this.facts, this.known.html);
    await this.#layout();
  }

  async #load() {
    try {
      this.known = await from(this.name);
    } catch (problem) {
      if (this.closed) return;
      this.head.replaceChildren(fault(problem.message));
      return;
    }
    if (this.closed) return;
    this.facts = pour(h("div", { class: "data-about" }), this.known.html);
    this.layoutPlace = h("div", { class: "layout-place" });
    if (!this.known.there) return this.#broken();
    this.readBy = new ReadBy();
    this.strip = new CheckStrip(this);
    this.panel = h("div", { class: "section-panel", role: "tabpanel" });
    this.head.replaceChildren(h("div", { class: "head-line" }, this.facts, this.#actions()), this.problem, this.layoutPlace);
    const bar = h("div", { class: "sections-line" }, this.#segments(), this.readBy.element);
    this.body.replaceChildren(this.strip.element, bar, this.panel);
    void this.#layout();
    void this.strip.refresh();
    if (this.known.kind !== "hub") this.count();
    return undefined;
  }

  /** Its rows aren't where they were: said once, instead of by every section. */
  #broken() {
    const words = [h("h2", {}, say("data.broken")), h("p", {}, say("data.broken.next"))];
    this.head.replaceChildren(h("div", { class: "head-line" }, this.facts, this.#actions()), this.problem);
    this.body.replaceChildren(h("div", { class: "st-empty" }, words));
    this.broken = true;
  }

  #actions() {
    this.problem = h("div", {});
    const train = h("button", { type: "button", class: "st-button primary", id: "data-train", title: say("data.train.info"), hidden: !this.known.there }, say("data.train"));
    train.addEventListener("click", () => {
      const length = this.readBy.used ? { max_length: String(this.readBy.length) } : {};
      go("train", "", { dataset: this.name, ...length });
    });
    const remove = h("button", { type: "button", class: "st-button quiet-bad", id: "data-remove", hidden: this.known.bundled }, say("data.remove"));
    remove.addEventListener("click", () => this.#askRemoval());
    return h("div", { class: "data-actions" }, train, remove);
  }

  #segments() {
    const list = h("div", { class: "segments-bar", role: "tablist", "aria-label": say("section.label") });
    this.tabs = Object.fromEntries(
      Object.keys(SECTIONS).map((name) => {
        const props = { type: "button", role: "tab", id: `section-${name}`, onclick: () => this.go(name) };
        return [name, h("button", props, say(`section.${name}`))];
      }),
    );
    list.append(...Object.values(this.tabs));
    this.#markEdits();
    list.addEventListener("keydown", (event) => {
      const names = Object.keys(SECTIONS);
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const next = names[(names.indexOf(this.wanted) + step + names.length) % names.length];
      this.tabs[next].focus();
      this.go(next);
    });
    return list;
  }

  async #section(name) {
    if (!this.sections[name]) {
      const { Section } = await SECTIONS[name]();
      this.sections[name] ??= Object.assign(new Section(this), { name });
    }
    return this.sections[name];
  }

  /** Which layout the rows have, or the question about it. It may take reading the first rows, so it comes after. */
  async #layout() {
    let told;
    try {
      told = await from(this.name, "/layout");
    } catch (problem) {
      if (!this.closed) this.problem.replaceChildren(fault(problem.message));
      return;
    }
    if (this.closed) return;
    this.problem.replaceChildren();
    this.layout = told;
    const place = this.facts.querySelector("#data-layout");
    const form = (this.layoutForm = new LayoutForm(this, told));
    const change = h("button", { type: "button", class: "link", id: "data-change-layout", "aria-expanded": "false" }, say("data.change"));
    change.addEventListener("click", () => change.setAttribute("aria-expanded", String(form.toggle())));
    if (place && this.known.kind !== "mix") place.replaceChildren(`${told.words} `, change);
    this.layoutPlace.replaceChildren(form.element);
  }

  /** While the rows are counted in the background, say how far that is. */
  async count() {
    if (this.closed || this.known.rows !== null) return undefined;
    try {
      const { index } = await from(this.name, "/tasks");
      const place = this.facts.querySelector("#data-count");
      if (index?.state === "running" && place && index.done) put(place, say("data.counting", { done: integer(index.done) }));
      if (index?.state === "done") {
        this.known = await from(this.name);
        if (place && this.known.rows !== null) put(place, integer(this.known.rows));
        this.sections.rows?.counted?.();
        return this.outside.changed();
      }
      if (index?.state === "failed" || (!index && this.known.kind === "mix")) return undefined;
    } catch {
      // the header's notice says that the studio doesn't answer
    }
    this.counting = setTimeout(() => void this.count(), COUNTED_EVERY);
    return undefined;
  }

  #askRemoval() {
    const keep = h("button", { type: "button", class: "st-button" }, say("data.remove.no"));
    const remove = h("button", { type: "button", class: "st-button bad", id: "data-remove-yes" }, say("data.remove.yes"));
    const title = h("h2", {}, say("data.remove.ask", { name: this.known.title }));
    const buttons = h("div", { class: "buttons" }, keep, remove);
    const dialog = h("dialog", { class: "st-dialog" }, title, h("p", {}, say("data.remove.info")), buttons);
    keep.addEventListener("click", () => dialog.close());
    remove.addEventListener("click", async () => {
      dialog.close();
      try {
        await post(`data/of/${encodeURIComponent(this.name)}/remove`);
        this.edits.clear();
        this.outside.removed(this.known.title);
      } catch (problem) {
        this.problem.replaceChildren(fault(problem.message));
      }
    });
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
    keep.focus();
  }
}
