// The exports there have been: looked at once a second while one is at work or on its way to the hub.

import { fault, pour } from "./dataask.js";
import { h, put, say } from "./dom.js";
import { get, post } from "./live.js";
import { route } from "./route.js";

const EVERY = 1000; // milliseconds
const PAGE = 30;

export class ExportJobs {
  /** `again(choices)` takes an export's choices over; `ended()` is told when nothing is at work any more. */
  constructor(again, ended) {
    this.again = again;
    this.ended = ended;
    this.most = PAGE;
    this.version = "";
    this.entries = new Map(); // id -> { element, html, config }
    this.none = h("p", { class: "st-hint", hidden: true }, say("export.history.none"));
    this.list = h("div", { class: "exports" });
    this.more = h("button", { type: "button", class: "st-button small", hidden: true, onclick: () => this.#older() });
    this.trouble = h("div", {});
    this.element = h("section", { id: "export-history" }, h("h2", {}, say("export.history")), this.none, this.trouble, this.list, this.more);
    this.list.addEventListener("click", (event) => void this.#clicked(event));
  }

  async look() {
    clearTimeout(this.timer);
    let live = this.live;
    try {
      const told = await get(`export/jobs?${new URLSearchParams({ most: this.most, known: this.version })}`);
      this.trouble.replaceChildren();
      live = told.live;
      if (told.jobs) this.#draw(told);
    } catch (problem) {
      this.trouble.replaceChildren(fault(problem.message));
    }
    if (this.live && !live) this.ended();
    this.live = live;
    if (live) this.timer = setTimeout(() => this.#tick(), EVERY);
  }

  /** Bring an export into sight. */
  reveal(id) {
    this.entries.get(id)?.element.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }

  /** A page that isn't looked at asks nothing; it asks on when it is come back to. */
  #tick() {
    if (route.tab !== "export") return;
    if (document.hidden) document.addEventListener("visibilitychange", () => void this.look(), { once: true });
    else void this.look();
  }

  #older() {
    this.most += 100;
    this.version = "";
    void this.look();
  }

  #draw({ jobs, version, more }) {
    this.version = version;
    this.none.hidden = jobs.length > 0;
    this.more.hidden = !more;
    put(this.more, say("export.history.more", { count: more }));
    const kept = new Set(jobs.map(({ id }) => id));
    for (const [id, { element }] of this.entries) {
      if (kept.has(id)) continue;
      element.remove();
      this.entries.delete(id);
    }
    jobs.forEach(({ id, html, config }, place) => {
      const entry = this.entries.get(id) ?? { element: h("article", { class: "st-card export-job", "data-job": id }), html: "" };
      this.entries.set(id, entry);
      entry.config = config;
      if (entry.html !== html) this.#fill(entry, html);
      if (this.list.children[place] !== entry.element) this.list.insertBefore(entry.element, this.list.children[place] ?? null);
    });
  }

  /** What was open stays open, what was typed stays typed. */
  #fill(entry, html) {
    const open = [...entry.element.querySelectorAll("details[open]")].map(({ dataset }) => dataset.fold);
    pour(entry.element, html);
    entry.html = html;
    const repeat = h("button", { type: "button", class: "st-button small", "data-again": true }, say("export.repeat"));
    entry.element.querySelector(".away")?.append(repeat);
    for (const place of entry.element.querySelectorAll("[data-push-form]")) place.replaceChildren(pushForm(place.dataset, entry));
    for (const fold of entry.element.querySelectorAll("details")) fold.open = open.includes(fold.dataset.fold);
  }

  async #clicked(event) {
    const button = event.target.closest("button");
    const id = event.target.closest("[data-job]")?.dataset.job;
    if (!button || !id) return;
    const { copyText, cancel, pushStop, push, again, copy } = button.dataset;
    const path = `export/jobs/${encodeURIComponent(id)}`;
    if (copyText !== undefined) await copied(button, copyText);
    else if (copy !== undefined) await copied(button, button.closest(".code-block").querySelector("code").textContent);
    else if (again !== undefined) this.again(this.entries.get(id).config);
    else if (cancel !== undefined) await this.#do(button, `${path}/cancel`, {});
    else if (pushStop !== undefined) await this.#do(button, `${path}/push/stop`, {});
    else if (push !== undefined) await this.#do(button, `${path}/push`, this.entries.get(id).wished);
  }

  async #do(button, path, body) {
    const entry = button.closest("[data-job]");
    entry.querySelector(".refused")?.remove();
    button.disabled = true;
    try {
      await post(path, body);
    } catch (problem) {
      button.disabled = false;
      const told = fault(problem.message);
      told.classList.add("refused");
      button.after(told);
      return;
    }
    await this.look();
  }
}

async function copied(button, text) {
  const before = button.textContent;
  await navigator.clipboard.writeText(text);
  put(button, say("runs.copied"));
  setTimeout(() => put(button, before), 1500);
}

/** Where to on the hub; what is typed is kept with the entry, which may be drawn anew. */
function pushForm({ repo, private: secret, token, again }, entry) {
  entry.wished ??= { repo, private: secret === "yes" };
  const name = h("input", { class: "st-input", type: "text", spellcheck: "false", autocomplete: "off", value: entry.wished.repo });
  const box = h("input", { type: "checkbox" });
  box.checked = entry.wished.private;
  name.addEventListener("input", () => {
    entry.wished.repo = name.value;
  });
  box.addEventListener("change", () => {
    entry.wished.private = box.checked;
  });
  return h(
    "div",
    { class: "push-form" },
    h("label", { class: "field" }, h("span", { class: "of" }, say("export.push.repo")), name, h("span", { class: "st-hint" }, say("export.push.repo.note"))),
    h("label", { class: "field switch" }, box, h("span", { class: "of" }, say("export.push.private"))),
    h("p", { class: token === "yes" ? "st-hint" : "st-note warn" }, say(token === "yes" ? "export.push.token" : "export.push.no_token")),
    h("button", { type: "button", class: "st-button", "data-push": true }, say(again === "yes" ? "export.push.again" : "export.push.do")),
  );
}
