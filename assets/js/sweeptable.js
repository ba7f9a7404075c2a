// A search's trials as a table: what was tried, what came out, and the way to each run. Sorted by any column.

import { h, put, say } from "./dom.js";
import { told } from "./sweepdraw.js";
import { go } from "./route.js";

export class SweepTable {
  /** `onLight(number)` is told which trial the pointer or the focus is on, null for none. */
  constructor(onLight) {
    this.onLight = onLight;
    this.by = { key: "number", up: true };
    this.rows = new Map();
    this.head = h("thead");
    this.body = h("tbody");
    this.element = h(
      "div",
      { class: "table-frame sweep-table", tabindex: "0", role: "region", "aria-label": say("sweeps.table") },
      h("table", { class: "st-table" }, this.head, this.body),
    );
    this.body.addEventListener("pointerleave", () => onLight(null));
    this.body.addEventListener("focusout", () => onLight(null));
  }

  draw(sweep) {
    this.sweep = sweep;
    const focus = this.element.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    this.#drawHead();
    this.#drawBody();
    if (focus) this.element.querySelector(`[data-key="${CSS.escape(focus)}"]`)?.focus();
  }

  light(number) {
    for (const [other, row] of this.rows) row.classList.toggle("lit", other === number);
  }

  #columns() {
    const { axes, figure, metric } = this.sweep;
    return [
      { key: "number", title: say("sweeps.column.trial"), of: (row) => row.number },
      ...axes.map(({ path, title, name, choices, log }) => ({
        key: path,
        title,
        name,
        log,
        number: choices.every((choice) => typeof choice === "number"),
        of: (row) => row.values[path],
      })),
      { key: "value", title: figure, name: metric, number: true, of: (row) => row.value },
      { key: "outcome", title: say("sweeps.column.outcome"), of: (row) => row.outcome },
    ];
  }

  #drawHead() {
    const cells = this.#columns().map(({ key, title, name, number }) => {
      const sorted = this.by.key === key ? (this.by.up ? "ascending" : "descending") : "none";
      const label = say("sweeps.sort", { title });
      const props = { type: "button", "data-key": `sort ${key}`, "aria-label": label, onclick: () => this.#sort(key) };
      const mark = h("span", { class: "sweep-sort", "aria-hidden": "true" });
      const words = [h("span", {}, title), mark, name ? h("code", { class: "st-arg" }, name) : null];
      return h("th", { scope: "col", class: number ? "num" : null, "aria-sort": sorted }, h("button", props, words));
    });
    this.head.replaceChildren(h("tr", {}, cells));
  }

  #sort(key) {
    this.by = { key, up: this.by.key === key ? !this.by.up : true };
    this.draw(this.sweep);
  }

  #drawBody() {
    const columns = this.#columns();
    const by = columns.find(({ key }) => key === this.by.key) ?? columns[0];
    const sign = this.by.up ? 1 : -1;
    const rows = [...this.sweep.rows].sort((one, other) => ordered(by.of(one), by.of(other), sign) || one.number - other.number);
    this.rows = new Map(rows.map((row) => [row.number, this.#row(row, columns)]));
    this.body.replaceChildren(...this.rows.values());
  }

  #row(row, columns) {
    const best = row.number === this.sweep.best_trial;
    const words = { number: row.number + 1 };
    const link = h(
      "button",
      {
        type: "button",
        class: "fit-link num",
        "data-key": `trial ${row.number}`,
        "aria-label": say("sweeps.open", words),
        title: say("sweeps.open", words),
        onclick: () => go("runs", row.run),
      },
      String(row.number + 1),
    );
    const first = h("th", { scope: "row" }, link, best ? h("span", { class: "sweep-best" }, say("sweeps.best.mark")) : null);
    const cells = columns.slice(1, -1).map(({ key, number, log, of }) => {
      const value = of(row);
      const text = key === "value" && value !== null ? figure(value) : told(value, log);
      return h("td", { class: number ? "num" : "text", title: typeof value === "number" ? String(value) : null }, text);
    });
    const outcome = h("td", { class: "outcome", "data-outcome": row.outcome }, say(`sweeps.outcome.${row.outcome}`));
    return h(
      "tr",
      {
        class: best ? "best" : null,
        onpointerenter: () => this.onLight(row.number),
        onfocusin: () => this.onLight(row.number),
      },
      first,
      cells,
      outcome,
    );
  }
}

/** A figure in digits that can be compared: four behind the point, or four that matter. */
export function figure(value) {
  const size = Math.abs(value);
  return size >= 1e-3 && size < 1e4 ? value.toFixed(4) : told(value);
}

/** What has no value comes last, whichever way is sorted. */
function ordered(one, other, sign) {
  if (one === null || other === null) return one === other ? 0 : one === null ? 1 : -1;
  if (typeof one === "number" && typeof other === "number") return sign * (one - other);
  return sign * String(one).localeCompare(String(other), "en", { numeric: true });
}
