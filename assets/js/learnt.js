// How good the estimates are on this machine: runs as predicted and as measured, and what they taught.

import { h, put, say } from "./dom.js";
import { bytes, flops, signed, watts } from "./format.js";
import { go } from "./route.js";

const FAR = 0.15; // a larger error is marked

export class Learnt {
  constructor() {
    this.told = "";
    this.none = h("p", { class: "under" }, say("system.learnt.none"));
    this.rows = h("tbody");
    const heads = ["run", "predicted", "measured", "error"].map((key) => h("th", { class: key }, say(`system.learnt.${key}`)));
    this.table = h("table", { class: "st-table learnt-runs" }, h("thead", {}, h("tr", {}, heads)), this.rows);
    this.band = h("p", { class: "under" });
    this.facts = h("dl", { class: "st-facts" });
    this.element = h(
      "section",
      { class: "st-card learnt" },
      h("h3", {}, say("system.learnt")),
      this.none,
      h("div", { class: "learnt-parts" }, this.table, h("div", {}, this.band, this.facts)),
    );
  }

  update(learnt) {
    const told = JSON.stringify(learnt);
    if (told === this.told) return;
    this.told = told;
    this.none.hidden = learnt.runs.length > 0;
    this.table.hidden = learnt.runs.length === 0;
    this.rows.replaceChildren(...learnt.runs.map(row));
    const range = { low: signed(learnt.low), high: signed(learnt.high) };
    const enough = learnt.count >= 3;
    put(this.band, enough ? say("system.learnt.band", { ...range, count: learnt.count }) : say("system.learnt.published", range));
    this.facts.replaceChildren(...facts(learnt).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
  }
}

function row({ run, predicted, measured, error, assumed }) {
  const name = h("button", { type: "button", class: "link", onclick: () => go("runs", run) }, run);
  const far = Math.abs(error) > FAR && !assumed;
  const under = assumed ? h("span", { class: "under" }, say("system.learnt.assumed")) : null;
  return h(
    "tr",
    {},
    h("td", {}, name, ...(under ? [" ", under] : [])),
    h("td", { class: "num" }, bytes(predicted)),
    h("td", { class: "num" }, bytes(measured)),
    h("td", { class: far ? "num bad" : "num" }, signed(error)),
  );
}

function facts({ overhead, reserved_ratio: ratio, draw, rates }) {
  const found = [];
  if (overhead !== null) found.push([say("system.learnt.overhead"), say("system.learnt.overhead.value", { size: bytes(overhead) })]);
  if (ratio !== 1) found.push([say("system.learnt.reserved"), say("system.learnt.reserved.value", { share: signed(ratio - 1) })]);
  if (draw !== null) found.push([say("system.learnt.draw"), watts(draw)]);
  for (const [kind, rate] of Object.entries(rates)) found.push([say("system.learnt.rate", { kind: kind.replaceAll("/", " ") }), flops(rate)]);
  return found;
}
