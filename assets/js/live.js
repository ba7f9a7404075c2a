// The page's one clock: while the page is looked at, one request a second; hidden, none.

import { fillPlaces, put, say } from "./dom.js";

const SECOND = 1000;
const listeners = new Set();
let asking = () => ({});
let timer = null;
let busy = false;
let again = false;
let failures = 0;

/** Call `listener` with each answer of /api/live. */
export function onAnswer(listener) {
  listeners.add(listener);
}

/** `question()` returns what to ask for beside the header's figures: run, offset, log_offset. */
export function ask(question) {
  asking = question;
}

/** Ask now instead of at the next second: something was pressed. */
export function askNow() {
  if (busy) again = true;
  else void tick();
}

export function start() {
  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (!document.hidden) void tick();
  });
  void tick();
}

async function tick() {
  clearTimeout(timer);
  if (document.hidden || busy) return;
  busy = true;
  fillPlaces();
  try {
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(asking())) if (value !== null && value !== "") query.set(name, value);
    const answer = await get(`live?${query}`);
    failures = 0;
    notice("");
    for (const listener of listeners) listener(answer);
  } catch (problem) {
    failures += 1;
    if (problem.status === 401) return notice(say("app.signed_out")); // asking on would only be wrong more often
    if (failures > 2) notice(say("app.lost"));
  } finally {
    busy = false;
  }
  clearTimeout(timer);
  if (again) {
    again = false;
    void tick();
  } else timer = setTimeout(tick, failures > 5 ? 4 * SECOND : SECOND);
}

function notice(text) {
  const element = document.getElementById("studio-notice");
  put(element, text);
  element.hidden = !text;
}

/** GET /api/<path> as JSON. Throws an Error with `.status`. */
export async function get(path) {
  return read(await fetch(`api/${path}`, { headers: { accept: "application/json" } }));
}

/** POST an object to /api/<path>. Throws an Error whose message is a sentence to show; `signal` gives the question up. */
export async function post(path, body = {}, signal = null) {
  const headers = { "content-type": "application/json" };
  return read(await fetch(`api/${path}`, { method: "POST", headers, body: JSON.stringify(body), signal }));
}

/** An answer as JSON, or its refusal as an Error. */
export async function read(response) {
  if (response.ok) return response.json();
  let sentence = say("app.lost");
  try {
    const told = await response.json();
    if (told.message) sentence = `${told.message} ${told.hint ?? ""}`.trim();
  } catch {
    // not ours: the sentence stays
  }
  const problem = new Error(sentence);
  problem.status = response.status;
  throw problem;
}
