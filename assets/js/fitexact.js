// The exact estimate, on demand: one training step is traced in a worker, and its answer stands beside the instant one.

import { h, put, say } from "./dom.js";
import { get, post } from "./live.js";

const EVERY = 500; // milliseconds between two looks at the trace

export class FitExact {
  /** `question()` returns the form and the card. */
  constructor(question) {
    this.question = question;
    this.watched = 0;
    this.start = h("button", { type: "button", class: "fit-link", title: say("fit.exact.tip") }, say("fit.exact.do"));
    this.start.addEventListener("click", () => void this.#begin());
    this.text = h("span", { role: "status" });
    this.stop = h("button", { type: "button", class: "fit-link", hidden: true }, say("fit.exact.stop"));
    this.stop.addEventListener("click", () => void this.#stop());
    this.element = h("div", { class: "fit-exact" }, this.start, this.text, this.stop);
  }

  /** What is said at once has changed: an answer about something else is taken away. */
  instant(bytes) {
    if (bytes === this.about || this.running) return;
    this.about = bytes;
    this.start.hidden = false;
    put(this.text, "");
  }

  async #begin() {
    const number = ++this.watched;
    this.running = true;
    this.start.hidden = true;
    this.stop.hidden = false;
    this.stop.focus();
    put(this.text, say("fit.exact.now"));
    try {
      let told = await post("estimate/exact", this.question());
      while (number === this.watched && told.state === "running") {
        this.id = told.id;
        put(this.text, told.text);
        await new Promise((resolve) => setTimeout(resolve, EVERY));
        if (number === this.watched) told = await get(`estimate/exact/${told.id}`);
      }
      this.#ended(number, told.text, told.state === "done");
    } catch (problem) {
      this.#ended(number, problem.message, false);
    }
  }

  #ended(number, text, done) {
    if (number !== this.watched) return;
    this.running = false;
    const focused = document.activeElement === this.stop;
    put(this.text, text);
    this.stop.hidden = true;
    this.start.hidden = done;
    if (focused && !done) this.start.focus();
  }

  async #stop() {
    if (this.id) await post(`estimate/exact/${this.id}/stop`).catch(() => {});
  }
}
