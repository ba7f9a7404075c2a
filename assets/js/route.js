// Which tab and which run: named by the address, so that a reload, a bookmark and the back button land where one was.

import { appear } from "./dom.js";

const TABS = ["data", "train", "runs", "chat", "export", "system"];
const FIRST = "train";
const listeners = new Set();
const lastRun = {};

export const route = read();

function read() {
  const query = new URLSearchParams(location.search);
  const tab = TABS.includes(query.get("tab")) ? query.get("tab") : FIRST;
  return { tab, run: query.get("run") ?? "" };
}

/** Call `listener(route)` at every change of tab or run. */
export function onRoute(listener) {
  listeners.add(listener);
}

/** Go to a tab, and to a run in it. `replace`: nobody asked for it, so it gets no place in the history. */
export function go(tab, run = lastRun[tab] ?? "", { replace = false } = {}) {
  if (tab === route.tab && run === route.run) return;
  Object.assign(route, { tab, run });
  const query = new URLSearchParams({ tab, ...(run ? { run } : {}) });
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
  if (route.tab === "runs") lastRun.runs = route.run;
  document.body.dataset.tab = route.tab;
  void press(route.tab);
  for (const listener of listeners) listener(route);
}

/** Gradio's own button for the tab, hidden behind ours, is what opens it. */
async function press(tab) {
  const button = await appear(`#tab-${tab}-button`);
  if (route.tab === tab && button.getAttribute("aria-selected") !== "true") button.click();
}
