// What stands folded under a run's curves: the numbers as a table, the log, the settings, and what was noted.

import { copyButton, h, put, say } from "./dom.js";
import { integer, loss, rate, short, when } from "./format.js";
import { askNow } from "./live.js";
import { align } from "./series.js";

const ROWS = 1000; // of the table at most: the newest
const LOG_KEPT = 400_000; // characters of the log that the page holds
const COLUMNS = [
  ["loss", loss],
  ["eval_loss", loss],
  ["learning_rate", rate],
  ["grad_norm", short],
  ["tokens_per_second", integer],
];

export class Folds {
  constructor() {
    this.logOffset = null; // nobody looks at the log: it isn't asked for
    this.series = null;
    this.notes = h("ul", { class: "run-notes", hidden: true });
    this.facts = h("dl", { class: "st-facts" });
    this.yaml = h("pre", { class: "st-code" });
    this.command = h("pre", { class: "st-code" });
    this.log = h("pre", { class: "st-code log", tabindex: "0" }, say("runs.log.empty"));
    this.table = h("div", { class: "table-frame", tabindex: "0" });
    this.cut = h("p", { class: "under", hidden: true });
    const block = (title, body) =>
      h("div", { class: "code-block" }, h("h4", {}, title, copyButton(() => body.textContent)), body);
    this.tableFold = fold(say("runs.table"), this.table, this.cut);
    this.tableFold.addEventListener("toggle", () => this.drawTable(this.series));
    this.logFold = fold(say("runs.log"), this.log);
    this.logFold.addEventListener("toggle", () => this.#toggleLog());
    const settings = [this.facts, block(say("runs.config.yaml"), this.yaml), block(say("runs.config.command"), this.command)];
    this.element = h(
      "section",
      { class: "run-folds" },
      this.notes,
      this.tableFold,
      this.logFold,
      fold(say("runs.config"), ...settings),
    );
  }

  details(details) {
    const notes = details.notes.map((note) => h("li", { class: `st-note ${note.level === "warning" ? "warn" : ""}` }, note.text));
    this.notes.replaceChildren(...notes);
    this.notes.hidden = notes.length === 0;
    put(this.yaml, details.yaml);
    put(this.command, details.command);
    const kind = details.adapter ? `${details.method} · ${details.adapter}` : details.method;
    const facts = [
      ["runs.model", details.model],
      ["runs.dataset", details.dataset],
      ["runs.method", kind],
      ["runs.started", when(details.started)],
      ["runs.device", details.device],
      ["runs.checkpoints", details.checkpoints.map(integer).join(", ")],
      ["runs.folder", details.folder],
    ];
    const told = facts.filter(([, value]) => value);
    this.facts.replaceChildren(...told.flatMap(([key, value]) => [h("dt", {}, say(key)), h("dd", {}, String(value))]));
  }

  appendLog({ log, log_offset: offset }) {
    if (log === undefined || this.logOffset === null) return;
    const first = this.logOffset < 0;
    this.logOffset = offset;
    if (!log) return;
    const atEnd = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 40;
    const text = first ? log : this.log.textContent + log;
    this.log.textContent = text.length > LOG_KEPT ? text.slice(-LOG_KEPT) : text;
    if (first || atEnd) this.log.scrollTop = this.log.scrollHeight;
  }

  drawTable(series) {
    this.series = series;
    if (!this.tableFold.open || !series) return;
    const there = COLUMNS.filter(([name]) => series.get(name).steps.length);
    const [steps, ...rows] = align(there.map(([name]) => series.get(name)));
    const first = Math.max(0, steps.length - ROWS);
    const head = [say("runs.step"), ...there.map(([name]) => say(`runs.curve.${name}`))];
    const lines = [];
    for (let place = steps.length - 1; place >= first; place -= 1) {
      const cells = there.map(([, format], column) => cell(rows[column][place], format));
      lines.push(h("tr", {}, h("th", { scope: "row", class: "num" }, integer(steps[place])), cells));
    }
    const top = h("thead", {}, h("tr", {}, head.map((word) => h("th", { scope: "col" }, word))));
    this.table.replaceChildren(h("table", { class: "st-table numbers" }, top, h("tbody", {}, lines)));
    this.cut.hidden = first === 0;
    put(this.cut, say("runs.table.cut", { count: integer(ROWS) }));
  }

  #toggleLog() {
    this.logOffset = this.logFold.open ? -1 : null;
    if (this.logFold.open) askNow();
  }
}

function cell(value, format) {
  const missing = value === null;
  const words = missing ? "NaN" : value === undefined ? "" : format(value);
  return h("td", { class: missing ? "num bad" : "num" }, words);
}

function fold(title, ...content) {
  return h("details", { class: "st-fold" }, h("summary", {}, title), h("div", { class: "inside" }, content));
}
