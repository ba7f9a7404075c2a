// The Export tab: a run, where it is going, what that takes; the exports there have been beside it.

import { fault } from "./dataask.js";
import { h, put, say } from "./dom.js";
import { ExportJobs } from "./exportjobs.js";
import { get, post } from "./live.js";
import { go, onRoute, route } from "./route.js";

const PAUSE = 200; // milliseconds without a key before what was typed is looked at
const OPEN = "studio.export.choices"; // whether the choices were left open
const PLAIN = { dtype: "auto", quantization: "auto", shard_size: 5, quantized_base: "original", parity: true };
let tab = null;

export function buildExport() {
  tab = new ExportTab();
  return tab.element;
}

onRoute(({ tab: opened }) => {
  if (tab && opened === "export") void tab.show();
});

class ExportTab {
  constructor() {
    this.choices = { format: "merged", ...PLAIN };
    this.suggested = "";
    this.asked = 0;
    this.told = null;
    this.#make();
    this.jobs = new ExportJobs((choices) => this.#again(choices), () => void this.#plan());
    this.form = h("form", { class: "export-form" }, this.#fields());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#start();
    });
    this.empty = h("div", { id: "export-empty", hidden: true });
    this.problem = h("div", { id: "export-trouble", role: "alert" });
    this.columns = h("div", { class: "export", hidden: true }, this.form, this.jobs.element);
    this.element = h("div", {}, this.empty, this.problem, this.columns);
    void this.show();
  }

  #make() {
    this.run = h("select", { class: "st-input", "aria-label": say("export.run") });
    this.run.addEventListener("change", () => go("export", this.run.value));
    this.missing = h("p", { class: "st-hint", role: "status", hidden: true }, say("export.missing"));
    this.cards = h("div", { class: "export-cards", role: "radiogroup", "aria-label": say("export.targets") });
    this.cards.addEventListener("change", (event) => this.#picked(event.target));
    this.inputs = h("div", { class: "export-choices" });
    this.fold = h("details", { class: "st-fold", open: localStorage.getItem(OPEN) === "yes" }, h("summary", {}, say("export.choices")), this.inputs);
    this.fold.addEventListener("toggle", () => localStorage.setItem(OPEN, this.fold.open ? "yes" : "no"));
    this.out = h("input", { class: "st-input", type: "text", spellcheck: "false", autocomplete: "off" });
    this.out.addEventListener("input", () => this.#later());
    this.place = h("button", { type: "button", class: "st-button small", hidden: true, onclick: () => this.#there() });
    this.lines = h("ul", { class: "export-lines", role: "status" });
    this.fault = h("div", { id: "export-problem" });
    this.start = h("button", { type: "submit", class: "st-button primary", id: "export-start", disabled: true }, say("export.start"));
  }

  #fields() {
    return [
      h("label", { class: "field", id: "export-run" }, h("span", { class: "of" }, say("export.run")), this.run, this.missing),
      h("h2", {}, say("export.targets")),
      this.cards,
      h(
        "label",
        { class: "field", id: "export-out" },
        h("span", { class: "of" }, say("export.out"), h("code", { class: "st-arg" }, "out")),
        this.out,
        h("span", { class: "st-hint" }, say("export.out.note")),
      ),
      this.place,
      h("h3", {}, say("export.before")),
      this.lines,
      this.fault,
      this.start,
    ];
  }

  /** The tab was come to: runs may have finished, and the address may name one. */
  async show() {
    if (route.tab !== "export") return;
    void this.jobs.look();
    try {
      const { runs } = await get("export/runs");
      this.problem.replaceChildren();
      this.#offer(runs);
    } catch (problem) {
      this.problem.replaceChildren(fault(problem.message));
    }
  }

  #offer(runs) {
    this.columns.hidden = false;
    this.form.hidden = !runs.length;
    this.columns.classList.toggle("alone", !runs.length);
    this.empty.hidden = runs.length > 0;
    if (!runs.length) {
      const there = h("button", { type: "button", class: "st-button primary", onclick: () => go("train") }, say("export.empty.go"));
      this.empty.replaceChildren(
        h("div", { class: "st-empty" }, h("h2", {}, say("export.empty")), h("p", {}, say("export.empty.next")), there),
      );
      return;
    }
    const known = runs.some(({ id }) => id === route.run);
    this.missing.hidden = !route.run || known;
    const chosen = known ? route.run : runs.some(({ id }) => id === this.run.value) ? this.run.value : runs[0].id;
    const other = chosen !== this.run.value;
    this.run.replaceChildren(...runs.map(({ id, label }) => h("option", { value: id }, `${label} (${id})`)));
    this.run.value = chosen;
    if (other) this.suggested = this.out.value = "";
    void this.#plan();
  }

  #picked(target) {
    if (target.name === "export-format") {
      const moved = this.out.value === this.suggested;
      this.choices = { ...PLAIN, parity: this.choices.parity, format: target.value };
      if (moved) this.out.value = this.suggested = "";
    } else if (target.dataset.choice) this.#choose(target);
    void this.#plan();
  }

  #choose(target) {
    const { choice } = target.dataset;
    if (choice === "parity") this.choices.parity = target.checked;
    else if (choice === "shard_size") this.choices.shard_size = Number(target.value.replace(",", ".")) || target.value;
    else this.choices[choice] = target.value;
  }

  /** The choices of an earlier export, for the run it was of if that is still here. */
  #again({ run, ...choices }) {
    this.choices = { ...PLAIN, ...Object.fromEntries(Object.keys(this.choices).map((name) => [name, choices[name] ?? PLAIN[name]])) };
    this.out.value = this.suggested = "";
    if ([...this.run.options].some(({ value }) => value === run) && run !== this.run.value) go("export", run);
    else void this.#plan();
    this.form.scrollIntoView({ block: "start", behavior: "smooth" });
  }

  /** A target that a program looks into by itself, at one click. */
  #there() {
    this.out.value = this.told.place.path;
    this.out.focus();
    void this.#plan();
  }

  /** What was typed is asked about once the typing pauses; what is still being answered was asked about the text before. */
  #later() {
    this.asked += 1;
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => void this.#plan(), PAUSE);
  }

  #body() {
    return { run: this.run.value, ...this.choices, out: this.out.value };
  }

  /** Ask what these choices would take; an answer to older ones is left. */
  async #plan() {
    clearTimeout(this.waiting);
    const number = ++this.asked;
    const body = this.#body();
    if (!body.out && !this.suggested) body.out = null;
    try {
      const told = await post("export/plan", body);
      if (number === this.asked) this.#draw(told);
    } catch (problem) {
      if (number !== this.asked) return;
      this.fault.replaceChildren(fault(problem.message));
      this.start.disabled = true;
    }
  }

  #draw(told) {
    this.fault.replaceChildren();
    if (!this.suggested && !this.out.value) this.out.value = told.suggested;
    this.suggested = told.suggested;
    const same = this.told?.run === told.run && this.told.format === told.format;
    this.#drawCards(told, same);
    this.told = told;
    this.place.hidden = !told.place;
    if (told.place) {
      put(this.place, told.place.title);
      this.place.title = told.place.path;
    }
    this.lines.replaceChildren(...told.lines.map(({ state, text, key }) => h("li", { "data-state": state, "data-key": key }, text)));
    document.getElementById("export-out")?.classList.toggle("bad", told.lines.some(({ key, state }) => key === "target" && state === "bad"));
    this.start.disabled = Boolean(told.reason);
    this.start.title = told.reason;
  }

  /** The cards are made anew only for another run: whoever is in one of them stays there. */
  #drawCards({ cards, format, choices, run }, same) {
    if (this.told?.run !== run || !this.cards.childElementCount) this.cards.replaceChildren(...cards.map(card));
    for (const one of cards) {
      const element = this.cards.querySelector(`[data-format="${one.format}"]`);
      element.querySelector("input").checked = one.format === format;
      element.classList.toggle("chosen", one.format === format);
      put(element.querySelector(".size"), one.size);
      if (one.format === format) {
        const names = choices.map(({ name, options }) => [name, options.map(({ title }) => title)]).join();
        if (!same || names !== this.drawn) this.inputs.replaceChildren(...choices.map((choice) => control(choice, this.choices)));
        this.drawn = names;
        if (choices.length && !one.cannot) element.after(this.fold);
        else this.fold.remove();
      }
    }
  }

  async #start() {
    this.start.disabled = true;
    this.fault.replaceChildren();
    try {
      const { job } = await post("export/start", this.#body());
      this.out.value = this.suggested = "";
      await this.jobs.look();
      this.jobs.reveal(job);
      void this.#plan();
    } catch (problem) {
      this.fault.replaceChildren(fault(problem.message));
      this.start.disabled = false;
    }
  }
}

function card({ format, title, note, size, cannot }) {
  const radio = h("input", { type: "radio", name: "export-format", value: format });
  return h(
    "label",
    { class: `export-card${cannot ? " cannot" : ""}`, "data-format": format },
    radio,
    h("span", { class: "title" }, title),
    h("span", { class: "size num" }, size),
    h("span", { class: "note" }, cannot || note),
  );
}

/** One choice: a list, a number or a switch. */
function control({ name, title, note, options }, now) {
  const words = h("span", { class: "of" }, title, h("code", { class: "st-arg" }, name));
  const hint = h("span", { class: "st-hint" }, note);
  if (options.length) {
    const list = h("select", { class: "st-input", "data-choice": name }, options.map((one) => h("option", { value: one.value }, one.title)));
    list.value = now[name];
    return h("label", { class: "field" }, words, list, hint);
  }
  if (name === "parity") {
    const box = h("input", { type: "checkbox", "data-choice": name });
    box.checked = now.parity;
    return h("label", { class: "field switch" }, box, words, hint);
  }
  return h("label", { class: "field" }, words, h("input", { class: "st-input num short", inputmode: "decimal", "data-choice": name, value: now[name] }), hint);
}
