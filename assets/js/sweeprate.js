// The picture of a run that finds a learning rate: loss over rate, the suggested one marked, and the way to use it.

import { h, put, say } from "./dom.js";
import { integer, loss, rate } from "./format.js";
import { go } from "./route.js";
import { align, smooth } from "./series.js";
import { svg, Scale, told } from "./sweepdraw.js";

const HEIGHT = 280;
const EDGE = { left: 52, right: 18, top: 14, bottom: 40 };
const MEMORY = 0.9; // as the finder smooths
const PATIENT = 15_000; // milliseconds that the form may take to be filled
const KNOB = "training.learning_rate";
const FINDS = "training.find_learning_rate";

export class RateCurve {
  constructor(id) {
    this.id = id;
    this.suggested = null;
    this.points = [];
    this.words = h("p", { class: "sweep-told", role: "status" });
    this.use = h("button", { type: "button", class: "st-button primary", hidden: true, title: say("sweep.rate.use.info") });
    this.use.addEventListener("click", () => use(this.id, this.suggested));
    this.frame = h("div", { class: "sweep-frame", role: "img" });
    this.empty = h("p", { class: "plot-empty" }, say("runs.no_curve"));
    this.at = h("span", { class: "at num" });
    const keys = [key("curve-b", "sweep.rate.raw"), key("curve-a", "sweep.rate.smoothed")];
    const caption = h(
      "figcaption",
      {},
      h("span", { class: "title" }, say("sweep.rate.curve")),
      h("span", { class: "keys" }, keys),
      this.at,
    );
    const figure = h("figure", { class: "chart" }, caption, this.frame, this.empty);
    this.element = h("div", { class: "sweep-rate", hidden: true }, h("div", { class: "sweep-say" }, this.words, this.use), figure);
    new ResizeObserver(() => this.frame.clientWidth !== this.width && this.#draw()).observe(this.frame);
    this.frame.addEventListener("pointermove", (event) => this.#read(event));
    this.frame.addEventListener("pointerleave", () => put(this.at, ""));
  }

  /** What the run has said so far. */
  update(run, series) {
    this.element.hidden = false;
    this.live = ["queued", "running", "stopping"].includes(run.status);
    if (this.live || this.suggested === null) this.#tell(run.status);
    if (series.changes === this.drawn) return;
    this.drawn = series.changes;
    const [, rates, losses] = align([series.get("learning_rate"), series.get("loss")]);
    const both = rates.map((each, place) => [each, losses[place]]);
    this.points = both.filter(([x, y]) => x > 0 && y !== null && y !== undefined);
    this.#draw();
  }

  /** What it found, once it has ended. */
  details({ result }, status) {
    this.suggested = result.suggested ?? null;
    this.#tell(status);
    this.#draw();
  }

  #tell(status) {
    const found = this.suggested !== null;
    const otherwise = this.live ? "running" : status === "finished" ? "nothing" : "cut";
    put(this.words, found ? say("sweep.rate.found", { rate: rate(this.suggested) }) : say(`sweep.rate.${otherwise}`));
    put(this.use, found ? say("sweep.rate.use", { rate: rate(this.suggested) }) : "");
    this.use.hidden = !found;
  }

  #draw() {
    const there = this.points.length > 1;
    this.frame.hidden = !there;
    this.empty.hidden = there;
    if (!there) return;
    this.width = this.frame.clientWidth;
    const width = Math.max(240, this.width);
    const rates = this.points.map(([x]) => x);
    const losses = this.points.map(([, y]) => y);
    const [low, high] = [Math.min(...losses), Math.max(...losses)];
    const room = (high - low || 1) * 0.06;
    this.x = new Scale({ low: Math.min(...rates), high: Math.max(...rates), log: true }, EDGE.left, width - EDGE.right);
    this.y = new Scale({ low: low - room, high: high + room }, HEIGHT - EDGE.bottom, EDGE.top);
    const way = (values) => values.map((value, at) => `${this.x.place(rates[at]).toFixed(1)},${this.y.place(value).toFixed(1)}`);
    const size = { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true" };
    this.frame.replaceChildren(
      svg(
        "svg",
        size,
        this.#grid(width),
        svg("polyline", { class: "raw", points: way(losses).join(" ") }),
        svg("polyline", { class: "smoothed", points: way(smooth(losses, MEMORY)).join(" ") }),
        this.#mark(width),
      ),
    );
    const words = { count: integer(rates.length), low: rate(rates[0]), high: rate(rates.at(-1)) };
    this.frame.setAttribute("aria-label", say("sweep.rate.picture", words));
  }

  #grid(width) {
    const foot = HEIGHT - EDGE.bottom;
    const across = this.y.ticks(6).flatMap((value) => {
      const y = this.y.place(value);
      const label = svg("text", { x: EDGE.left - 8, y: y + 4, "text-anchor": "end", class: "tick" }, told(value));
      return [svg("line", { x1: EDGE.left, x2: width - EDGE.right, y1: y, y2: y, class: "grid" }), label];
    });
    const down = this.x.ticks(width < 420 ? 3 : 6).flatMap((value) => {
      const x = this.x.place(value);
      const label = svg("text", { x, y: foot + 16, "text-anchor": "middle", class: "tick" }, rate(value));
      return [svg("line", { x1: x, x2: x, y1: EDGE.top, y2: foot, class: "grid" }), label];
    });
    const title = { x: (EDGE.left + width - EDGE.right) / 2, y: HEIGHT - 4, "text-anchor": "middle", class: "axis-name" };
    return [...across, ...down, svg("text", title, say("sweep.rate.axis"))];
  }

  #mark(width) {
    if (this.suggested === null) return [];
    const x = this.x.place(this.suggested);
    const left = x > width / 2;
    const label = { x: x + (left ? -7 : 7), y: EDGE.top + 12, "text-anchor": left ? "end" : "start", class: "suggested" };
    return [
      svg("line", { x1: x, x2: x, y1: EDGE.top, y2: HEIGHT - EDGE.bottom, class: "suggested" }),
      svg("text", label, `${rate(this.suggested)} ${say("sweep.rate.suggested")}`),
    ];
  }

  /** The numbers under the pointer. */
  #read(event) {
    if (!this.x) return;
    const wanted = Math.log(this.x.value(event.clientX - this.frame.getBoundingClientRect().left));
    const near = (point) => Math.abs(Math.log(point[0]) - wanted);
    const [x, y] = this.points.reduce((one, other) => (near(other) < near(one) ? other : one));
    put(this.at, `${rate(x)}  ${loss(y)}`);
  }
}

function key(token, word) {
  return h("span", { class: "key" }, h("i", { class: token }), say(word));
}

/** The form takes the run's settings, as with "Repeat with a change"; once it has them, the rate that was found. */
function use(run, found) {
  const took = () => {
    if (window.studioForm?.[FINDS] !== true) return;
    window.removeEventListener("studio:form", took);
    window.studio.change?.({ [KNOB]: rate(found), [FINDS]: false });
  };
  window.addEventListener("studio:form", took);
  setTimeout(() => window.removeEventListener("studio:form", took), PATIENT);
  go("train", run);
}
