// By which model a dataset is read, and where its rows are cut: one line that all of a dataset's sections share.

import { fitting, read, reading } from "./dataask.js";
import { h, put, say } from "./dom.js";
import { get } from "./live.js";

const OTHER = "\u0000other";

export class ReadBy {
  constructor() {
    this.used = false; // whether a length was chosen here, which Train is to take over
    this.model = h("select", { class: "st-input", id: "data-model", "aria-label": say("data.settings.model") });
    this.other = h("input", { class: "st-input", hidden: true, placeholder: say("data.settings.other.name"), "aria-label": say("data.settings.other.name") });
    this.field = h("input", { class: "st-input num short", id: "data-max-length", inputmode: "numeric", "aria-label": say("data.settings.length") });
    this.field.value = reading.max_length;
    this.model.addEventListener("change", () => this.#picked());
    this.other.addEventListener("change", () => this.#named());
    this.field.addEventListener("change", () => this.setLength(Number(this.field.value)));
    this.field.addEventListener("keydown", (event) => event.key === "Enter" && this.field.blur());
    this.#offer([{ name: "starter", title: "starter" }]);
    void this.#models();
    this.element = h(
      "div",
      { class: "read-by", title: say("data.settings.info") },
      h("span", {}, say("data.settings")),
      this.model,
      this.other,
      h("span", { class: "together" }, say("data.settings.length"), this.field, say("data.settings.tokens")),
    );
  }

  get length() {
    return reading.max_length;
  }

  /** Rows are cut at another length from now on; Train takes it over. */
  setLength(length) {
    this.field.value = fitting(length) ? length : reading.max_length;
    if (!fitting(length) || length === reading.max_length) return;
    this.used = true;
    read({ max_length: length });
  }

  async #models() {
    try {
      this.#offer(await get("data/models"));
    } catch {
      // the starter stays to choose from
    }
  }

  #offer(models) {
    const known = models.some(({ name }) => name === reading.model) || !reading.model;
    const own = known ? [] : [{ name: reading.model, title: reading.model }];
    const none = { name: "", title: say("data.settings.none") };
    const other = { name: OTHER, title: say("data.settings.other") };
    const options = [...models, ...own, none, other].map(({ name, title }) => h("option", { value: name }, title));
    this.model.replaceChildren(...options);
    this.model.value = reading.model;
  }

  #picked() {
    this.other.hidden = this.model.value !== OTHER;
    if (this.model.value === OTHER) this.other.focus();
    else read({ model: this.model.value });
  }

  #named() {
    const name = this.other.value.trim();
    if (!name) return;
    const option = h("option", { value: name });
    put(option, name);
    this.model.prepend(option);
    this.model.value = name;
    this.other.hidden = true;
    read({ model: name });
  }
}
