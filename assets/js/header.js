// The frame on every tab: the tabs, the run that is training, what the machine is doing, light or dark.

import { h, put, say } from "./dom.js";
import { bytes, degrees, integer, percent, roughly } from "./format.js";
import { onAnswer } from "./live.js";
import { go, onRoute, route } from "./route.js";

const SUN =
  "M12 4V2m0 20v-2m8-8h2M2 12h2m13.7-5.7 1.4-1.400M4.9 19.100l1.4-1.400m0-11.400L4.9 4.900m14.2 14.2-1.4-1.400M16 12a4 4 0 1 1-8 0 4 4 0 0 1 8 0Z";
const MOON = "M20 14.500A8 8 0 0 1 9.5 4 8 8 0 1 0 20 14.500Z";

export function start() {
  startSkip();
  startTabs();
  startMode();
  startLive();
  startDevice();
}

/** The first thing a keyboard meets: past the header, into what the tab holds. */
function startSkip() {
  document.getElementById("studio-skip").addEventListener("click", (event) => {
    event.preventDefault();
    const fields = "button, input, select, textarea, a[href], summary, [tabindex='0']";
    const first = [...document.querySelectorAll(`#tab-${route.tab} :is(${fields})`)].find((field) => field.checkVisibility());
    first?.focus();
  });
}

function startTabs() {
  const tabs = [...document.querySelectorAll("#studio-nav [role=tab]")];
  tabs.forEach((tab, place) => {
    tab.addEventListener("click", () => go(tab.dataset.tab));
    tab.addEventListener("keydown", (event) => {
      const steps = { ArrowRight: 1, ArrowLeft: -1 };
      const target = { Home: 0, End: tabs.length - 1 }[event.key] ?? place + (steps[event.key] ?? 0);
      if (target === place) return;
      event.preventDefault();
      const next = tabs[(target + tabs.length) % tabs.length];
      next.focus();
      go(next.dataset.tab);
    });
  });
  onRoute((now) => {
    for (const tab of tabs) {
      const chosen = tab.dataset.tab === now.tab;
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
      if (chosen) tab.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
  });
  document.querySelector("#studio-header .brand").addEventListener("click", (event) => {
    event.preventDefault();
    go("train");
  });
}

function startMode() {
  const button = document.getElementById("studio-mode");
  const root = document.documentElement;
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  const icon = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  icon.setAttribute("viewBox", "0 0 24 24");
  icon.setAttribute("aria-hidden", "true");
  icon.append(path);
  button.append(icon);
  const show = () => {
    const dark = root.classList.contains("dark");
    if (document.body.classList.contains("dark") !== dark) document.body.classList.toggle("dark", dark);
    const words = say(dark ? "header.to_light" : "header.to_dark");
    button.setAttribute("aria-label", words);
    button.title = words;
    path.setAttribute("d", dark ? SUN : MOON);
  };
  button.addEventListener("click", () => {
    const dark = root.classList.toggle("dark");
    localStorage.setItem("studio.mode", dark ? "dark" : "light");
    show();
    window.dispatchEvent(new Event("studio:mode"));
  });
  // Gradio sets the body's mode from the system's wish when it starts; the choice made here stands above that.
  new MutationObserver(show).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  show();
}

function startLive() {
  const button = document.getElementById("studio-live");
  const dot = h("span", { class: "dot" });
  const name = h("span", { class: "name" });
  const step = h("span", { class: "num step" });
  const left = h("span", { class: "num left" });
  const fill = h("span", { class: "fill" });
  button.append(dot, name, step, left, h("span", { class: "bar" }, fill));
  let shown = null;
  button.addEventListener("click", () => shown && go("runs", shown));
  onAnswer(({ live, queued }) => {
    shown = live?.id ?? null;
    button.hidden = !live;
    const share = live?.max_steps ? live.step / live.max_steps : 0;
    document.title = live && share ? `${Math.floor(100 * share)} % · ${live.name}` : say("app.title");
    if (!live) return;
    dot.dataset.status = live.status;
    put(name, live.name);
    const words = say(`status.${live.status}`);
    put(step, live.max_steps ? `${integer(live.step)} / ${integer(live.max_steps)}` : words);
    const waiting = queued > (live.status === "queued" ? 1 : 0) ? say("header.queued", { count: queued }) : "";
    const eta = live.eta === null ? "" : say("header.left", { time: roughly(live.eta) });
    put(left, [eta, waiting].filter(Boolean).join(" · "));
    fill.style.width = `${100 * share}%`;
    button.setAttribute("aria-label", `${say("header.live")}: ${live.name}, ${words}, ${step.textContent}`);
  });
}

function startDevice() {
  const button = document.getElementById("studio-device");
  const label = h("span", { class: "name" });
  const fill = h("span", { class: "fill" });
  const memory = h("span", { class: "num" });
  const load = h("span", { class: "num load" });
  const heat = h("span", { class: "num heat" });
  button.append(label, h("span", { class: "meter", "aria-hidden": "true" }, fill), memory, load, heat);
  button.addEventListener("click", () => go("system"));
  onAnswer(({ device }) => {
    button.hidden = false;
    put(label, device.label.replace(/^NVIDIA (GeForce )?/, ""));
    const share = device.total ? device.used / device.total : 0;
    fill.style.width = `${100 * share}%`;
    fill.dataset.state = share > 0.95 ? "bad" : share > 0.85 ? "warn" : "";
    put(memory, `${bytes(device.used).replace(" GB", "")} / ${bytes(device.total)}`);
    put(load, device.load === null ? "" : percent(device.load));
    put(heat, device.temperature === null ? "" : degrees(device.temperature));
    const words = [`${say("header.memory")} ${memory.textContent}`, `${say("header.load")} ${load.textContent}`];
    button.setAttribute("aria-label", `${device.label}: ${words.join(", ")}. ${say("header.device")}`);
  });
}
