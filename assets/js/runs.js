// The Runs tab: searches and runs in the list at the left, one of them at the right.

import { h, put, say } from "./dom.js";
import { loss, roughly, when } from "./format.js";
import { ask, askNow, get, onAnswer } from "./live.js";
import { go, onRoute, route } from "./route.js";
import { RunView } from "./runview.js";
import { SweepsList } from "./sweeps.js";
import { SweepView } from "./sweepview.js";

const PAGE = 100;
let list = null;
let view = null;
let search = null;

ask(() => (route.tab === "runs" && view && !route.sweep ? view.question() : {}));

onAnswer((answer) => {
  if (!list || route.tab !== "runs") return;
  void list.update(answer);
  void list.searches.update(answer);
  void search.update(answer);
  if (answer.run && view.id === answer.run.id) view.update(answer.run);
});

onRoute(({ tab, run, sweep }) => {
  if (!list || tab !== "runs") return;
  show(run, sweep);
  askNow();
});

function show(run, sweep) {
  view.element.hidden = Boolean(sweep);
  view.show(run);
  search.show(sweep);
  list.choose(run);
  list.searches.choose(sweep);
  list.searches.forget();
}

export function buildRuns() {
  list = new RunsList();
  view = new RunView((run) => list.searches.trials.get(run));
  search = new SweepView();
  const element = h("div", { class: "runs" }, list.element, view.element, search.element, emptyState());
  list.onEmpty = (empty) => element.classList.toggle("empty", empty);
  const here = route.tab === "runs";
  show(here ? route.run : "", here ? route.sweep : "");
  askNow();
  return element;
}

function emptyState() {
  return h(
    "div",
    { class: "st-empty runs-empty" },
    h("h2", {}, say("runs.empty")),
    h("p", {}, say("runs.empty.next")),
    h("button", { type: "button", class: "st-button primary", onclick: () => go("train") }, say("runs.empty.go")),
  );
}

class RunsList {
  constructor() {
    this.version = null;
    this.most = PAGE;
    this.total = null;
    this.rows = new Map();
    this.searches = new SweepsList();
    this.searches.onChange = () => this.#mark();
    this.onEmpty = () => {};
    this.items = h("div", { class: "runs-items", role: "listbox", "aria-label": say("runs.list") });
    this.items.addEventListener("keydown", (event) => this.#move(event));
    this.more = h("button", { type: "button", class: "st-button small", hidden: true, onclick: () => this.#showMore() });
    const head = h("h2", {}, say("runs.title"));
    this.element = h("aside", { class: "runs-list" }, this.searches.element, head, this.items, this.more);
  }

  /** Fetch the list if it has changed; move the live run's figures along either way. */
  async update({ runs_version: version, runs_total: total, live }) {
    if (version !== this.version) {
      this.version = version;
      this.#draw(await get(`runs?most=${this.most}`), total);
    }
    const row = live && this.rows.get(live.id);
    if (row) put(row.note, this.#note(live));
  }

  /** The line under a run's name, and of which search it is a trial. */
  #note(line) {
    const trial = this.searches.trials.get(line.id);
    return trial ? `${say("sweeps.trial", trial)} · ${note(line)}` : note(line);
  }

  #mark() {
    for (const row of this.rows.values()) {
      const trial = this.searches.trials.get(row.line.id);
      if (trial) row.note.title = say("sweeps.trial.of", trial);
      put(row.note, this.#note(row.line));
    }
    this.#tellEmpty();
  }

  #tellEmpty() {
    const searched = this.searches.lines.length > 0;
    this.element.classList.toggle("searched", searched);
    this.onEmpty(this.total === 0 && !searched);
  }

  choose(run) {
    for (const [id, row] of this.rows) {
      row.element.setAttribute("aria-selected", String(id === run));
      row.element.tabIndex = id === run ? 0 : -1;
    }
    if (!this.rows.has(run)) [...this.rows.values()].slice(0, 1).forEach((row) => (row.element.tabIndex = 0));
  }

  #draw(lines, total) {
    const focused = this.items.contains(document.activeElement) ? document.activeElement.dataset.run : null;
    this.rows = new Map(lines.map((line) => [line.id, rowOf(line)]));
    this.items.replaceChildren(...[...this.rows.values()].map((row) => row.element));
    this.more.hidden = total <= lines.length;
    put(this.more, say("runs.more", { count: total - lines.length }));
    this.total = total;
    this.#mark();
    if (!route.run && !route.sweep && lines.length) {
      const first = lines.find((line) => ["running", "stopping"].includes(line.status)) ?? lines[0];
      go("runs", first.id, { replace: true });
    }
    this.choose(route.run);
    this.rows.get(focused)?.element.focus();
  }

  #showMore() {
    this.most += PAGE;
    this.version = null;
    askNow();
  }

  #move(event) {
    const rows = [...this.rows.values()].map((row) => row.element);
    const place = rows.indexOf(document.activeElement);
    const target = { ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (target === undefined || !rows[target]) return;
    event.preventDefault();
    rows[target].focus();
    go("runs", rows[target].dataset.run, { replace: true });
  }
}

function rowOf(line) {
  const dot = h("span", { class: "dot", "data-status": line.status });
  const best = line.best_eval_loss ?? line.loss;
  const words = line.best_eval_loss === null ? say("runs.loss") : say("runs.best");
  const under = h("span", { class: "under" });
  const element = h(
    "button",
    {
      type: "button",
      role: "option",
      class: "runs-item",
      "data-run": line.id,
      title: line.cause || null,
      onclick: () => go("runs", line.id),
    },
    dot,
    h("span", { class: "name" }, line.name),
    h("span", { class: "num best", title: words }, best === null ? "" : loss(best)),
    under,
    h("span", { class: "num when" }, when(line.started)),
  );
  return { element, note: under, line };
}

/** The line under a run's name: its state where that is news, else what it was. */
function note(line) {
  const words = say(`status.${line.status}`);
  if (line.status === "running" && line.max_steps) {
    const share = `${Math.floor((100 * line.step) / line.max_steps)} %`;
    return line.eta === null ? share : `${share} · ${say("header.left", { time: roughly(line.eta) })}`;
  }
  if (!line.method) return words;
  const kind = line.adapter === "full" ? line.method.toUpperCase() : `${line.method.toUpperCase()} ${line.adapter}`;
  return line.status === "finished" ? kind : `${words} · ${kind}`;
}
