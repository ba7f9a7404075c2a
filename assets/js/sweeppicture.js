// A search's trials as a picture in parallel coordinates: an axis for each setting that varies and one for the figure,
// and a line a trial across them. The table under it holds the same.

import { h, put, say } from "./dom.js";
import { svg, Scale, told } from "./sweepdraw.js";

const HEIGHT = 300;
const TOP = 52;
const BOTTOM = 18;
const SIDE = 64; // for what is written beside the first and the last axis
const LEAST = 132; // between two axes: the longest title fits

export class SweepPicture {
  /** `onLight(number)` is told which trial the pointer is on, null for none. */
  constructor(onLight) {
    this.onLight = onLight;
    this.lines = new Map();
    this.frame = h("div", { class: "sweep-frame", tabindex: "0", role: "group", "aria-label": say("sweeps.picture.label") });
    this.later = h("p", { class: "plot-empty" }, say("sweeps.picture.later"));
    const ramp = h("span", { class: "sweep-ramp", "aria-hidden": "true" });
    this.key = h("span", { class: "sweep-key" }, say("sweeps.picture.best"), ramp, say("sweeps.picture.worst"));
    const caption = h("figcaption", {}, h("span", { class: "title" }, say("sweeps.picture")), this.key);
    this.element = h("figure", { class: "chart sweep-picture" }, caption, this.frame, this.later);
    new ResizeObserver(() => this.#resized()).observe(this.frame);
  }

  draw(sweep) {
    this.sweep = sweep;
    const seen = sweep.rows.some((row) => row.value !== null);
    this.frame.hidden = this.key.hidden = !seen;
    this.later.hidden = seen;
    if (seen) this.#draw();
  }

  /** Bring one trial's line out before the others; null: none. */
  light(number) {
    for (const [other, line] of this.lines) line.classList.toggle("lit", other === number);
    this.frame.classList.toggle("lighting", number !== null && this.lines.has(number));
    const line = this.lines.get(number);
    if (line) line.parentNode.append(line);
  }

  #resized() {
    if (this.sweep && !this.frame.hidden && this.frame.clientWidth !== this.width) this.#draw();
  }

  #draw() {
    const { axes, rows, maximize } = this.sweep;
    this.width = this.frame.clientWidth;
    const all = [...axes, figureAxis(this.sweep)];
    const width = Math.max(this.width, 2 * SIDE + LEAST * (all.length - 1));
    const gap = (width - 2 * SIDE) / (all.length - 1);
    const scales = all.map((axis) => new Scale(axis, HEIGHT - BOTTOM, TOP));
    const drawn = all.map((axis, place) => axisOf(axis, scales[place], SIDE + gap * place, place === all.length - 1));
    const ranks = ranked(rows, maximize);
    this.lines = new Map(
      rows.map((row) => {
        const values = [...axes.map((axis) => row.values[axis.path]), row.value];
        const points = values.flatMap((value, place) => (value === null ? [] : [[SIDE + gap * place, scales[place].place(value)]]));
        return [row.number, this.#line(row, points, ranks.get(row.number))];
      }),
    );
    const ordered = [...this.lines.entries()].sort(([one], [other]) => (ranks.get(other) ?? 2) - (ranks.get(one) ?? 2));
    const group = svg("g", { class: "lines" }, ordered.map(([, line]) => line)); // the best on top
    const size = { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true" };
    this.frame.replaceChildren(svg("svg", size, drawn.map(({ lines }) => lines), group, drawn.map(({ words }) => words)));
  }

  #line(row, points, rank) {
    const way = points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
    const best = row.number === this.sweep.best_trial;
    const shown = svg("polyline", { class: "shown", points: way });
    if (rank !== undefined) shown.style.setProperty("--rank", `${(100 * rank).toFixed(0)}%`);
    const props = {
      class: `trial ${row.outcome}${best ? " best" : ""}${rank === undefined ? " unknown" : ""}`,
      onpointerenter: () => this.onLight(row.number),
      onpointerleave: () => this.onLight(null),
    };
    return svg("g", props, svg("polyline", { class: "reach", points: way }), shown);
  }
}

/** The figure's axis: what was seen, with a little room. */
function figureAxis({ rows, figure, metric }) {
  const seen = rows.map((row) => row.value).filter((value) => value !== null);
  const [low, high] = [Math.min(...seen), Math.max(...seen)];
  const room = (high - low || Math.abs(high) || 1) * 0.06;
  return { title: figure, name: metric, low: low - room, high: high + room, choices: [] };
}

/** How good each trial is among those with a figure: 0 the best, 1 the worst. */
function ranked(rows, maximize) {
  const seen = rows.filter((row) => row.value !== null).sort((one, other) => (maximize ? -1 : 1) * (one.value - other.value));
  return new Map(seen.map((row, place) => [row.number, seen.length > 1 ? place / (seen.length - 1) : 0]));
}

function axisOf(axis, scale, x, last) {
  const anchor = last ? "start" : "end";
  const ticks = scale.ticks().map((value) => {
    const y = scale.place(value);
    const at = { x: x + (last ? 8 : -8), y: y + 4, "text-anchor": anchor, class: "tick" };
    return svg("text", at, svg("title", {}, told(value, axis.log)), cut(told(value, axis.log), 10));
  });
  const titles = { x, "text-anchor": "middle" };
  const words = [
    svg("text", { ...titles, y: 16, class: "axis-title" }, svg("title", {}, axis.title), cut(axis.title, 22)),
    svg("text", { ...titles, y: 33, class: "axis-name" }, cut(axis.name, 22)),
    ...ticks,
  ];
  const line = svg("line", { x1: x, x2: x, y1: TOP - 4, y2: HEIGHT - BOTTOM + 4, class: "axis" });
  return { lines: line, words };
}

function cut(word, most) {
  return word.length > most ? `${word.slice(0, most - 1)}…` : word;
}
