// The two choices that decide which knobs there are: the method, and the adapter.

import { h, put } from "./dom.js";

/** All methods by what they learn from, in a panel that opens below the one that is chosen. */
export function makeMethod(form) {
  const { methods: groups, words } = form.sheet;
  const all = new Map(groups.flatMap(({ methods }) => methods).map((method) => [method.name, method]));
  const title = h("span");
  const button = h("button", { type: "button", class: "pick-button", id: "knob-method-field", "aria-haspopup": "true", "aria-expanded": "false" }, title);
  const note = h("p");
  const rows = h("p", { class: "knob-rule" });
  const options = new Map();
  const panel = h("div", { class: "pick-panel", hidden: true, role: "radiogroup", "aria-label": words.method }, h("div", { class: "pick-columns" }, groups.map(group)));
  const element = h(
    "div",
    { class: "knob drawn", id: "knob-method" },
    h("div", { class: "knob-head" }, h("label", { for: "knob-method-field" }, h("span", { class: "knob-title" }, words.method))),
    h("code", {}, "method"),
    h("div", { class: "knob-field" }, button, panel),
    h("div", { class: "knob-note" }, note, rows),
  );

  function group({ title: of, methods }) {
    return h("div", { class: "pick-group" }, h("h4", {}, of), methods.map(option));
  }
  function option({ name, title: plain, note: does, rows: needs, experimental }) {
    const input = h("input", { type: "radio", name: "method", value: name });
    const mark = experimental ? h("span", { class: "pick-mark", title: words["experimental.note"] }, words.experimental) : null;
    const misfit = h("span", { class: "pick-misfit", hidden: true }, words["method.misfit"]);
    input.addEventListener("change", () => form.change("method", name));
    const label = h(
      "label",
      { class: "pick-option" },
      input,
      h("span", { class: "pick-name" }, plain, h("code", {}, name), mark),
      h("span", { class: "pick-note" }, does),
      h("span", { class: "pick-note" }, needs, " ", misfit),
    );
    label.addEventListener("click", (event) => event.target !== input && setTimeout(() => close(true)));
    options.set(name, { input, label, misfit });
    return label;
  }
  function open() {
    panel.hidden = false;
    button.setAttribute("aria-expanded", "true");
    options.get(form.values.method).input.focus();
  }
  function close(back) {
    if (panel.hidden) return;
    panel.hidden = true;
    button.setAttribute("aria-expanded", "false");
    if (back) button.focus();
  }
  button.addEventListener("click", () => (panel.hidden ? open() : close(true)));
  panel.addEventListener("keydown", (event) => {
    if (!["Escape", "Enter", " "].includes(event.key)) return;
    event.preventDefault();
    close(true);
  });
  element.addEventListener("focusout", ({ relatedTarget }) => relatedTarget && !element.contains(relatedTarget) && close(false));
  document.addEventListener("pointerdown", ({ target }) => !element.contains(target) && close(false));
  return {
    element,
    set: (name) => {
      const method = all.get(name);
      put(title, method.title);
      put(note, method.note);
      put(rows, method.experimental ? `${method.rows} ${words["experimental.note"]}` : method.rows);
      for (const [one, { input, label }] of options) {
        input.checked = one === name;
        label.classList.toggle("selected", one === name);
      }
    },
    bad: (text) => {
      element.classList.toggle("bad", Boolean(text));
      put(note, text || all.get(form.values.method).note);
    },
    misfits: (found) => {
      for (const [name, { misfit }] of options) {
        misfit.hidden = !(name in found);
        misfit.title = found[name] ?? "";
      }
      element.classList.toggle("misfit", form.values.method in found);
    },
  };
}

/** Three ways side by side, and the other kinds in a list after them. */
export function makeAdapter(form) {
  const { adapters, side, words } = form.sheet;
  const all = new Map(adapters.map((adapter) => [adapter.name, adapter]));
  const ways = side.map((kind) => {
    const input = h("input", { type: "radio", name: "adapter", value: kind });
    input.addEventListener("change", () => form.change("adapter", kind));
    return { kind, input, label: h("label", {}, input, h("span", {}, all.get(kind).title)) };
  });
  const others = adapters.filter(({ name }) => !side.includes(name));
  const more = h(
    "select",
    { "aria-label": words["adapter.more.label"], id: "adapter-more" },
    h("option", { value: "" }, words["adapter.more"]),
    others.map(({ name, title }) => h("option", { value: name }, title)),
  );
  more.addEventListener("change", () => more.value && form.change("adapter", more.value));
  const note = h("p");
  const element = h(
    "div",
    { class: "knob drawn alone", id: "knob-adapter", role: "group", "aria-labelledby": "knob-adapter-title" },
    h("div", { class: "knob-head" }, h("span", { class: "knob-title", id: "knob-adapter-title" }, words.adapter)),
    h("code", {}, "adapter"),
    h("div", { class: "knob-field" }, h("div", { class: "segments-drawn" }, ways.map(({ label }) => label), more)),
    h("div", { class: "knob-note" }, note),
  );
  return {
    element,
    set: (name) => {
      for (const { kind, input, label } of ways) {
        input.checked = kind === name;
        label.classList.toggle("selected", kind === name);
      }
      more.value = side.includes(name) ? "" : name;
      more.classList.toggle("selected", !side.includes(name));
      put(note, all.get(name).note);
    },
    bad: (text) => {
      element.classList.toggle("bad", Boolean(text));
      put(note, text || all.get(form.values.adapter).note);
    },
  };
}
