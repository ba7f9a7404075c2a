// Which tab, and which run, search or dataset in it: named by the address, so that a reload, a bookmark and the back button land
// where one was.

import { appear } from "./dom.js";

const TABS = ["data", "train", "runs", "chat", "export", "system"];
const FIRST = "train";
const MORE = ["run", "sweep", "dataset", "view", "max_length"]; // what a tab shows, or is handed
const KEPT = { runs: ["run", "sweep"], export: ["run"], data: ["dataset", "view"] }; // what a tab comes back to
const listeners = new Set();
const last = {};

export const route = read();

function read() {
  const query = new URLSearchParams(location.search);
  const tab = TABS.includes(query.get("tab")) ? query.get("tab") : FIRST;
  return { tab, ...Object.fromEntries(MORE.map((name) => [name, query.get(name) ?? ""])) };
}

/** Call `listener(route)` at every change of tab, run, search or dataset. */
export function onRoute(listener) {
  listeners.add(listener);
}

/**
 * Go to a tab, and to a run in it; `more` names a dataset and what of it. `replace`: nobody asked for it, so it gets no
 * place in the history.
 */
export function go(tab, run, { replace = false, ...more } = {}) {
  const given = run === undefined && !Object.keys(more).length ? (last[tab] ?? {}) : { ...more, run: run ?? "" };
  const wanted = Object.fromEntries(MORE.map((name) => [name, given[name] ?? ""]));
  if (tab === route.tab && MORE.every((name) => wanted[name] === route[name])) return;
  Object.assign(route, { tab, ...wanted });
  const query = new URLSearchParams([["tab", tab], ...MORE.filter((name) => wanted[name]).map((name) => [name, wanted[name]])]);
  history[replace ? "replaceState" : "pushState"](null, "", `?${query}`);
  tell();
}

export function start() {
  window.addEventListener("popstate", () => {
    Object.assign(route, read());
    tell();
  });
  tell();
}

function tell() {
  if (KEPT[route.tab]) last[route.tab] = Object.fromEntries(KEPT[route.tab].map((name) => [name, route[name]]));
  document.body.dataset.tab = route.tab;
  void press(route.tab);
  for (const listener of listeners) listener(route);
}

/** Gradio's own button for the tab, hidden behind ours, is what opens it. */
async function press(tab) {
  const button = await appear(`#tab-${tab}-button`);
  if (route.tab === tab && button.getAttribute("aria-selected") !== "true") button.click();
}
