// "Will it fit?" on the Train tab: asks what the form as it stands would take, and draws the answer in place.
//
// The form's values come with the same pulse that Gradio's own look goes by, without a way to the server and back.
// Two questions for each: one that is answered at once, and one for what takes longer; an answer to older values is left.

import { FitExact } from "./fitexact.js";
import { change, FitMend } from "./fitmend.js";
import { drawMethods } from "./fitmodels.js";
import { FitParts } from "./fitparts.js";
import { h, put, say } from "./dom.js";
import { get, onAnswer, post } from "./live.js";
import { go, onRoute, route } from "./route.js";

const CARDS = [6, 8, 10, 11, 12, 16, 20, 24, 32, 40, 48, 80, 96, 141];
const KEPT_AS = "studio.fit.card";
const SOON = 700; // milliseconds until what is still being found out is asked for again
const MOVED = 0.2 * 2 ** 30; // bytes of memory taken or freed by others that are worth a new look
const CALM = 3000; // milliseconds between two such looks
const PATIENT = 10_000; // milliseconds that an answer may take before another look is taken nonetheless
const TYPED = 60; // milliseconds without a key before the form is looked at
const ALIKE = 0.03; // of what is free: a smaller move leaves the largest batch and length as they were
const LATER = 400; // milliseconds after the answer before what takes longer is asked for

let fit = null;

export function buildFit() {
  fit ??= new Fit();
  return fit.element;
}

/** The line beside Start, where the run is too large for this machine. */
export function buildWarning() {
  fit ??= new Fit();
  return fit.warning;
}

window.addEventListener("studio:form", () => fit?.told());
document.addEventListener("input", (event) => typed(event.target));
onRoute(({ tab }) => tab === "train" && void fit?.ask());
onAnswer(({ device }) => fit?.seen(device?.used ?? null));

/** What is typed or switched is known before Gradio has gone its way: its word comes later and mends what was missed. */
function typed(target) {
  const form = window.studioForm;
  const knob = target.closest?.(".train-form .knob");
  if (!fit || !form || !knob || target.matches("[role=combobox]")) return;
  const name = Object.keys(form).find((one) => knob.id === `knob-${one.replaceAll(".", "-")}`);
  if (!name || Array.isArray(form[name])) return;
  const value = target.type === "checkbox" ? target.checked : target.value;
  window.studioForm = { ...form, [name]: value };
  fit.soon(["checkbox", "radio"].includes(target.type) ? 0 : TYPED);
}

class Fit {
  constructor() {
    this.asked = 0;
    this.used = null;
    this.aborts = null;
    this.#make();
    this.element = h(
      "section",
      { class: "fit", "aria-labelledby": "fit-title", "data-state": "waiting" },
      h("div", { class: "fit-head" }, h("h3", { id: "fit-title" }, say("fit.title")), this.card),
      this.verdict,
      this.note,
      this.body,
    );
    void this.#here();
    this.ask();
  }

  #make() {
    this.card = h("select", { class: "fit-card", "aria-label": say("fit.card.label") });
    this.here = h("option", { value: "" }, say("fit.card.here"));
    const sizes = CARDS.map((size) => h("option", { value: size }, say("fit.card.if", { size })));
    this.card.append(this.here, h("optgroup", { label: say("fit.card.ifs") }, sizes));
    const kept = localStorage.getItem(KEPT_AS) ?? "";
    this.card.value = CARDS.includes(Number(kept)) ? kept : "";
    this.card.addEventListener("change", () => this.#picked());
    this.verdict = h("p", { class: "fit-verdict", role: "status" }, say("fit.waiting"));
    this.note = h("p", { class: "st-hint", hidden: true });
    this.parts = new FitParts();
    this.moment = h("p", { class: "st-hint" });
    this.largest = h("dl", { class: "fit-largest" });
    this.notes = h("ul", { class: "fit-notes", hidden: true });
    this.mend = new FitMend();
    this.cost = h("p", { class: "fit-cost num" });
    this.last = h("button", { type: "button", class: "fit-link num", title: say("fit.last.tip"), hidden: true });
    this.last.addEventListener("click", () => go("runs", this.last.dataset.run));
    this.exact = new FitExact(() => this.#question());
    this.body = h(
      "div",
      { class: "fit-body", hidden: true },
      this.parts.element,
      this.moment,
      this.largest,
      this.mend.element,
      this.notes,
      h("div", { class: "fit-foot" }, this.cost, this.last, this.exact.element),
    );
    this.mendStart = h("button", { type: "button", class: "st-button small" });
    this.mendStart.addEventListener("click", () => (this.card.value ? this.#toHere() : this.mend.all()));
    this.warning = h(
      "div",
      { class: "st-note warn advice", hidden: true, role: "status" },
      h("span", {}, say("fit.start.over")),
      this.mendStart,
    );
  }

  async #here() {
    try {
      put(this.here, (await get("estimate/here")).label);
    } catch {
      // its plain name stays
    }
  }

  #picked() {
    localStorage.setItem(KEPT_AS, this.card.value);
    this.ask();
  }

  #toHere() {
    this.card.value = "";
    this.#picked();
    this.card.focus();
  }

  #question() {
    return { values: window.studioForm, card: this.card.value ? Number(this.card.value) : null };
  }

  /** Memory was taken or freed by others: what is free is another figure now. */
  seen(used) {
    if (route.tab !== "train" || used === null) return;
    if (this.used !== null && Math.abs(used - this.used) < MOVED) return;
    const now = performance.now();
    if (this.used !== null && now - this.looked < CALM) return;
    if (!this.settled && now - this.begun < PATIENT) return; // an answer is under way: it would be given up
    const first = this.used === null;
    this.used = used;
    this.looked = now;
    if (!first && !this.card.value) void this.ask(true);
  }

  /** The form's values have come; those that were typed here were asked about already. */
  told() {
    if (JSON.stringify(window.studioForm) !== this.about) void this.ask();
  }

  soon(pause) {
    clearTimeout(this.pause);
    this.asked += 1; // what is still being answered was asked about the form before
    this.pause = setTimeout(() => void this.ask(), pause);
  }

  /** Ask anew; whatever was asked before no longer counts. `calm`: the form is the same, only what is free has moved. */
  async ask(calm = false) {
    if (!window.studioForm || route.tab !== "train") return;
    clearTimeout(this.timer);
    clearTimeout(this.pause);
    const number = ++this.asked;
    this.about = JSON.stringify(window.studioForm);
    if (!calm) {
      this.settled = null;
      this.begun = performance.now();
    }
    this.aborts?.abort();
    this.aborts = new AbortController();
    const { signal } = this.aborts;
    try {
      const told = await post("estimate", this.#question(), signal);
      if (number !== this.asked) return;
      this.#draw(told);
      if (told.state === "ready" && !(calm && this.#alike(told))) {
        this.timer = setTimeout(() => void this.#more(number, signal), LATER);
      } else if (told.again) this.timer = setTimeout(() => void this.ask(true), SOON);
    } catch (problem) {
      if (number === this.asked && problem.name !== "AbortError") this.#failed(problem);
    }
  }

  async #more(number, signal) {
    try {
      const told = await post("estimate", { ...this.#question(), more: true }, signal);
      if (number !== this.asked) return;
      if (told.more) this.settled = { free: told.free, state: told.verdict.state, counted: told.counted };
      this.#draw(told);
      if (told.again) this.timer = setTimeout(() => void this.ask(true), SOON);
    } catch (problem) {
      if (number === this.asked && problem.name !== "AbortError") this.#failed(problem);
    }
  }

  /** Whether what took longer still holds, near enough. */
  #alike({ free, verdict, counted }) {
    const before = this.settled;
    return before?.state === verdict.state && before.counted === counted && Math.abs(free - before.free) < ALIKE * free;
  }

  #failed({ message }) {
    this.element.dataset.state = "unknown";
    put(this.verdict, message);
  }

  #draw(told) {
    if (told.state === "invalid") return this.#invalid();
    const ready = told.state === "ready";
    this.element.classList.remove("old");
    this.element.dataset.state = ready ? told.verdict.state : told.state;
    this.body.hidden = !ready;
    put(this.verdict, ready ? told.verdict.text : told.text);
    put(this.note, ready ? "" : told.note);
    this.note.hidden = ready || !told.note;
    this.#warn(ready ? told.here : "");
    const merge = document.getElementById("merge-later"); // known by now, maybe, and not yet when the plan was drawn
    if (merge && told.merge) put(merge, told.merge);
    if (!ready) return;
    this.verdict.title = told.range;
    this.parts.draw(told);
    put(this.moment, `${told.moment} ${told.lengths}`);
    this.notes.hidden = !told.notes.length;
    this.notes.replaceChildren(...told.notes.map(({ state, text }) => h("li", { "data-state": state }, text)));
    put(this.cost, told.cost);
    this.last.hidden = !told.last;
    if (told.last) {
      put(this.last, told.last.text);
      this.last.dataset.run = told.last.run;
    }
    this.exact.instant(told.instant);
    this.mend.about(told.verdict.state);
    const pending = !told.more && !this.settled; // what takes longer is still that of before
    this.body.classList.toggle("pending", pending);
    if (pending) this.mend.old();
    if (told.more) {
      this.#drawLargest(told.more.largest);
      this.mend.draw(told.more.mend);
    }
    drawMethods(this.#question());
  }

  /** Half a number is no mistake yet: the figures of before stay, as such. */
  #invalid() {
    this.element.classList.add("old");
    this.note.hidden = false;
    put(this.note, say(this.body.hidden ? "fit.invalid.first" : "fit.invalid"));
    if (this.body.hidden) put(this.verdict, "");
  }

  #warn(state) {
    this.warning.hidden = state !== "over";
    put(this.mendStart, say(this.card.value ? "fit.start.here" : "fit.mend"));
  }

  #drawLargest(rows) {
    if (JSON.stringify(rows) === this.drawn) return;
    this.drawn = JSON.stringify(rows);
    const focused = this.largest.contains(document.activeElement) ? document.activeElement.dataset.row : null;
    this.largest.replaceChildren(...rows.map((row) => h("div", {}, h("dt", {}, row.title), h("dd", {}, largest(row)))));
    if (focused) this.largest.querySelector(`[data-row="${CSS.escape(focused)}"]`)?.focus();
  }
}

/** The most that fits: a button that sets the knob, unless it stands so already. */
function largest({ title, text, set, changes }) {
  if (!Object.keys(changes).length) return h("span", { class: "num" }, text);
  const attributes = { type: "button", class: "fit-link num", "aria-label": set, title: set, "data-row": title };
  return h("button", { ...attributes, onclick: () => change(changes) }, text);
}

