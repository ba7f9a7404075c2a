// A run's curves as the page knows them: a snapshot of all so far, then events appended. A step without a number (NaN,
// infinite) is kept with null as its value.

const MOST = 5000; // points of a curve from which on a fresh, thinned snapshot is asked for

export class Series {
  constructor() {
    this.curves = new Map();
    this.offset = 0;
    this.changes = 0;
  }

  /** Take in the `run` part of an answer. */
  take({ series, events, offset }) {
    if (series) {
      this.curves = new Map(Object.entries(series).map(([name, { steps, values }]) => [name, { steps, values }]));
      this.changes += 1;
    }
    for (const event of events) if (event.event === "metrics") this.#append(event);
    this.offset = this.#longest() > MOST ? 0 : offset;
  }

  #append({ step, values }) {
    for (const [name, value] of Object.entries(values)) {
      if (!this.curves.has(name)) this.curves.set(name, { steps: [], values: [] });
      const curve = this.curves.get(name);
      while (curve.steps.length && curve.steps.at(-1) >= step) {
        curve.steps.pop(); // told twice, or taken back by a resume
        curve.values.pop();
      }
      curve.steps.push(step);
      curve.values.push(Number.isFinite(value) ? value : null);
    }
    this.changes += 1;
  }

  #longest() {
    return Math.max(0, ...[...this.curves.values()].map((curve) => curve.steps.length));
  }

  get(name) {
    return this.curves.get(name) ?? { steps: [], values: [] };
  }

  latest(name) {
    return this.get(name).values.at(-1) ?? null;
  }

  /** The lowest number of a curve, null if it has none. */
  lowest(name) {
    const numbers = this.get(name).values.filter((value) => value !== null);
    return numbers.length ? Math.min(...numbers) : null;
  }

  /** The steps at which one of these curves has no number. */
  gaps(names) {
    const steps = new Set();
    for (const name of names) {
      const { steps: all, values } = this.get(name);
      values.forEach((value, place) => value === null && steps.add(all[place]));
    }
    return [...steps].sort((a, b) => a - b);
  }
}

/** Exponential moving average, corrected for its start; gaps stay gaps. `weight` 0: as it is, 0.99: very smooth. */
export function smooth(values, weight) {
  let sum = 0;
  let count = 0;
  return values.map((value) => {
    if (value === null || value === undefined) return value;
    sum = weight * sum + (1 - weight) * value;
    count += 1;
    return sum / (1 - weight ** count);
  });
}

/** Curves over one axis of steps: [steps, values of the first, ...]; undefined where a curve has no point at a step. */
export function align(curves) {
  const steps = [...new Set(curves.flatMap((curve) => curve.steps))].sort((a, b) => a - b);
  const place = new Map(steps.map((step, index) => [step, index]));
  const rows = curves.map((curve) => {
    const row = new Array(steps.length).fill(undefined);
    curve.steps.forEach((step, index) => (row[place.get(step)] = curve.values[index]));
    return row;
  });
  return [steps, ...rows];
}
