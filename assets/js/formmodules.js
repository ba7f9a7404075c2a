// Which layers get an adapter: all linear ones, attention's alone, or picked from the model's own names; any text goes.

import { h } from "./dom.js";
import { readList, writeList } from "./formcontrol.js";

const WORDS = { "all-linear": "form.modules.all", attention: "form.modules.attention", "": "form.modules.pick" };
const USUAL = ["q_proj", "v_proj"]; // where the model's names aren't known; what LoRA's paper took

export function makeModules(knob, form, id) {
  const { words } = form.sheet;
  let names = [];
  let value = "";
  const ways = Object.entries(WORDS).map(([word, key]) => {
    const input = h("input", { type: "radio", name: id, value: word });
    input.addEventListener("change", () => give(word || picked()));
    return { word, input, label: h("label", {}, input, h("span", {}, words[key])) };
  });
  const text = h("input", { type: "text", id, "aria-label": words["form.modules.label"], spellcheck: "false", autocomplete: "off" });
  text.addEventListener("input", () => give(text.value, true));
  const chips = h("div", { class: "chips", role: "group", "aria-label": words["form.modules.model"] });
  const own = h("div", { class: "modules-own" }, chips, text);
  const element = h("div", { class: "modules" }, h("div", { class: "segments-drawn" }, ways.map(({ label }) => label)), own);
  element.addEventListener("input", (event) => event.stopPropagation());
  element.addEventListener("change", (event) => event.stopPropagation());

  function picked() {
    const found = names.filter((name) => /^(q|v|query|value)(_|$)|qkv|c_attn/.test(name));
    return writeList(found.length ? found : names.length ? names : USUAL);
  }
  function give(now, typed = false) {
    show(now);
    form.change(knob.name, now, typed);
  }
  function show(now) {
    value = now ?? "";
    const word = value in WORDS ? value : "";
    for (const way of ways) {
      way.input.checked = way.word === word;
      way.label.classList.toggle("selected", way.word === word);
    }
    own.hidden = word !== "";
    if (text.value !== value) text.value = value;
    const chosen = readList(value);
    for (const label of chips.children) label.firstChild.checked = chosen.includes(label.firstChild.value);
  }
  function toggle(name, on) {
    const rest = readList(value).filter((one) => one !== name);
    give(writeList(on ? [...rest, name] : rest));
  }
  return {
    element,
    group: true,
    wide: true,
    focusable: text,
    set: show,
    suggest: (found) => {
      if (found.join() === names.join()) return;
      names = found;
      chips.replaceChildren(
        ...found.map((name) => {
          const box = h("input", { type: "checkbox", value: name });
          box.addEventListener("change", () => toggle(name, box.checked));
          return h("label", { class: "chip mono" }, box, h("span", {}, name));
        }),
      );
      show(value);
    },
  };
}
