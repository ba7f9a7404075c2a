// What pictures of searches are drawn with: SVG elements, and scales from a knob's values to places on an axis.

import { rate, short } from "./format.js";

/** An SVG element; props as `h` has them. */
export function svg(tag, props = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

/** A value of a knob or a figure in as few digits as tell it from its neighbours: 2.3e-4 (`log`), 0.05, 16, cosine. */
export function told(value, log = false) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return typeof value === "string" ? value : JSON.stringify(value);
  if (log && Math.abs(value) < 0.1) return rate(value);
  return Number.isInteger(value) && Math.abs(value) < 1e6 ? String(value) : short(value);
}

/** From values to places between `from` and `to`, in pixels: evenly, by decades (`log`), or one place a choice. */
export class Scale {
  constructor({ low, high, log = false, whole = false, choices = [] }, from, to) {
    const level = log ? Math.log10 : (value) => value;
    Object.assign(this, { low, high, log, whole, choices, from, to, level });
  }

  place(value) {
    const share = this.choices.length ? this.#choice(value) : this.#share(value);
    return this.from + (this.to - this.from) * share;
  }

  #share(value) {
    const [low, high] = [this.level(this.low), this.level(this.high)];
    return high === low ? 0.5 : (this.level(value) - low) / (high - low);
  }

  #choice(value) {
    const spelt = JSON.stringify(value);
    const place = this.choices.findIndex((choice) => JSON.stringify(choice) === spelt);
    return (place + 0.5) / this.choices.length;
  }

  /** The value at a place: what the pointer is over. */
  value(place) {
    const share = (place - this.from) / (this.to - this.from);
    const [low, high] = [this.level(this.low), this.level(this.high)];
    const level = low + share * (high - low);
    return this.log ? 10 ** level : level;
  }

  /** Values that get a number on the axis. */
  ticks(most = 5) {
    if (this.choices.length) return this.choices;
    if (this.low === this.high) return [this.low];
    const found = this.log ? this.#decades(most) : this.#even(most);
    return found.length > 1 ? found : [this.low, this.high];
  }

  #decades(most) {
    const [first, last] = [Math.floor(Math.log10(this.low)), Math.ceil(Math.log10(this.high))];
    const powers = Array.from({ length: last - first + 1 }, (_, step) => first + step);
    const every = Math.ceil(powers.length / (most + 2));
    const inside = (value) => value >= this.low * 0.999 && value <= this.high * 1.001;
    const decades = powers.filter((power) => power % every === 0).map((power) => Number(`1e${power}`));
    const kept = decades.filter(inside);
    return kept.length > 2 ? kept : powers.flatMap((power) => [1, 2, 5].map((times) => Number(`${times}e${power}`))).filter(inside);
  }

  #even(most) {
    const rough = (this.high - this.low) / most;
    const decade = 10 ** Math.floor(Math.log10(rough));
    let step = [1, 2, 5, 10].map((times) => times * decade).find((each) => each >= rough) ?? 10 * decade;
    if (this.whole) step = Math.max(1, Math.round(step));
    const first = Math.ceil(this.low / step - 1e-9);
    const count = Math.floor(this.high / step + 1e-9) - first + 1;
    return Array.from({ length: Math.max(0, count) }, (_, place) => Number(((first + place) * step).toPrecision(12)));
  }
}
