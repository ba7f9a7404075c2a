// The Rows section: pages of rows, found by what stands in them, and one row in several lights.

import { asked, fault, from, pour, to, Work } from "./dataask.js";
import { move } from "./data.js";
import { RowView } from "./datarow.js";
import { h, put, say } from "./dom.js";
import { bytes, integer } from "./format.js";

const PAGE = 20;
const ROLES = ["", "system", "user", "assistant", "tool"];

export class Section {
  constructor(view) {
    this.view = view;
    this.start = 0;
    this.total = null;
    this.chosen = -1;
    this.search = null; // the number of the search whose rows are shown
    this.kind = null; // or the kind of problem
    this.row = new RowView(view, (fields) => this.#marked(fields));
    this.items = h("div", { class: "picks", role: "listbox", "aria-label": say("rows.list") });
    this.items.addEventListener("click", (event) => this.#pick(event.target.closest("[data-pick]")));
    this.items.addEventListener("keydown", (event) => move(event, this.items));
    this.problem = h("div", {});
    this.work = new Work((task) => this.#searched(task));
    this.fetch = new Work((task) => void this.#fetched(task));
    this.fetching = h("div", {});
    this.list = h("div", { class: "rows-list" }, this.items);
    const split = h("div", { class: "rows-split" }, this.list, this.row.element);
    this.element = h("div", { class: "section-rows" }, this.#filters(), this.work.element, this.fetching, this.#pager(), this.problem, split);
    this.view.strip.onReport((report) => this.#offerKinds(report.kinds));
  }

  open() {
    if (!this.drawn) void this.#begin();
  }

  /** The first look; a search that a reload of the page left alone is followed again. */
  async #begin() {
    void this.#turn(0);
    try {
      const { search } = await from(this.view.name, "/tasks");
      if (search?.state !== "running" || this.work.busy) return;
      const { text, role, longer, shorter, kind } = search.search;
      [this.text.value, this.role.value] = [text ?? "", role ?? ""];
      [this.longer.value, this.shorter.value] = [longer ?? "", shorter ?? ""];
      this.kind = kind;
      await this.work.follow(search);
    } catch {
      // it can be searched again
    }
  }

  edited() {
    this.#markEdits();
    if (this.chosen >= 0) this.row.noteEdit();
  }

  close() {
    this.fetch.forget();
    this.work.forget();
  }

  /** Show only some rows: those of a kind of problem, or a single one, by its position. */
  only({ kind = null, position = null }) {
    this.search = null;
    this.kind = kind;
    this.kinds.value = kind ?? "";
    if (position === null) return this.#turn(0);
    this.chosen = position;
    return this.#turn(position - (position % PAGE), position);
  }

  /** The rows have been counted meanwhile. */
  counted() {
    void this.#turn(this.start, this.chosen);
  }

  changed(fields) {
    if (["format", "columns", "tags", "exclude_rows", "leave_out", "take_back"].some((key) => key in fields)) {
      void this.#turn(this.start, this.chosen);
    }
  }

  readOtherwise(change) {
    if ("model" in change || "max_length" in change) this.row.readOtherwise();
  }

  #filters() {
    this.text = h("input", { type: "search", class: "st-input grow", id: "rows-find", placeholder: say("rows.find"), "aria-label": say("rows.find") });
    this.role = select(say("rows.role"), ROLES.map((role) => [role, say(role ? `rows.role.${role}` : "rows.role.any")]));
    const length = (key) => h("input", { class: "st-input num short", inputmode: "numeric", placeholder: say(key), "aria-label": `${say("rows.length")} ${say(key)}` });
    this.longer = length("rows.longer");
    this.shorter = length("rows.shorter");
    this.kinds = select(say("rows.problem"), [["", say("rows.problem.any")]]);
    this.kinds.id = "rows-kind";
    this.kinds.addEventListener("change", () => this.#ask());
    const go = h("button", { type: "submit", class: "st-button", id: "rows-search" }, say("rows.search"));
    this.clear = h("button", { type: "button", class: "st-button", id: "rows-clear", hidden: true, onclick: () => this.#showAll() }, say("rows.clear"));
    const labelled = (key, ...fields) => h("label", {}, h("span", {}, say(key)), ...fields);
    const form = h(
      "form",
      { class: "rows-filters", role: "search" },
      this.text,
      labelled("rows.role", this.role),
      h("div", { class: "between" }, h("span", {}, say("rows.length")), this.longer, this.shorter, h("span", {}, say("rows.characters"))),
      this.kinds,
      go,
      this.clear,
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#ask();
    });
    return form;
  }

  #pager() {
    const turn = (key, pages) =>
      h("button", { type: "button", class: "st-button small", id: key.replace(".", "-"), onclick: () => void this.#turn(this.start + pages * PAGE) }, say(key));
    this.previous = turn("rows.previous", -1);
    this.next = turn("rows.next", 1);
    this.where = h("span", { class: "where num", id: "rows-where", role: "status" });
    this.goto = h("input", { class: "st-input num", id: "rows-go", inputmode: "numeric", placeholder: say("rows.go"), "aria-label": say("rows.go") });
    this.goto.addEventListener("keydown", (event) => event.key === "Enter" && this.#goTo());
    this.pager = h("div", { class: "rows-pager" }, this.previous, this.where, this.next, this.goto);
    return this.pager;
  }

  #offerKinds(kinds) {
    const options = [["", say("rows.problem.any")], ...kinds.map(({ kind, title, count }) => [kind, `${title} (${integer(count)})`])];
    this.kinds.replaceChildren(...options.map(([value, words]) => h("option", { value }, words)));
    this.kinds.value = kinds.some(({ kind }) => kind === this.kind) ? this.kind : "";
    this.kinds.hidden = kinds.length === 0;
  }

  #ask() {
    const whole = (field) => (/^\d+$/.test(field.value.trim()) ? Number(field.value) : null);
    const wanted = { text: this.text.value, role: this.role.value, longer: whole(this.longer), shorter: whole(this.shorter), kind: this.kinds.value };
    const plain = !wanted.text && !wanted.role && wanted.longer === null && wanted.shorter === null;
    this.kind = wanted.kind || null;
    this.search = null;
    if (plain) return void this.#turn(0);
    return void this.work.begin(this.view.name, { op: "search", asked: asked(), search: wanted });
  }

  #searched(task) {
    if (task.state !== "done") return;
    this.search = task.id;
    if (task.result.complete === false) {
      this.work.problem.replaceChildren(h("p", { class: "st-hint" }, say("rows.found.partly", { count: integer(task.result.count) })));
    }
    void this.#turn(0);
  }

  #showAll() {
    for (const field of [this.text, this.role, this.longer, this.shorter, this.kinds]) field.value = "";
    this.search = this.kind = null;
    this.work.problem.replaceChildren();
    void this.#turn(0);
  }

  #goTo() {
    const number = /^\d{1,15}$/.test(this.goto.value.trim()) ? Number(this.goto.value) : 0;
    const most = this.total ?? Number.MAX_SAFE_INTEGER;
    if (number < 1 || number > most) {
      const sentence = this.total === null ? say("rows.go.open") : say("rows.go.bad", { total: integer(this.total) });
      return this.problem.replaceChildren(fault(sentence));
    }
    this.goto.value = "";
    return void this.#turn(number - 1 - ((number - 1) % PAGE), this.search || this.kind ? -1 : number - 1);
  }

  /** Fetch and show the page from `start`; `chosen` is the position of the row to show, -1 the page's first. */
  async #turn(start, chosen = -1) {
    const number = (this.asking = (this.asking ?? 0) + 1);
    const found = { search: this.search, kind: this.search ? null : this.kind };
    let page;
    try {
      page = await from(this.view.name, "/rows", { start: Math.max(start, 0), chosen, ...found });
    } catch (problem) {
      if (number === this.asking) this.problem.replaceChildren(fault(problem.message));
      return;
    }
    if (number !== this.asking) return;
    this.drawn = true;
    this.problem.replaceChildren();
    const focused = this.items.contains(document.activeElement);
    pour(this.items, page.html);
    this.#markEdits();
    [this.start, this.total, this.chosen] = [page.start, page.total, page.chosen ?? -1];
    this.#where(page);
    if (page.chosen === null) this.#empty();
    else void this.row.show(page.chosen);
    this.row.element.hidden = this.pager.hidden = page.chosen === null;
    this.#reveal();
    this.#offerFetching(page.preview);
    if (focused) this.items.querySelector("[aria-selected=true]")?.focus();
  }

  /** A hub dataset is streamed until it is downloaded. */
  #offerFetching(preview) {
    if (!preview) return this.fetching.replaceChildren();
    const words = preview.bytes ? say("hub.preview", { size: bytes(preview.bytes) }) : say("hub.preview.unknown");
    const fetch = () => void this.fetch.begin(this.view.name, { op: "fetch" });
    const button = h("button", { type: "button", class: "st-button small", id: "hub-fetch", onclick: fetch }, say("hub.fetch"));
    return this.fetching.replaceChildren(h("div", { class: "st-note hub-note" }, h("span", {}, words), button), this.fetch.element);
  }

  async #fetched({ state }) {
    if (state !== "done") return;
    void this.#turn(0);
    await to(this.view.name, "begin", { op: "index" });
    this.view.count();
  }

  #where({ start, count, total }) {
    const found = this.search !== null || this.kind !== null;
    const numbers = { first: integer(start + 1), last: integer(start + count), total: integer(total) };
    const key = total === null ? "rows.page.open" : found ? "rows.page.found" : "rows.page";
    put(this.where, count ? say(key, numbers) : "");
    this.previous.disabled = start <= 0;
    this.next.disabled = total === null ? count < PAGE : start + count >= total;
    this.clear.hidden = !found;
  }

  #empty() {
    const found = this.search !== null || this.kind !== null;
    const words = found ? ["rows.found.none", "rows.found.none.next"] : ["rows.empty", "rows.empty.next"];
    this.items.replaceChildren(h("div", { class: "st-empty" }, h("h2", {}, say(words[0])), h("p", {}, say(words[1]))));
  }

  /** The chosen row in sight, where the list is a low one that scrolls. */
  #reveal() {
    const chosen = this.items.querySelector("[aria-selected=true]");
    if (chosen) this.list.scrollTop = chosen.offsetTop - this.list.offsetTop - this.list.clientHeight / 2;
  }

  #markEdits() {
    for (const item of this.items.querySelectorAll("[data-pick]")) {
      const edited = this.view.edits.has(Number(item.dataset.pick));
      const mark = item.querySelector(".unsaved");
      if (edited && !mark) item.append(h("span", { class: "st-pill unsaved" }, say("rows.edited.mark")));
      if (!edited) mark?.remove();
    }
  }

  #pick(item) {
    if (!item) return;
    for (const other of this.items.children) {
      other.setAttribute("aria-selected", String(other === item));
      other.tabIndex = other === item ? 0 : -1;
    }
    this.chosen = Number(item.dataset.pick);
    void this.row.show(this.chosen);
  }

  /** Something about the row in sight was changed. */
  #marked({ leftOut }) {
    this.items.querySelector(`[data-pick="${this.chosen}"]`)?.classList.toggle("left-out", leftOut);
  }
}

function select(label, options) {
  return h("select", { class: "st-input", "aria-label": label }, options.map(([value, words]) => h("option", { value }, words)));
}
