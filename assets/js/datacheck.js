// What a check found, in short, above a dataset's sections; and what its buttons do, wherever they stand.

import { asked, fault, from, pour, reading, Work } from "./dataask.js";
import { h, say } from "./dom.js";

export class CheckStrip {
  constructor(view) {
    this.view = view;
    this.report = null;
    this.place = h("div", { class: "check-strip" });
    this.work = new Work(() => void this.refresh());
    this.problem = h("div", {});
    this.element = h("section", { class: "st-card strip" }, this.place, this.work.element, this.problem);
    this.listeners = new Set();
    listen(this.element, this);
  }

  close() {
    this.work.forget();
  }

  /** Call `listener(report)` whenever there is another one: {full, kinds, rows}, its fields null where there is none. */
  onReport(listener) {
    this.listeners.add(listener);
    if (this.report) listener(this.report);
  }

  async refresh() {
    const number = (this.asking = (this.asking ?? 0) + 1);
    try {
      const [report, tasks] = await Promise.all([from(this.view.name, "/check"), from(this.view.name, "/tasks")]);
      if (number !== this.asking) return;
      this.report = report;
      if (tasks.check?.state === "running") void this.work.follow(tasks.check);
    } catch (problem) {
      if (number === this.asking) this.place.replaceChildren(fault(problem.message));
      return;
    }
    this.problem.replaceChildren();
    if (this.report.strip) pour(this.place, this.report.strip);
    else this.place.replaceChildren(this.#never());
    for (const listener of this.listeners) listener(this.report);
  }

  start() {
    return this.work.begin(this.view.name, { op: "check", asked: asked() });
  }

  #never() {
    const model = reading.model ? say("check.never", { model: reading.model, length: reading.max_length }) : say("check.never.plain");
    const button = h("button", { type: "button", class: "st-button small", "data-act": "check" }, say("check.start"));
    return h("div", { class: "learned-line" }, h("p", {}, model), button);
  }

  /** Leave rows with a kind of problem out, or take them back. */
  async leave(kind, out) {
    const kinds = new Set(this.view.known.exclude);
    if (out) kinds.add(kind);
    else kinds.delete(kind);
    await this.#change({ exclude: [...kinds].sort() });
  }

  takeAllBack() {
    return this.#change({ exclude_rows: [] });
  }

  async #change(fields) {
    try {
      await this.view.change(fields);
    } catch (problem) {
      this.problem.replaceChildren(fault(problem.message));
    }
  }
}

/** What a click on a report's parts means. */
export function listen(element, strip) {
  element.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.act === "check") void strip.start();
    if (button.dataset.act === "rows-back") void strip.takeAllBack();
    if (button.dataset.act === "layout") strip.view.layoutForm?.open(button.closest("details").dataset.kind === "unknown_role");
    if (button.dataset.show) void strip.view.showRows({ kind: button.dataset.show });
    if (button.dataset.section) strip.view.go(button.dataset.section);
  });
  element.addEventListener("change", (event) => {
    const kind = event.target.dataset?.leave;
    if (kind) void strip.leave(kind, event.target.checked);
  });
}
