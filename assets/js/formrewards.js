// What makes an answer good: a list of rewards, each a kind, what it needs and a weight. A Python file is run only once it is allowed.

import { h, put } from "./dom.js";
import { readList, writeList } from "./formcontrol.js";

export function makeRewards(knob, form, id) {
  const { words, rewards: kinds } = form.sheet;
  const weightsOf = knob.name.replace(/rewards$/, "reward_weights");
  const allowOf = knob.name.replace(/rewards$/, "allow_code");
  let offered = [];
  let rows = [];
  let shown = "";
  const list = h("ol", { class: "rewards-list" });
  const judges = h("datalist", { id: `${id}-judges` });
  const add = h("button", { type: "button", class: "st-button small" }, words["form.reward.add"]);
  add.addEventListener("click", () => {
    const left = kinds.filter(({ name }) => !rows.some((row) => row.kind === name));
    const free = left.find(({ argument }) => !argument) ?? left[0] ?? kinds[0]; // first what needs nothing
    rows.push({ kind: free.name, argument: "", weight: "" });
    draw();
    give();
    list.lastElementChild.querySelector("select").focus();
  });
  const box = h("input", { type: "checkbox" });
  const allowed = h("span");
  const allow = h("label", { class: "rewards-allow st-note warn", hidden: true }, box, allowed);
  box.addEventListener("change", () => form.change(allowOf, box.checked));
  const element = h("div", { class: "rewards" }, list, judges, add, allow);
  element.addEventListener("input", (event) => event.stopPropagation());
  element.addEventListener("change", (event) => event.stopPropagation());

  function give(typed = false) {
    const weighed = rows.some(({ weight }) => weight.trim() && Number(weight) !== 1);
    const told = writeList(rows.map(({ kind, argument }) => (argument ? `${kind}:${argument}` : kind)));
    const weights = weighed ? rows.map(({ weight }) => weight.trim() || "1").join(", ") : "";
    shown = JSON.stringify([told, weights]);
    form.change(weightsOf, weights, typed, true);
    form.change(knob.name, told, typed);
    files();
  }
  /** A file that isn't the one that was allowed has to be allowed anew. */
  function files() {
    const paths = rows.filter(({ kind, argument }) => kind === "file" && argument).map(({ argument }) => argument);
    const told = paths.join(", ");
    if (allow.dataset.paths !== undefined && allow.dataset.paths !== told && form.values[allowOf]) form.change(allowOf, false, true, true);
    allow.dataset.paths = told;
    allow.hidden = !paths.length;
    put(allowed, words["form.reward.allow"].replace("{path}", told));
    box.checked = form.values[allowOf] === true;
  }
  function draw() {
    list.replaceChildren(...rows.map((row, at) => line(row, at)));
    files();
  }
  function line(row, at) {
    const kind = kinds.find(({ name }) => name === row.kind) ?? { name: row.kind, argument: row.kind };
    const known = kinds.map(({ name, title }) => h("option", { value: name, selected: name === row.kind }, title));
    if (!kinds.includes(kind)) known.push(h("option", { value: row.kind, selected: true }, row.kind));
    const select = h("select", { "aria-label": words["form.reward.kind"] }, known);
    select.addEventListener("change", () => {
      rows[at] = { ...row, kind: select.value, argument: "" };
      draw();
      give();
      list.children[at].querySelector("input, select").focus();
    });
    const needs = { type: "text", placeholder: kind.argument, "aria-label": kind.argument, spellcheck: "false", autocomplete: "off" };
    const argument = h("input", { ...needs, ...(row.kind === "model" && offered.length ? { list: judges.id } : {}) });
    argument.hidden = !kind.argument;
    argument.value = row.argument;
    argument.addEventListener("input", () => {
      row.argument = argument.value;
      give(true);
    });
    const weight = h("input", { type: "text", class: "num", placeholder: "1", "aria-label": words["form.reward.weight"], title: words["form.reward.weight"] });
    weight.value = row.weight;
    weight.addEventListener("input", () => {
      row.weight = weight.value;
      give(true);
    });
    const remove = h("button", { type: "button", class: "st-button small", "aria-label": words["form.reward.remove"], title: words["form.reward.remove"] }, "×");
    remove.disabled = rows.length === 1;
    remove.addEventListener("click", () => {
      rows.splice(at, 1);
      draw();
      give();
    });
    return h("li", {}, select, argument, h("span", { class: "times", "aria-hidden": "true" }, "×"), weight, remove);
  }
  return {
    element,
    group: true,
    wide: true,
    set: (value) => {
      const weights = readList(form.values[weightsOf]);
      const now = JSON.stringify([value, form.values[weightsOf]]);
      if (now === shown) return files();
      shown = now;
      rows = readList(value).map((one, at) => {
        const colon = one.indexOf(":");
        const [kind, argument] = colon < 0 ? [one, ""] : [one.slice(0, colon), one.slice(colon + 1)];
        return { kind, argument, weight: weights[at] ?? "" };
      });
      delete allow.dataset.paths;
      draw();
    },
    suggest: (pairs) => {
      if (JSON.stringify(pairs) === JSON.stringify(offered)) return;
      offered = pairs;
      judges.replaceChildren(...pairs.map(([label, value]) => h("option", { value, label })));
      for (const row of list.children) {
        if (row.querySelector("select").value === "model") row.querySelector("input").setAttribute("list", judges.id);
      }
    },
  };
}
