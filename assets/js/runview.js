// One run: what it is doing, its curves, and what can be done with it.

import { Chart, Charts } from "./charts.js";
import { h, put, say, term } from "./dom.js";
import { bytes, duration, epoch, integer, kilowattHours, loss, rate, roughly, short, signed, watts, when } from "./format.js";
import { get } from "./live.js";
import { RunActions } from "./runactions.js";
import { Folds } from "./runfolds.js";
import { go } from "./route.js";
import { Series } from "./series.js";
import { RateCurve } from "./sweeprate.js";

const plain = { value: (value) => short(value), axis: short };
const FIGURES = ["step", "epoch", "elapsed", "left", "speed", "train_loss", "eval_loss", "best_eval_loss"];
// What methods that judge answers tell beside their loss, by TRL's names.
const JUDGED = ["rewards/accuracies", "rewards/margins", "accuracy", "margin", "kl"];
const EXPLAINED = ["epoch", "speed", "train_loss", "eval_loss"];

export class RunView {
  /** `trialOf(run)` says of which search a run is a trial, if it is one. */
  constructor(trialOf) {
    this.trialOf = trialOf;
    this.id = "";
    this.choose = h("p", { class: "st-hint" }, say("runs.choose"));
    this.body = h("div", { class: "run-body" });
    this.element = h("section", { class: "run", "aria-live": "off" }, this.choose, this.body);
    window.addEventListener("studio:mode", () => this.charts?.rebuild());
    document.fonts.ready.then(() => this.charts?.rebuild());
  }

  /** What to ask the server for at each tick. */
  question() {
    if (!this.id) return {};
    return { run: this.id, offset: this.series.offset, log_offset: this.folds.logOffset };
  }

  /** Show another run; its figures come with the next answer. */
  show(id) {
    if (id === this.id) return;
    this.charts?.destroy();
    this.id = id;
    this.series = new Series();
    this.drawn = -1;
    this.detailsOf = null;
    this.choose.hidden = Boolean(id);
    this.body.replaceChildren(...(id ? this.#build() : []));
  }

  update(run) {
    if (run.status === null) return this.#gone();
    this.series.take(run);
    this.#head(run);
    this.#figures(run);
    this.actions.update(run);
    this.body.classList.toggle("finder", run.finder);
    if (run.finder) this.rates.update(run, this.series);
    if (this.series.changes !== this.drawn) {
      this.drawn = this.series.changes;
      this.charts.draw(this.series);
      this.folds.drawTable(this.series);
    }
    this.folds.appendLog(run);
    if (run.details_version !== this.detailsOf) void this.#details(run);
  }

  #build() {
    this.name = h("h2", {});
    this.pill = h("span", { class: "st-pill" });
    this.attempt = h("span", { class: "attempt", hidden: true });
    this.finds = h("span", { class: "st-pill", hidden: true }, say("sweep.rate.pill"));
    this.trial = h("button", { type: "button", class: "fit-link", hidden: true });
    this.trial.addEventListener("click", () => go("runs", "", { sweep: this.trial.dataset.sweep }));
    this.about = h("p", { class: "about" });
    this.cause = h("p", { class: "cause", hidden: true });
    this.actions = new RunActions(this.id);
    this.fill = h("span", { class: "fill" });
    this.bar = h("div", { class: "bar", "aria-hidden": "true" }, this.fill);
    this.values = Object.fromEntries(FIGURES.map((key) => [key, h("dd", { class: "num" })]));
    const word = (key) => (EXPLAINED.includes(key) ? term(say(`runs.${key}`), say(`runs.${key}.info`)) : say(`runs.${key}`));
    const figures = FIGURES.map((key) => h("div", {}, h("dt", {}, word(key)), this.values[key]));
    this.took = h("p", { class: "about took", hidden: true });
    this.folds = new Folds();
    this.rates = new RateCurve(this.id);
    const title = h("div", { class: "title" }, this.name, this.pill, this.finds, this.attempt, this.trial);
    return [
      h("header", {}, title, this.about, this.cause),
      this.actions.element,
      this.bar,
      h("dl", { class: "run-figures" }, figures),
      this.took,
      this.rates.element,
      this.#buildCharts(),
      this.folds.element,
    ];
  }

  #buildCharts() {
    const lossFormat = { value: loss, axis: short };
    const line = (name, token, rest = {}) => ({ name, token, ...rest });
    const main = new Chart({
      title: say("runs.curve.loss"),
      height: 280,
      log: true,
      format: lossFormat,
      lines: [
        line("loss", "curve-a", { label: say("runs.train_loss"), smoothed: true }),
        line("eval_loss", "curve-b", { label: say("runs.eval_loss"), dots: true }),
      ],
    });
    const small = (name, format, smoothed) =>
      new Chart({ title: say(`runs.curve.${name}`), height: 130, format, lines: [line(name, "curve-a", { smoothed })] });
    const judged = (name) =>
      new Chart({
        title: say(`runs.curve.${name}`),
        height: 130,
        format: plain,
        optional: true,
        lines: [
          line(name, "curve-a", { label: say("runs.curve.train"), smoothed: true }),
          line(`eval_${name}`, "curve-b", { label: say("runs.curve.held_out"), dots: true }),
        ],
      });
    const others = [
      small("learning_rate", { value: rate, axis: rate }, false),
      small("grad_norm", plain, true),
      small("tokens_per_second", { value: integer, axis: short }, true),
      ...JUDGED.map(judged),
    ];
    this.charts = new Charts([main, ...others]);
    const grid = h("div", { class: "chart-grid" }, others.map((chart) => chart.element));
    return h("section", { class: "charts" }, this.#tools(), main.element, grid);
  }

  #tools() {
    const kept = (name, otherwise) => localStorage.getItem(`studio.${name}`) ?? otherwise;
    const keep = (name, value) => localStorage.setItem(`studio.${name}`, String(value));
    const shown = h("output", { class: "num" });
    const slider = h("input", { type: "range", min: 0, max: 0.99, step: 0.01, value: kept("smoothing", 0.6) });
    const log = h("input", { type: "checkbox" });
    log.checked = kept("log", "false") === "true";
    const set = () => {
      put(shown, Number(slider.value).toFixed(2));
      slider.style.setProperty("--range_progress", `${100 * slider.value}%`);
      keep("smoothing", slider.value);
      keep("log", log.checked);
      this.charts.set({ weight: Number(slider.value), log: log.checked });
    };
    slider.addEventListener("input", set);
    log.addEventListener("change", set);
    const all = h("button", { type: "button", class: "st-button small", hidden: true }, say("runs.zoom.all"));
    all.addEventListener("click", () => this.charts.setZoom(null));
    const hint = h("span", { class: "hint" }, say("runs.zoom"));
    this.charts.onZoom = (zoomed) => {
      all.hidden = !zoomed;
      hint.hidden = zoomed;
    };
    set();
    return h(
      "div",
      { class: "chart-tools" },
      h("label", {}, say("runs.smoothing"), slider, shown),
      h("label", {}, log, say("runs.log_axis")),
      hint,
      all,
    );
  }

  #head(run) {
    const key = run.not_responding ? "silent" : run.status;
    put(this.name, run.name);
    put(this.pill, say(`status.${key}`));
    this.pill.dataset.status = run.not_responding ? "interrupted" : run.status;
    this.attempt.hidden = run.attempt < 2;
    put(this.attempt, say("runs.attempt", { number: run.attempt }));
    this.finds.hidden = !run.finder;
    const trial = this.trialOf(run.id);
    this.trial.hidden = !trial;
    if (trial) {
      put(this.trial, say("sweeps.trial.of", trial));
      this.trial.dataset.sweep = trial.sweep;
    }
    const why = ["queued", "stopping", "silent"].includes(key) ? say(`status.${key}.why`) : "";
    put(this.cause, [run.cause, run.hint].filter(Boolean).join(" ") || why || stage(run));
    this.cause.hidden = !this.cause.textContent;
    this.cause.dataset.status = run.status;
    this.bar.hidden = !run.can.stop && run.status !== "stopping";
    this.fill.style.width = run.max_steps ? `${(100 * run.step) / run.max_steps}%` : "0";
  }

  #figures(run) {
    const values = this.values;
    put(values.step, run.max_steps ? `${integer(run.step)} / ${integer(run.max_steps)}` : integer(run.step));
    put(values.epoch, epoch(run.epoch));
    put(values.elapsed, duration(run.elapsed));
    put(values.left, run.eta === null ? "–" : roughly(run.eta));
    put(values.speed, integer(this.series.latest("tokens_per_second")));
    put(values.train_loss, loss(this.series.latest("loss")));
    put(values.eval_loss, loss(this.series.latest("eval_loss")));
    put(values.best_eval_loss, loss(this.series.lowest("eval_loss")));
  }

  async #details(run) {
    this.detailsOf = run.details_version;
    const details = await get(`runs/${encodeURIComponent(run.id)}`).catch(() => null);
    if (details && details.id === this.id) {
      const kind = details.adapter ? `${details.method.toUpperCase()} ${details.adapter}` : details.method.toUpperCase();
      const started = details.started ? say("runs.about.started", { when: when(details.started) }) : "";
      put(this.about, [kind, details.model, details.dataset, started].filter(Boolean).join(" · "));
      put(this.took, took(details.took));
      this.took.hidden = !details.took;
      this.folds.details(details);
      this.actions.details(details);
      if (run.finder) this.rates.details(details, run.status);
    }
  }

  /** Deleted, or never there: said once, and not asked for again. */
  #gone() {
    this.charts.destroy();
    this.id = "";
    const words = [h("h2", {}, say("runs.missing")), h("p", {}, say("runs.missing.next"))];
    this.body.replaceChildren(h("div", { class: "st-empty" }, words));
  }
}

/** What a run that has ended took, beside what was predicted. */
function took(seen) {
  if (!seen) return "";
  const { predicted, measured, error, kwh, watts: draw } = seen;
  const words = { predicted: bytes(predicted), measured: bytes(measured), error: signed(error) };
  const told = [say(predicted ? "runs.took" : "runs.took.measured", words)];
  if (kwh) told.push(say("runs.took.energy", { kwh: kilowattHours(kwh) }));
  if (draw) told.push(say("runs.took.draw", { watts: watts(draw) }));
  return told.join(" · ");
}

/** What a live run is doing beside its steps: loading, saving, evaluating. */
function stage(run) {
  if (!run.stage || !run.stage.text) return "";
  const { text, done, total, unit } = run.stage;
  if (done === null || !total) return text;
  const count = unit === "bytes" ? `${bytes(done)} / ${bytes(total)}` : `${integer(done)} / ${integer(total)} ${unit}`;
  return `${text} ${count}`.trim();
}
