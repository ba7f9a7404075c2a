// The buttons on a run. What can be done now, the server says with each answer; what went wrong is said under them.

import { h, put, say } from "./dom.js";
import { askNow, post } from "./live.js";
import { go } from "./route.js";

export class RunActions {
  constructor(id) {
    this.id = id;
    this.name = id;
    this.folder = "";
    const acts = {
      stop: () => this.#post("stop"),
      resume: () => this.#post("resume"),
      chat: () => go("chat", id),
      export: () => go("export", id),
      repeat: () => go("train", id),
      delete: () => this.#askDelete(),
    };
    this.buttons = Object.fromEntries(
      Object.entries(acts).map(([verb, act]) => {
        const looks = `st-button${verb === "delete" ? " quiet-bad" : ""}`;
        const props = { type: "button", class: looks, hidden: true, title: say(`runs.${verb}.info`), onclick: act };
        return [verb, h("button", props, say(`runs.${verb}`))];
      }),
    );
    this.buttons.delete.removeAttribute("title");
    this.error = h("p", { class: "st-error", role: "alert", hidden: true });
    this.element = h("div", { class: "run-actions" }, Object.values(this.buttons), this.error);
  }

  update(run) {
    this.name = run.name;
    for (const [verb, button] of Object.entries(this.buttons)) button.hidden = verb !== "repeat" && !run.can[verb];
    this.buttons.chat.classList.toggle("primary", run.status === "finished");
  }

  details({ folder }) {
    this.folder = folder;
  }

  async #post(verb) {
    const button = this.buttons[verb];
    button.disabled = true;
    this.#say("");
    try {
      await post(`runs/${encodeURIComponent(this.id)}/${verb}`);
    } catch (problem) {
      this.#say(problem.message);
    }
    button.disabled = false;
    askNow();
  }

  #say(sentence) {
    put(this.error, sentence);
    this.error.hidden = !sentence;
  }

  #askDelete() {
    const keep = h("button", { type: "button", class: "st-button" }, say("runs.cancel"));
    const remove = h("button", { type: "button", class: "st-button bad" }, say("runs.delete"));
    const dialog = h(
      "dialog",
      { class: "st-dialog" },
      h("h2", {}, say("runs.delete.ask", { name: this.name })),
      h("p", {}, say("runs.delete.info", { folder: this.folder })),
      h("div", { class: "buttons" }, keep, remove),
    );
    const close = () => dialog.close();
    keep.addEventListener("click", close);
    remove.addEventListener("click", async () => {
      close();
      await this.#post("delete");
      if (this.error.hidden) go("runs", "", { replace: true });
    });
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
    keep.focus();
  }
}
