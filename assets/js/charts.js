// Curves with uPlot: raw values faint behind smoothed ones, one zoom for all of a run's charts that ticks leave alone.

import { h, put, say } from "./dom.js";
import { integer } from "./format.js";
import { align, smooth } from "./series.js";

const colour = (token) => getComputedStyle(document.documentElement).getPropertyValue(`--st-${token}`).trim();

/** The charts of one run: they share zoom, smoothing and kind of axis. */
export class Charts {
  constructor(charts) {
    this.charts = charts;
    this.settings = { weight: 0, log: false };
    this.zoom = null;
    this.onZoom = () => {};
    for (const chart of charts) chart.group = this;
  }

  /** Draw these series. Cheap enough for every tick; the zoom stays. */
  draw(series) {
    this.series = series;
    for (const chart of this.charts) chart.draw(series);
  }

  set(settings) {
    const anew = settings.log !== undefined && settings.log !== this.settings.log;
    Object.assign(this.settings, settings);
    if (anew) this.rebuild();
    else if (this.series) this.draw(this.series);
  }

  /** Show the steps from `from` to `to`; null shows all. */
  setZoom(zoom) {
    this.zoom = zoom;
    this.onZoom(zoom !== null);
    for (const chart of this.charts) chart.applyZoom();
  }

  /** Other colours or another axis: uPlot takes them only at its making. */
  rebuild() {
    for (const chart of this.charts) chart.destroy();
    if (this.series) this.draw(this.series);
  }

  destroy() {
    for (const chart of this.charts) chart.destroy();
  }
}

/**
 * One chart. `lines`: [{name, token, label, smoothed, dots}]; `format` writes a value; `log`: whether the log axis applies.
 */
export class Chart {
  /** `optional`: it is seen only where there is something to draw. */
  constructor({ title, lines, height, format, log = false, optional = false }) {
    this.lines = lines;
    this.optional = optional;
    this.height = height;
    this.format = format;
    this.log = log;
    this.plot = null;
    this.readouts = lines.map(() => h("span", { class: "num" }));
    this.at = h("span", { class: "at num" });
    const keys = lines.map((line, place) =>
      h("span", { class: "key" }, h("i", { class: line.token }), line.label ?? "", this.readouts[place]),
    );
    this.area = h("div", { class: "plot", role: "img", "aria-label": title });
    this.empty = h("p", { class: "plot-empty" }, say("runs.no_curve"));
    this.gaps = h("p", { class: "plot-gaps", hidden: true });
    const caption = h("figcaption", {}, h("span", { class: "title" }, title), h("span", { class: "keys" }, keys), this.at);
    this.element = h("figure", { class: "chart", hidden: optional }, caption, this.area, this.empty, this.gaps);
    new ResizeObserver(() => this.#resize()).observe(this.area);
  }

  draw(series) {
    const curves = this.lines.map((line) => series.get(line.name));
    const [steps, ...raw] = align(curves);
    const logarithmic = this.log && this.group.settings.log;
    const drawable = (row) => (logarithmic ? row.map((value) => (value > 0 ? value : (value && null) ?? value)) : row);
    this.raw = raw;
    const smoothed = raw.map((row, place) => (this.lines[place].smoothed ? smooth(row, this.group.settings.weight) : row));
    this.data = [steps, ...raw.map(drawable), ...smoothed.map(drawable)];
    this.missing = series.gaps(this.lines.map((line) => line.name));
    const there = steps.length > 0;
    this.element.hidden = this.optional && !there;
    this.area.hidden = !there;
    this.empty.hidden = there;
    if (there && this.plot) this.#update();
    else if (there) this.#make(logarithmic);
    this.#sayGaps();
    if (this.plot?.cursor.idx == null) this.#read(null);
  }

  applyZoom() {
    if (this.plot) this.#update();
  }

  destroy() {
    this.plot?.destroy();
    this.plot = null;
  }

  #update() {
    this.plot.batch(() => {
      this.plot.setData(this.data, false);
      this.plot.setScale("x", this.#range());
    });
  }

  #range() {
    const steps = this.data[0];
    const [first, last] = [steps[0], steps.at(-1)];
    const all = first === last ? { min: first - 1, max: last + 1 } : { min: first, max: last };
    return this.group.zoom ?? all;
  }

  #make(logarithmic) {
    const line = (token, { faint = false, dots = false } = {}) => ({
      stroke: colour(token),
      width: faint ? 1 : 1.75,
      alpha: faint ? 0.28 : 1,
      spanGaps: true,
      points: { show: dots, size: 5, fill: colour(token), stroke: colour(token) },
    });
    const options = {
      width: this.area.clientWidth || 300,
      height: this.height,
      padding: [8, 10, 0, 0],
      legend: { show: false },
      cursor: {
        drag: { x: true, y: false, setScale: false },
        sync: { key: "studio", scales: ["x", null], setSeries: false, filters: { pub: (type) => !/mouse(down|up)/.test(type) } },
        points: { size: 6 },
        bind: { dblclick: () => () => null }, // ours, below: it resets every chart
      },
      scales: { x: { time: false }, y: { distr: logarithmic ? 3 : 1, range: (_plot, min, max) => span(min, max, logarithmic) } },
      axes: [this.#axis({ size: 20, space: 60, values: whole }), this.#axis({ size: 46, space: 26, log: logarithmic })],
      series: [
        {},
        ...this.lines.map((each) => ({ ...line(each.token, { faint: true }), show: Boolean(each.smoothed) })),
        ...this.lines.map((each) => line(each.token, { dots: each.dots })),
      ],
      hooks: {
        setSelect: [(plot) => this.#select(plot)],
        setCursor: [(plot) => this.#read(plot.cursor.idx ?? null)],
        draw: [(plot) => this.#markGaps(plot)],
      },
    };
    this.plot = new window.uPlot(options, this.data, this.area);
    this.plot.over.addEventListener("dblclick", () => this.group.setZoom(null));
    this.#update();
  }

  #axis({ size, space, values, log = false }) {
    const format = this.format;
    return {
      stroke: colour("text-faint"),
      font: "11px 'Studio Sans', sans-serif",
      grid: { stroke: colour("grid"), width: 1 },
      ticks: { show: false },
      gap: 4,
      size,
      space,
      ...(log ? { filter: sparse } : {}),
      values: values ?? ((_plot, ticks) => ticks.map((tick) => (tick === null ? "" : format.axis(tick)))),
    };
  }

  #select(plot) {
    const { left, width } = plot.select;
    if (width < 6) return;
    const [from, to] = [plot.posToVal(left, "x"), plot.posToVal(left + width, "x")];
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    if (to > from) this.group.setZoom({ min: from, max: to });
  }

  /** The numbers beside the title: those under the pointer, else the last ones; never the smoothed ones. */
  #read(place) {
    const steps = this.data?.[0] ?? [];
    this.lines.forEach((_line, number) => {
      const row = this.raw[number];
      let at = place ?? row.length - 1;
      if (place === null) while (at > 0 && (row[at] ?? null) === null) at -= 1;
      put(this.readouts[number], (row[at] ?? null) === null ? "" : this.format.value(row[at]));
    });
    put(this.at, place === null ? "" : say("runs.checkpoint", { step: integer(steps[place]) }));
  }

  #markGaps(plot) {
    if (!this.missing?.length) return;
    const { ctx, bbox } = plot;
    const size = 5 * devicePixelRatio;
    ctx.save();
    ctx.fillStyle = colour("bad");
    for (const step of this.missing) {
      const x = plot.valToPos(step, "x", true);
      if (x < bbox.left - 1 || x > bbox.left + bbox.width + 1) continue;
      const foot = bbox.top + bbox.height;
      ctx.beginPath();
      ctx.moveTo(x - size, foot);
      ctx.lineTo(x + size, foot);
      ctx.lineTo(x, foot - 1.6 * size);
      ctx.fill();
    }
    ctx.restore();
  }

  #sayGaps() {
    const count = this.missing.length;
    this.gaps.hidden = count === 0;
    const shown = this.missing.slice(0, 8).map(integer).join(", ");
    put(this.gaps, count ? say("runs.nan", { steps: count > 8 ? `${shown}, … (${integer(count)})` : shown }) : "");
  }

  #resize() {
    if (this.plot && this.area.clientWidth > 0) this.plot.setSize({ width: this.area.clientWidth, height: this.height });
  }
}

/** On a log axis over more than a decade, only 1, 2 and 5 get a number: the others would crowd. */
function sparse(_plot, ticks) {
  const narrow = ticks.at(-1) / ticks[0] < 20;
  return ticks.map((tick) => (narrow || /^[125]/.test(tick.toExponential()) ? tick : null));
}

/** Steps on the axis: whole ones only. */
function whole(_plot, ticks) {
  return ticks.map((tick) => (Number.isInteger(tick) ? integer(tick) : ""));
}

/** The span of a value axis around what is seen. */
function span(min, max, logarithmic) {
  if (min === null || max === null || !Number.isFinite(min)) return logarithmic ? [0.1, 1] : [0, 1];
  if (logarithmic) return [min / 1.15, max * 1.15];
  const room = (max - min || Math.abs(max) || 1) * 0.08;
  return [min >= 0 && min - room < 0 ? 0 : min - room, max + room];
}
