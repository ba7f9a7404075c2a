// What the Data tab asks the server: by which model and length rows are read, and how long work is watched.

import { h, put, say } from "./dom.js";
import { integer, roughly } from "./format.js";
import { get, post } from "./live.js";

const KEPT_AS = "studio.data.reading";
const EVERY = 600; // milliseconds between two looks at a task
const PLAIN = { model: "starter", max_length: 1024, near: true };
const changed = new Set();

/** By which model rows are read, where they are cut, and what a check compares; kept by the browser. */
export const reading = kept();

function kept() {
  try {
    const { model, max_length: length, near } = { ...PLAIN, ...JSON.parse(localStorage.getItem(KEPT_AS)) };
    return { model: String(model), max_length: fitting(length) ? length : PLAIN.max_length, near: Boolean(near) };
  } catch {
    return { ...PLAIN };
  }
}

/** Whether rows can be cut at this length. */
export function fitting(length) {
  return Number.isInteger(length) && length >= 8 && length <= 1_048_576;
}

export function read(change) {
  Object.assign(reading, change);
  localStorage.setItem(KEPT_AS, JSON.stringify(reading));
  for (const listener of changed) listener(change);
}

/** Call `listener(change)` when something is read otherwise. */
export function onReading(listener) {
  changed.add(listener);
}

/** The knobs that an epoch's steps depend on, as they stand on the Train tab, where that has been drawn. */
function knobsOnTrain() {
  const names = {
    batch: "per_device_train_batch_size",
    accumulation: "gradient_accumulation_steps",
    epochs: "num_train_epochs",
  };
  const found = {};
  for (const [name, knob] of Object.entries(names)) {
    const value = Number(document.querySelector(`#knob-training-${knob} input`)?.value);
    if (value > 0 && value <= 1000 && (name === "epochs" || Number.isInteger(value))) found[name] = value;
  }
  return found;
}

export const asked = () => ({ ...reading, ...knobsOnTrain() });

/** GET what is known of a dataset. */
export function from(name, path = "", more = {}) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries({ ...asked(), ...more })) {
    if (value !== null && value !== undefined && value !== "") query.set(key, value);
  }
  return get(`data/of/${encodeURIComponent(name)}${path}?${query}`);
}

/** POST something about a dataset. */
export function to(name, path, body) {
  return post(`data/of/${encodeURIComponent(name)}/${path}`, body);
}

/** Put HTML of the server's making into an element. All that isn't the studio's own in it was made text there. */
export function pour(element, html) {
  element.innerHTML = html;
  return element;
}

/** A sentence about what went wrong, where it did. */
export function fault(sentence) {
  return h("p", { class: "st-error", role: "alert" }, sentence);
}

/** Long work: what it is doing, how far it is, how long it takes yet, and Stop. Hidden while there is none. */
export class Work {
  /** `onEnd(task)` is called when it has ended, by itself or not. */
  constructor(onEnd) {
    this.onEnd = onEnd;
    this.task = null;
    this.text = h("span", { class: "text" });
    this.count = h("span", { class: "num" });
    this.left = h("span", { class: "num left" });
    this.fill = h("span", { class: "fill" });
    const stop = () => void post(`data/tasks/${this.task.id}/stop`).catch(() => {});
    const button = h("button", { type: "button", class: "st-button small", onclick: stop }, say("task.stop"));
    const bar = h("div", { class: "bar", "aria-hidden": "true" }, this.fill);
    const line = h("div", { class: "work-line", role: "status" }, this.text, this.count, this.left, button);
    this.now = h("div", { class: "work", hidden: true }, line, bar);
    this.problem = h("div", { class: "work-problem" });
    this.element = h("div", {}, this.now, this.problem);
  }

  get busy() {
    return this.task?.state === "running";
  }

  /** Begin a task and watch it. */
  async begin(name, body) {
    this.problem.replaceChildren();
    this.#draw({ state: "running", text: say("task.starting") });
    try {
      await this.follow(await to(name, "begin", body));
    } catch (problem) {
      this.now.hidden = true;
      this.problem.replaceChildren(fault(problem.message));
    }
  }

  /** Watch a task that was begun, here or elsewhere; one that was watched before is left to itself. */
  async follow(task) {
    if (this.busy && this.task.id === task.id) return;
    const number = (this.watching = (this.watching ?? 0) + 1);
    this.task = task;
    this.#draw(task);
    while (this.task.state === "running") {
      await new Promise((resolve) => setTimeout(resolve, EVERY));
      if (this.forgotten || number !== this.watching) return;
      try {
        const now = await get(`data/tasks/${task.id}`);
        if (number !== this.watching) return;
        this.task = now;
      } catch (problem) {
        if (problem.status === 400) this.task = { ...this.task, state: "failed", error: problem.message, hint: "" };
      }
      this.#draw(this.task);
    }
    this.#ended();
  }

  /** Nobody looks any more; the work goes on. */
  forget() {
    this.forgotten = true;
  }

  #ended() {
    const { state, error, hint } = this.task;
    this.now.hidden = true;
    if (state === "failed") this.problem.replaceChildren(fault(`${error || say("task.failed")} ${hint}`.trim()));
    else if (state === "cancelled") this.problem.replaceChildren(h("p", { class: "st-hint" }, say("task.cancelled")));
    else this.problem.replaceChildren();
    this.onEnd(this.task);
  }

  #draw({ state, text, done = null, total = null }) {
    this.now.hidden = state !== "running";
    put(this.text, text || say("task.starting"));
    const known = done !== null && total;
    const counted = done === null ? "" : total ? say("task.count", { done: integer(done), total: integer(total) }) : integer(done);
    put(this.count, counted);
    const left = known ? this.#left(text, done, total) : null;
    put(this.left, left === null ? "" : say("task.left", { time: roughly(left) }));
    this.fill.style.width = known ? `${(100 * done) / total}%` : "";
    this.now.classList.toggle("unknown", !known);
  }

  /** Seconds that this part of the work takes yet, by how fast it has gone since it was first seen. */
  #left(text, done, total) {
    const now = performance.now() / 1000;
    if (this.part?.text !== text || this.part.done > done) this.part = { text, done, since: now };
    const speed = (done - this.part.done) / (now - this.part.since);
    return speed > 0 && done < total ? (total - done) / speed : null;
  }
}
