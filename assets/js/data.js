// The Data tab: the list at the left, one dataset at the right.

import { AddView } from "./dataadd.js";
import { fault, pour } from "./dataask.js";
import { DatasetView } from "./dataset.js";
import { h, put, say } from "./dom.js";
import { get } from "./live.js";
import { go, onRoute, route } from "./route.js";

const MANY = 8; // datasets from which on they can be searched
let tab = null;

export function buildData() {
  tab = new DataTab();
  return tab.element;
}

onRoute(({ tab: opened }) => {
  if (tab && opened === "data") void tab.show();
});

class DataTab {
  constructor() {
    this.datasets = [];
    this.view = null;
    this.find = h("input", { type: "search", class: "st-input", placeholder: say("data.find"), "aria-label": say("data.find"), hidden: true });
    this.find.addEventListener("input", () => this.#narrow());
    this.items = h("div", { class: "picks", role: "listbox", "aria-label": say("data.title") });
    this.items.addEventListener("click", (event) => this.#picked(event.target.closest("[data-pick]")));
    this.items.addEventListener("keydown", (event) => move(event, this.items));
    this.none = h("p", { class: "st-hint", hidden: true }, say("data.none_found"));
    this.told = h("p", { class: "st-hint", role: "status", hidden: true });
    const add = h("button", { type: "button", class: "st-button small", id: "data-add", onclick: () => this.#add() }, say("data.add"));
    const head = h("div", { class: "list-head" }, h("h2", {}, say("data.title")), add);
    this.main = h("section", { class: "dataset" }, h("p", { class: "loading" }, say("data.reading")));
    this.scroll = h("div", { class: "scroll" }, this.items);
    const list = h("aside", { class: "datasets-list" }, head, this.find, this.scroll, this.none, this.told);
    this.element = h("div", { class: "datasets" }, list, this.main);
    void this.show();
  }

  /** The tab was come to, or another dataset was asked for. The list may have changed meanwhile. */
  async show() {
    if (route.tab !== "data") return;
    const wanted = route.dataset;
    if (this.view && wanted === this.view.name) this.view.show(route.view);
    try {
      await this.refresh();
    } catch (problem) {
      const again = h("button", { type: "button", class: "st-button", onclick: () => void this.show() }, say("data.retry"));
      if (!this.view) this.main.replaceChildren(fault(problem.message), again);
      return;
    }
    if (route.tab !== "data" || route.dataset !== wanted) return;
    if (!wanted && this.datasets.length) go("data", "", { dataset: this.datasets[0].name, replace: true });
    else if (!this.adding && wanted !== this.view?.name) this.#open(wanted);
  }

  async refresh() {
    const { html, datasets } = await get("data/list");
    this.datasets = datasets;
    if (html !== this.drawn) {
      const focused = this.items.contains(document.activeElement) ? document.activeElement.dataset.pick : null;
      pour(this.items, html);
      this.drawn = html;
      [...this.items.children].find((item) => item.dataset.pick === focused)?.focus();
    }
    this.find.hidden = datasets.length < MANY;
    this.#narrow();
    this.#mark();
  }

  /** A word about what was done, under the list. */
  say(sentence) {
    put(this.told, sentence);
    this.told.hidden = !sentence;
  }

  #open(name) {
    this.adding = false;
    this.view?.close();
    this.view = new DatasetView(name, {
      changed: () => void this.refresh().catch(() => {}),
      removed: (title) => {
        this.view?.close();
        this.view = null;
        this.say(say("data.removed", { name: title }));
        go("data", "", { dataset: this.datasets.find((one) => one.name !== name)?.name ?? "", replace: true });
      },
      made: (made) => go("data", "", { dataset: made }),
    });
    this.main.replaceChildren(this.view.element);
    this.view.show(route.view);
    this.#mark();
  }

  #add() {
    this.adding = true;
    this.say("");
    const back = () => {
      this.adding = false;
      if (this.view) this.main.replaceChildren(this.view.element);
      document.getElementById("data-add").focus();
    };
    const added = (found) => {
      this.adding = false;
      const several = say("data.added.several", { count: found.length });
      this.say(found.length === 1 ? say("data.added", { name: found[0].title }) : several);
      if (this.view?.name === found[0].name) this.main.replaceChildren(this.view.element);
      go("data", "", { dataset: found[0].name });
    };
    const panel = new AddView(this.datasets, { back, added });
    this.main.replaceChildren(panel.element);
    panel.focus();
  }

  #picked(item) {
    if (!item) return;
    const name = item.dataset.pick;
    const again = this.adding && name === this.view?.name;
    this.adding = false;
    this.say("");
    if (again) this.main.replaceChildren(this.view.element);
    else go("data", "", { dataset: name });
  }

  /** The chosen one in sight, without moving the page. */
  #reveal(item) {
    const place = item.offsetTop - this.scroll.offsetTop;
    const { scrollTop, clientHeight } = this.scroll;
    if (place < scrollTop || place + item.offsetHeight > scrollTop + clientHeight) this.scroll.scrollTop = place - clientHeight / 3;
  }

  #narrow() {
    const wanted = this.find.hidden ? "" : this.find.value.trim().toLowerCase();
    for (const item of this.items.children) item.hidden = !item.textContent.toLowerCase().includes(wanted);
    this.none.hidden = !wanted || [...this.items.children].some((item) => !item.hidden);
  }

  #mark() {
    for (const item of this.items.children) {
      const chosen = item.dataset.pick === this.view?.name;
      item.setAttribute("aria-selected", String(chosen));
      item.tabIndex = chosen ? 0 : -1;
      if (chosen && this.marked !== this.view) this.#reveal(item);
    }
    this.marked = this.view;
    if (![...this.items.children].some((item) => item.tabIndex === 0)) this.items.firstElementChild?.setAttribute("tabindex", "0");
  }
}

/** Arrow keys in a list of buttons. */
export function move(event, list) {
  const items = [...list.children].filter((item) => !item.hidden);
  const place = items.indexOf(document.activeElement);
  const target = { ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: items.length - 1 }[event.key];
  if (target === undefined || !items[target]) return;
  event.preventDefault();
  items[target].focus();
  items[target].click();
}
