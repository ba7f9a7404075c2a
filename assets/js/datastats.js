// The Statistics section: what the server drew of the dataset's figures, or the button that has them counted.

import { asked, fault, from, pour, reading, Work } from "./dataask.js";
import { h, say } from "./dom.js";

export class Section {
  constructor(view) {
    this.view = view;
    this.place = h("div", { class: "stats-place" }, h("p", { class: "loading" }, say("data.reading")));
    this.work = new Work(() => void this.refresh());
    this.element = h("div", { class: "section-stats" }, this.work.element, this.place);
    this.element.addEventListener("click", (event) => {
      const length = event.target.closest("[data-length]")?.dataset.length;
      if (length) view.readBy.setLength(Number(length));
    });
  }

  open() {
    void this.refresh();
  }

  close() {
    this.work.forget();
  }

  changed() {
    void this.refresh();
  }

  readOtherwise(change) {
    if ("model" in change || "max_length" in change) void this.refresh();
  }

  async refresh() {
    const number = (this.asking = (this.asking ?? 0) + 1);
    try {
      const [told, tasks] = await Promise.all([from(this.view.name, "/stats"), from(this.view.name, "/tasks")]);
      if (number !== this.asking) return;
      if (told.html) pour(this.place, told.html);
      else this.place.replaceChildren(this.#never());
      if (tasks.stats?.state === "running") void this.work.follow(tasks.stats);
    } catch (problem) {
      if (number === this.asking) this.place.replaceChildren(fault(problem.message));
    }
  }

  #never() {
    const words = reading.model ? say("stats.never", { model: reading.model, length: reading.max_length }) : say("stats.never.plain");
    const start = h("button", { type: "button", class: "st-button primary", id: "stats-start" }, say("stats.start"));
    start.addEventListener("click", () => void this.work.begin(this.view.name, { op: "stats", asked: asked() }));
    return h("div", { class: "section-empty" }, h("p", {}, words), h("p", { class: "st-hint" }, say("stats.about")), start);
  }
}
