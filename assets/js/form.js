// The Train tab's form: all controls but two dropdowns of Gradio's, drawn from the sheet that comes with the page.
//
// The values of every knob stay here, also of methods and adapters that aren't chosen; controls are made when they are first looked at.
// Each change goes to Gradio as one JSON text, and what the server says of the form comes back as another.

import { appear, fill, fillPlaces, h, put } from "./dom.js";
import { makeControl } from "./formcontrol.js";
import { makeAdapter, makeMethod } from "./formpick.js";
import { makeRate } from "./formrate.js";

const PAUSE = 100; // milliseconds without a key before what is typed is looked at
const PICKED = ["model.name_or_path", "dataset.path"]; // Gradio's
const QUANTIZATION = "model.quantization";
const FIRST_QUANTIZATION = "nf4";
const BATCH = ["training.per_device_train_batch_size", "training.gradient_accumulation_steps"];
const IN_REWARDS = /^method\.\w+\.(reward_weights|allow_code)$/; // set within the control of the rewards
const KEPT_AS = "studio.folds";

let form = null;

/** Called by the hidden component that holds the values. */
export function mount({ props, trigger }) {
  form = new Form(props, trigger);
  fill("form-method", () => form.method.element);
  fill("form-how", () => form.how);
  fill("form-more", () => form.more);
  void appear("#form-more").then(fillPlaces);
  form.look();
}

/** What the server says of the form, as JSON. */
export const told = (text) => text && form?.said(JSON.parse(text));
export const look = () => form?.look();

/** Give controls these values, by name. */
export function change(values) {
  const picked = Object.fromEntries(Object.entries(values).filter(([name]) => PICKED.includes(name)));
  const drawn = Object.fromEntries(Object.entries(values).filter(([name]) => !PICKED.includes(name)));
  form?.put(drawn);
  if (Object.keys(picked).length) window.studio.pick?.(picked);
  else form?.look();
}

class Form {
  constructor(props, trigger) {
    this.props = props;
    this.trigger = trigger;
    this.sheet = props.sheet;
    this.values = JSON.parse(props.value);
    this.knobs = new Map(this.sheet.knobs.map((knob) => [knob.name, knob]));
    this.controls = new Map();
    this.known = {};
    this.method = makeMethod(this);
    this.adapter = makeAdapter(this);
    this.rate = makeRate(this.sheet.words);
    this.special = h("div", { class: "row knobs", hidden: true });
    this.effective = h("p", { class: "effective num", role: "status" });
    this.how = h("div", {}, this.adapter.element, this.special, this.#row(this.#basics()), h("div", { class: "row knobs batch" }, BATCH.map((name) => this.#control(name).element), this.effective));
    this.folds = new Map(this.sheet.folds.map((fold) => [fold.name, this.#fold(fold)]));
    this.more = h("div", {}, [...this.folds.values()].map(({ element }) => element));
    for (const element of [this.how, this.more, this.method.element]) this.#listen(element);
    this.#show();
    for (const name of kept()) this.folds.get(name)?.open(true);
  }

  // -- values -----------------------------------------------------------------------------------------------------------

  /** A control was changed by hand. `typed`: letter by letter; `more`: another change follows at once. */
  change(name, value, typed = false, more = false) {
    const before = this.values.adapter;
    this.values[name] = value;
    if (name === "adapter") this.#quantize(before, value);
    this.#give();
    if (name === "method" || name === "adapter" || name === QUANTIZATION) this.#show();
    if (more) return;
    clearTimeout(this.waiting);
    this.typed = typed;
    if (typed) this.waiting = setTimeout(() => this.trigger("input", { left: false }), PAUSE);
    else this.look();
  }

  /** Values that were set by the server or by another script. */
  put(values) {
    Object.assign(this.values, values);
    this.#give();
    this.#show();
    for (const [name, control] of this.controls) control.set(this.values[name]);
  }

  look() {
    clearTimeout(this.waiting);
    this.typed = false;
    this.trigger("input", { left: true });
  }

  #give() {
    this.props.value = JSON.stringify(this.values);
    if (!window.studioForm) return;
    window.studioForm = { ...window.studioForm, ...this.values };
  }

  /** What is typed is looked at once more when it is left, and then a mistake is one. */
  #listen(element) {
    element.addEventListener("focusout", () => this.typed && this.look());
    element.addEventListener("keydown", ({ key, target }) => key === "Enter" && target.matches("input") && this.look());
  }

  /** A kind of adapter that may go with any base begins with a plain one; QLoRA is quantized by its name. */
  #quantize(before, now) {
    const { unquantized, side } = this.sheet;
    if (unquantized.includes(before) && !side.includes(now)) this.values[QUANTIZATION] = "none";
    if (now === "qlora" && this.values[QUANTIZATION] === "none") this.values[QUANTIZATION] = FIRST_QUANTIZATION;
    this.controls.get(QUANTIZATION)?.set(this.values[QUANTIZATION]);
  }

  // -- what is shown ----------------------------------------------------------------------------------------------------

  #basics() {
    return this.sheet.knobs.filter(({ name, fold, of }) => !fold && !of && !BATCH.includes(name) && name !== QUANTIZATION).map(({ name }) => name);
  }

  #row(names) {
    return h("div", { class: "row knobs" }, names.map((name) => this.#control(name).element));
  }

  #control(name) {
    if (!this.controls.has(name)) {
      const control = makeControl(this.knobs.get(name), this);
      this.controls.set(name, control);
      control.suggest(this.#offered(name));
    }
    return this.controls.get(name);
  }

  #offered(name) {
    if (this.knobs.get(name).kind === "target_modules") return this.known.modules ?? [];
    return this.known.suggestions?.[name] ?? [];
  }

  /** Whether the chosen method and adapter have this knob, and it means something. */
  #asked({ name, of }) {
    const { method, adapter } = this.values;
    if (of && of !== method && of !== (adapter === "qlora" ? "lora" : adapter)) return false;
    if (IN_REWARDS.test(name)) return false;
    const plain = this.sheet.unquantized.includes(adapter);
    if (name === QUANTIZATION) return !plain;
    return !this.sheet.only_quantized.includes(name) || !(plain || this.values[QUANTIZATION] === "none");
  }

  #show() {
    this.method.set(this.values.method);
    this.adapter.set(this.values.adapter);
    const asked = this.sheet.knobs.filter((knob) => this.#asked(knob));
    const special = asked.filter(({ name, fold, of }) => !fold && (of || name === QUANTIZATION)).sort((one, other) => (other.name === QUANTIZATION) - (one.name === QUANTIZATION));
    this.special.hidden = !special.length;
    lay(this.special, special, (name) => this.#control(name).element);
    for (const [fold, { element, body, isOpen }] of this.folds) {
      const inside = asked.filter((knob) => knob.fold === fold);
      element.hidden = !inside.length;
      if (isOpen()) lay(body, inside, (name) => this.#control(name).element);
    }
    const none = this.controls.get(QUANTIZATION)?.element.querySelector("option[value=none]");
    if (none) none.hidden = none.disabled = this.values.adapter === "qlora";
  }

  /** A fold; what is in it is made when it is first opened. */
  #fold({ name, title }) {
    const body = h("div", { class: "row knobs" });
    const inside = h("div", { class: "fold-inside", id: `fold-${name}-inside`, hidden: true }, name === "optimizer" ? this.rate.element : null, body);
    const button = h("button", { type: "button", "aria-expanded": "false", "aria-controls": inside.id }, title);
    const open = (wish) => {
      inside.hidden = !wish;
      button.classList.toggle("open", wish);
      button.setAttribute("aria-expanded", String(wish));
      if (wish) this.#show();
    };
    button.addEventListener("click", () => {
      open(inside.hidden);
      const names = new Set(kept());
      if (inside.hidden) names.delete(name);
      else names.add(name);
      localStorage.setItem(KEPT_AS, JSON.stringify([...names]));
    });
    return { element: h("section", { class: "form-fold", id: `fold-${name}` }, button, inside), body, open, isOpen: () => !inside.hidden };
  }

  // -- what is said -----------------------------------------------------------------------------------------------------

  said(told) {
    Object.assign(this.known, told);
    if (told.values) this.put(told.values);
    if ("bad" in told) this.#blame(told.bad);
    if ("effective" in told) put(this.effective, told.effective);
    if (told.rate) this.rate.draw(told.rate);
    if (told.misfits) this.method.misfits(told.misfits);
    for (const [name, control] of this.controls) if (this.knobs.has(name)) control.suggest(this.#offered(name));
  }

  #blame(bad) {
    if (this.blamed) this.blamed.bad("");
    this.blamed = null;
    if (!bad) return;
    const name = IN_REWARDS.test(bad.name) ? bad.name.replace(/\w+$/, "rewards") : bad.name;
    const knob = this.knobs.get(name);
    if (knob?.fold) this.folds.get(knob.fold).open(true);
    this.blamed = { method: this.method, adapter: this.adapter }[name] ?? (knob ? this.#control(name) : null);
    this.blamed?.bad(bad.text);
  }
}

/** Put the knobs' elements into a place, unless they stand there already: what is typed in keeps its focus. */
function lay(place, knobs, element) {
  const key = knobs.map(({ name }) => name).join();
  if (place.dataset.knobs === key) return;
  place.dataset.knobs = key;
  place.replaceChildren(...knobs.map(({ name }) => element(name)));
}

function kept() {
  try {
    return JSON.parse(localStorage.getItem(KEPT_AS)) ?? [];
  } catch {
    return [];
  }
}
