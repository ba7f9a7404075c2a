// Adding datasets: a file from the browser's machine, a path or a hub name, or a mix of what is there.

import { fault } from "./dataask.js";
import { h, put, say } from "./dom.js";
import { bytes } from "./format.js";
import { get, post } from "./live.js";

const HUB = /^[A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*$/;

export class AddView {
  /** `datasets`: those that there are; `outside`: what to call when this is closed, and when something was added. */
  constructor(datasets, { back, added }) {
    this.added = added;
    const close = h("button", { type: "button", class: "st-button small", onclick: back }, say("data.add.close"));
    const head = h("div", { class: "head-line" }, h("h2", {}, say("data.add.title")), close);
    this.element = h("div", { class: "data-add" }, head, this.#upload(), this.#named(), this.#mix(datasets));
    this.element.addEventListener("keydown", (event) => event.key === "Escape" && back());
  }

  focus() {
    this.choose.focus();
  }

  // -- a file ---------------------------------------------------------------------------------------------------------

  #upload() {
    this.file = h("input", { type: "file", id: "data-file", class: "out-of-sight", tabindex: "-1", "aria-label": say("data.add.upload") });
    this.file.addEventListener("change", () => this.file.files[0] && this.#send(this.file.files[0]));
    this.choose = h("button", { type: "button", class: "drop", onclick: () => this.file.click() }, h("b", {}, say("data.add.drop")), h("span", {}, say("data.add.kinds")));
    for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
      this.choose.addEventListener(name, (event) => {
        event.preventDefault();
        this.choose.classList.toggle("over", over);
        const file = name === "drop" ? event.dataTransfer.files[0] : null;
        if (file) this.#send(file);
      });
    }
    this.sending = h("span", { class: "text" });
    this.sent = h("span", { class: "fill" });
    this.stop = h("button", { type: "button", class: "st-button small" }, say("task.stop"));
    this.progress = h("div", { class: "work", hidden: true }, h("div", { class: "work-line", role: "status" }, this.sending, this.stop), h("div", { class: "bar" }, this.sent));
    this.uploadProblem = h("div", {});
    return card("data.add.upload", this.choose, this.file, this.progress, this.uploadProblem);
  }

  #send(file) {
    const request = new XMLHttpRequest(); // fetch doesn't tell how far an upload is
    request.open("POST", `api/data/upload?name=${encodeURIComponent(file.name)}`);
    request.setRequestHeader("content-type", "application/octet-stream");
    request.upload.addEventListener("progress", ({ loaded, total }) => {
      put(this.sending, say("data.add.uploading", { name: file.name, done: bytes(loaded), total: bytes(total) }));
      this.sent.style.width = `${(100 * loaded) / total}%`;
    });
    const end = (problem) => {
      this.progress.hidden = true;
      this.choose.disabled = false;
      this.file.value = "";
      this.uploadProblem.replaceChildren(...(problem ? [fault(problem)] : []));
    };
    request.addEventListener("load", () => {
      const told = answered(request);
      end(told.added ? "" : `${told.message ?? say("app.lost")} ${told.hint ?? ""}`.trim());
      if (told.added) this.added(told.added);
    });
    request.addEventListener("error", () => end(say("app.lost")));
    request.addEventListener("abort", () => end(say("data.add.cancelled")));
    this.stop.onclick = () => request.abort();
    this.choose.disabled = true;
    this.progress.hidden = false;
    this.uploadProblem.replaceChildren();
    put(this.sending, say("data.add.uploading", { name: file.name, done: bytes(0), total: bytes(file.size) }));
    request.send(file);
  }

  // -- something named ------------------------------------------------------------------------------------------------

  #named() {
    this.source = h("input", { class: "st-input grow", id: "data-source", spellcheck: "false", placeholder: say("data.add.source.example"), "aria-label": say("data.add.source") });
    this.config = h("select", { class: "st-input", id: "data-config" });
    this.split = h("select", { class: "st-input", id: "data-split" });
    this.config.addEventListener("change", () => void this.#look(this.config.value));
    this.hub = h("div", { class: "hub-parts", hidden: true });
    this.namedProblem = h("div", {});
    this.submit = h("button", { type: "submit", class: "st-button primary", id: "data-add-do" }, say("data.add.do"));
    const form = h("form", {}, h("div", { class: "line" }, this.source, this.submit), h("p", { class: "st-hint" }, say("data.add.source.note")), this.hub, this.namedProblem);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#name();
    });
    this.source.addEventListener("input", () => (this.hub.hidden = true));
    return card("data.add.name", form);
  }

  async #name() {
    const source = this.source.value.trim();
    if (!source) return this.source.focus();
    const chosen = this.hub.hidden ? {} : { config: this.config.value || null, split: this.split.value || null };
    await this.#busy(async () => {
      try {
        this.added((await post("data/add", { source, ...chosen })).added);
      } catch (problem) {
        // A hub dataset of several parts is refused until one of them is picked.
        if (!this.hub.hidden || !HUB.test(source) || !(await this.#look())) throw problem;
      }
    });
    return undefined;
  }

  /** Offer a hub dataset's configurations and splits; whether there are several. */
  async #look(config = null) {
    const query = new URLSearchParams({ id: this.source.value.trim(), ...(config ? { config } : {}) });
    let found;
    try {
      found = await get(`data/hub?${query}`);
    } catch {
      return false;
    }
    const several = found.configs.length > 1 || found.splits.length > 1;
    if (config === null) offer(this.config, found.configs);
    offer(this.split, found.splits);
    const labelled = (key, field, names) => (names.length > 1 ? [h("label", {}, h("span", {}, say(key)), field)] : []);
    this.hub.replaceChildren(
      h("p", {}, say("data.add.pick")),
      ...labelled("data.add.config", this.config, config === null ? found.configs : [...this.config.options]),
      ...labelled("data.add.split", this.split, found.splits),
    );
    this.hub.hidden = !several;
    return several;
  }

  async #busy(work) {
    this.submit.disabled = true;
    this.namedProblem.replaceChildren(h("p", { class: "loading" }, say("data.add.looking")));
    try {
      await work();
      this.namedProblem.replaceChildren();
    } catch (problem) {
      this.namedProblem.replaceChildren(fault(problem.message));
      this.source.focus(); // a button that was disabled has lost the focus
    } finally {
      this.submit.disabled = false;
    }
  }

  // -- a mix ----------------------------------------------------------------------------------------------------------

  #mix(datasets) {
    const lines = datasets.map(({ name, title }) => {
      const use = h("input", { type: "checkbox", "aria-label": say("data.add.mix.use", { name: title }) });
      const weight = h("input", { class: "st-input num short", inputmode: "decimal", placeholder: say("data.add.mix.weight"), "aria-label": `${say("data.add.mix.weight")}: ${title}` });
      weight.addEventListener("input", () => (use.checked ||= weight.value.trim() !== ""));
      return { name, use, weight, element: h("div", { class: "mix-line" }, h("label", { class: "switch" }, use, h("span", { class: "name" }, title)), weight) };
    });
    const ends = h("select", { class: "st-input", "aria-label": say("data.add.mix.ends") }, ["first_exhausted", "all_exhausted"].map((how) => h("option", { value: how }, say(`data.add.mix.ends.${how}`))));
    const title = h("input", { class: "st-input grow", value: say("data.add.mix.first"), "aria-label": say("data.add.mix.title") });
    const problem = h("div", {});
    const make = h("button", { type: "submit", class: "st-button", id: "data-mix" }, say("data.add.mix.do"));
    const weighted = h("label", { hidden: true }, h("span", {}, say("data.add.mix.ends")), ends);
    const form = h(
      "form",
      { class: "mix" },
      h("p", { class: "st-hint" }, say("data.add.mix.note")),
      lines.map((line) => line.element),
      weighted,
      h("div", { class: "line" }, title, make),
      problem,
    );
    form.addEventListener("input", () => (weighted.hidden = !lines.some((line) => line.weight.value.trim())));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const parts = lines.filter((line) => line.use.checked).map((line) => ({ name: line.name, weight: Number(line.weight.value) || null }));
      if (parts.length < 2) return problem.replaceChildren(fault(say("data.add.mix.few")));
      try {
        return this.added((await post("data/mix", { title: title.value, parts, stopping: ends.value })).added);
      } catch (wrong) {
        return problem.replaceChildren(fault(wrong.message));
      }
    });
    return card("data.add.mix", form);
  }
}

function card(key, ...content) {
  return h("section", { class: "st-card" }, h("h3", {}, say(key)), ...content);
}

function offer(select, names) {
  select.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
}

function answered(request) {
  try {
    return JSON.parse(request.responseText);
  } catch {
    return {};
  }
}
