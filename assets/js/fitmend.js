// Make it fit: the changes that are needed, each with what it saves and what it costs, applied one by one or all.

import { h, put, say } from "./dom.js";

/** Give the form's controls these values. */
export function change(values) {
  window.studio.change?.(values);
}

export class FitMend {
  constructor() {
    this.changes = null;
    this.title = h("h4");
    this.button = h("button", { type: "button", class: "st-button small primary" }, say("fit.mend"));
    this.button.addEventListener("click", () => this.all());
    this.list = h("ol");
    this.problem = h("p", { class: "st-hint" });
    this.element = h(
      "div",
      { class: "fit-mend", hidden: true },
      h("div", { class: "fit-mend-head" }, this.title, this.button),
      this.list,
      this.problem,
    );
  }

  /** Every change at once. Before they are known, as soon as they are. */
  all() {
    if (this.changes) change(this.changes);
    else this.wanted = true;
  }

  /** The verdict has come; what would mend it comes a moment later. What is there stays until then. */
  about(state) {
    if (state === "over" || state === "tight") return;
    this.element.hidden = true;
    this.changes = this.drawn = null;
    this.wanted = false;
  }

  /** What is shown was worked out for other values; whoever asks for all of it gets what is worked out now. */
  old() {
    this.changes = null;
    this.stale = true;
  }

  draw(mend) {
    this.stale = false;
    this.changes = mend && Object.keys(mend.changes).length ? mend.changes : null;
    this.element.hidden = !mend;
    if (mend && JSON.stringify(mend) !== this.drawn) this.#list(mend);
    if (this.wanted && this.changes) {
      this.wanted = false;
      this.all();
    }
  }

  #list(mend) {
    this.drawn = JSON.stringify(mend);
    put(this.title, mend.title);
    this.button.hidden = !this.changes;
    put(this.problem, mend.problem);
    this.problem.hidden = !mend.problem;
    this.list.replaceChildren(...mend.steps.map((step) => this.#step(step)));
  }

  #step({ text, saves, cost, changes }) {
    const label = say("fit.mend.each", { change: text });
    const button = h("button", { type: "button", class: "fit-link", "aria-label": label }, say("fit.mend.do"));
    button.addEventListener("click", () => this.stale || change(changes));
    return h(
      "li",
      {},
      h("span", { class: "fit-change" }, text),
      h("span", { class: "fit-saves num" }, saves),
      h("span", { class: "st-hint" }, cost),
      button,
    );
  }
}
