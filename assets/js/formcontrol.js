// A knob's control: its plain name, the argument's own name, the field, a sentence of help and a rule of thumb.
//
// In: a knob as the form's sheet describes it. Out: `{ element, set, bad, suggest }`. Values are what the server writes and reads:
// text, but for switches and lists. Whoever changes one by hand is told by `change(name, value, typed)`.

import { h, put } from "./dom.js";
import { makeModules } from "./formmodules.js";
import { makeRewards } from "./formrewards.js";

const MAKERS = { bool: makeSwitch, choice: makeChoice, list: makeList, rewards: makeRewards, target_modules: makeModules };

/** `form`: `{ values, sheet, change }`. */
export function makeControl(knob, form) {
  const id = `knob-${knob.name.replace(/\./g, "-")}`;
  const field = (MAKERS[knob.kind] ?? makeText)(knob, form, `${id}-field`);
  const help = h("p", { id: `${id}-help` }, knob.help);
  const rule = knob.rule ? h("p", { class: "knob-rule" }, knob.rule) : null;
  const name = h("span", { class: "knob-title" }, knob.title);
  const inside = field.inside ?? h(field.group ? "span" : "label", field.group ? { id: `${id}-title` } : { for: `${id}-field` }, name);
  const classes = ["knob", "drawn", field.wide ? "wide" : "", knob.kind === "bool" ? "yes-no" : ""].join(" ").trim();
  const group = field.group ? { role: "group", "aria-labelledby": `${id}-title` } : {};
  const element = h(
    "div",
    { class: classes, id, ...group },
    h("div", { class: "knob-head" }, inside),
    h("code", {}, knob.argument),
    h("div", { class: "knob-field" }, field.element),
    h("div", { class: "knob-note" }, help, rule),
  );
  field.focusable?.setAttribute("aria-describedby", `${id}-help`);
  field.set(form.values[knob.name]);
  return {
    element,
    set: field.set,
    suggest: field.suggest ?? (() => {}),
    bad: (text) => {
      element.classList.toggle("bad", Boolean(text));
      field.focusable?.setAttribute("aria-invalid", String(Boolean(text)));
      put(help, text || knob.help);
    },
  };
}

function makeText(knob, form, id) {
  const long = knob.kind === "long";
  const attributes = { id, placeholder: knob.optional ? form.sheet.words["form.unset"] : null, spellcheck: "false", autocomplete: "off" };
  const input = h(long ? "textarea" : "input", { ...attributes, ...(long ? { rows: 3 } : { type: "text" }) });
  const list = h("datalist", { id: `${id}-list` });
  input.addEventListener("input", () => form.change(knob.name, input.value, true));
  return {
    element: h("div", { class: "knob-text" }, input, list),
    focusable: input,
    wide: long,
    set: (value) => {
      if (input.value !== (value ?? "")) input.value = value ?? "";
    },
    suggest: (pairs) => {
      list.replaceChildren(...pairs.map(([label, value]) => h("option", { value, label })));
      if (pairs.length) input.setAttribute("list", list.id);
      else input.removeAttribute("list");
    },
  };
}

function makeSwitch(knob, form, id) {
  const input = h("input", { type: "checkbox", id });
  input.addEventListener("change", () => form.change(knob.name, input.checked));
  return {
    element: "",
    inside: h("label", {}, input, h("span", { class: "knob-title" }, knob.title)),
    focusable: input,
    set: (value) => {
      input.checked = value === true;
    },
  };
}

function makeChoice(knob, form, id) {
  const options = knob.choices.map(([value, label]) => h("option", { value }, label));
  const select = h("select", { id }, options);
  select.addEventListener("change", () => form.change(knob.name, select.value));
  return {
    element: select,
    focusable: select,
    set: (value) => {
      select.value = value;
    },
  };
}

/** Several of a few; each keeps its place in the list, as the order may count. */
function makeList(knob, form) {
  let chosen = [];
  const boxes = new Map(
    knob.choices.map(([value, label]) => {
      const box = h("input", { type: "checkbox", value });
      box.addEventListener("change", (event) => {
        event.stopPropagation();
        chosen = box.checked ? [...chosen, value] : chosen.filter((one) => one !== value);
        form.change(knob.name, chosen);
      });
      return [value, { box, label: h("label", { class: "chip" }, box, h("span", {}, label)) }];
    }),
  );
  const element = h("div", { class: "chips" }, [...boxes.values()].map(({ label }) => label));
  element.addEventListener("input", (event) => event.stopPropagation());
  return {
    element,
    group: true,
    wide: knob.choices.length > 6,
    set: (value) => {
      chosen = Array.isArray(value) ? value : [];
      for (const [name, { box }] of boxes) box.checked = chosen.includes(name);
    },
  };
}

/** A list as the form writes it: parts between commas, or JSON where a part holds one. */
export function readList(text) {
  const trimmed = String(text ?? "").trim();
  if (trimmed.startsWith("[")) {
    try {
      const found = JSON.parse(trimmed);
      if (Array.isArray(found)) return found.map(String);
    } catch {
      // it only looks like one
    }
  }
  return trimmed.split(",").map((part) => part.trim()).filter(Boolean);
}

export function writeList(parts) {
  const plain = parts.join(", ");
  const back = readList(plain);
  return back.length === parts.length && back.every((part, at) => part === parts[at]) ? plain : JSON.stringify(parts);
}
