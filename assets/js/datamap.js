// The Map section: the rows as points, near each other where they speak of the same things. The groups stand beside it
// as a list, which is the way for the keyboard too.

import { fault, from, pour, Work } from "./dataask.js";
import { h, put, say } from "./dom.js";
import { integer } from "./format.js";

const COLOURS = 8; // --st-map-1 to --st-map-8; groups beyond have the same colours and another shape
const REACH = 12; // pixels within which a point is meant
const MARGIN = 14;

export class Section {
  constructor(view) {
    this.view = view;
    this.map = null;
    this.group = null; // the one that is brought out
    this.work = new Work(() => void this.refresh());
    this.place = h("div", {}, h("p", { class: "loading" }, say("data.reading")));
    this.element = h("div", { class: "section-map" }, this.work.element, this.place);
    this.redraw = () => this.#draw();
    window.addEventListener("studio:mode", this.redraw);
  }

  open() {
    void this.refresh();
  }

  close() {
    this.work.forget();
    this.resized?.disconnect();
    window.removeEventListener("studio:mode", this.redraw);
  }

  async refresh() {
    try {
      const [{ map }, tasks] = await Promise.all([from(this.view.name, "/map"), from(this.view.name, "/tasks")]);
      const same = this.map && map && JSON.stringify(this.map) === JSON.stringify(map);
      this.map = map;
      if (!map) this.place.replaceChildren(this.#never());
      else if (!same) this.place.replaceChildren(...this.#build());
      if (tasks.map?.state === "running") void this.work.follow(tasks.map);
    } catch (problem) {
      this.place.replaceChildren(fault(problem.message));
    }
  }

  #never() {
    return h("div", { class: "section-empty" }, h("p", {}, say("map.never")), this.#start());
  }

  #start() {
    const start = h("button", { type: "button", class: "st-button primary", id: "map-start" }, say("map.start"));
    start.addEventListener("click", () => void this.work.begin(this.view.name, { op: "map" }));
    return start;
  }

  #build() {
    this.canvas = h("canvas", { role: "img", "aria-label": say("map.label") });
    this.tip = h("div", { class: "map-tip", hidden: true });
    this.canvas.addEventListener("pointermove", (event) => this.#hover(event));
    this.canvas.addEventListener("pointerleave", () => (this.tip.hidden = true));
    this.canvas.addEventListener("click", (event) => {
      const point = this.#near(event);
      if (point) this.#see(point[3]);
    });
    const frame = h("div", { class: "map-frame st-card" }, this.canvas, this.tip);
    this.resized?.disconnect();
    this.resized = new ResizeObserver(() => this.#draw());
    this.resized.observe(frame);
    const groups = h("div", { class: "map-groups" }, h("h3", {}, say("map.groups")), this.map.groups.map((group, number) => this.#groupOf(group, number)));
    const notes = h("p", { class: "st-hint" }, `${this.map.explained} ${say("map.hint")}`);
    return [h("div", { class: "map-split" }, frame, groups), notes];
  }

  #groupOf({ html, rows, example }, number) {
    const mark = h("i", { class: "map-mark", style: `background: var(--st-map-${(number % COLOURS) + 1})` });
    if (number >= COLOURS) mark.classList.add("square");
    const name = h("button", { type: "button", class: "map-group", "aria-pressed": "false" }, mark, pour(h("span", { class: "name" }), html), h("span", { class: "num" }, say("map.group.rows", { count: integer(rows) })));
    name.addEventListener("click", () => {
      this.group = this.group === number ? null : number;
      for (const other of this.place.querySelectorAll(".map-group")) other.setAttribute("aria-pressed", String(other === name && this.group !== null));
      this.#draw();
    });
    const see = h("button", { type: "button", class: "link", onclick: () => this.#see(example) }, say("map.group.see"));
    return h("div", { class: "map-line" }, name, see);
  }

  #see(position) {
    void this.view.showRows({ position });
  }

  #at([x, y]) {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    return [MARGIN + x * (width - 2 * MARGIN), MARGIN + y * (height - 2 * MARGIN)];
  }

  #draw() {
    if (!this.canvas?.isConnected) return;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    this.canvas.width = width * devicePixelRatio;
    this.canvas.height = height * devicePixelRatio;
    const context = this.canvas.getContext("2d");
    context.scale(devicePixelRatio, devicePixelRatio);
    const style = getComputedStyle(document.documentElement);
    const colours = Array.from({ length: COLOURS }, (_, number) => style.getPropertyValue(`--st-map-${number + 1}`).trim());
    const size = this.map.points.length > 1500 ? 2.5 : 3.5;
    for (const point of this.map.points) {
      const [x, y] = this.#at(point);
      const group = point[2];
      context.globalAlpha = this.group === null || this.group === group ? 0.8 : 0.1;
      context.fillStyle = colours[group % COLOURS];
      context.beginPath();
      if (group < COLOURS) context.arc(x, y, size, 0, 2 * Math.PI);
      else context.rect(x - size, y - size, 2 * size, 2 * size);
      context.fill();
    }
  }

  #near({ offsetX, offsetY }) {
    let best = null;
    let least = REACH ** 2;
    for (const point of this.map.points) {
      if (this.group !== null && point[2] !== this.group) continue;
      const [x, y] = this.#at(point);
      const distance = (x - offsetX) ** 2 + (y - offsetY) ** 2;
      if (distance < least) [best, least] = [point, distance];
    }
    return best;
  }

  #hover(event) {
    const point = this.#near(event);
    this.tip.hidden = !point;
    this.canvas.style.cursor = point ? "pointer" : "";
    if (!point) return;
    const [x, y] = this.#at(point);
    put(this.tip, say("map.row", { number: integer(point[3] + 1) }));
    this.tip.style.left = `${x + 10}px`;
    this.tip.style.top = `${y - 8}px`;
  }
}
