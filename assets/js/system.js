// The System tab: the machine as it is now, every two seconds while somebody looks.

import { h, put, say } from "./dom.js";
import { bytes, degrees, kilowattHours, megahertz, percent, watts } from "./format.js";
import { Learnt } from "./learnt.js";
import { get } from "./live.js";
import { onRoute, route } from "./route.js";

const EVERY = 2000;
let machine = null;
let timer = null;

onRoute(() => void look());
document.addEventListener("visibilitychange", () => void look());

async function look() {
  clearTimeout(timer);
  if (!machine || route.tab !== "system" || document.hidden) return;
  try {
    machine.update(await get("machine"));
  } catch {
    // the header's notice says that the studio doesn't answer
  }
  clearTimeout(timer);
  timer = setTimeout(look, EVERY);
}

export function buildSystem() {
  machine = new Machine();
  void look();
  return machine.element;
}

class Machine {
  constructor() {
    this.problem = h("p", { class: "st-note warn", hidden: true });
    this.note = h("p", { class: "st-note warn", hidden: true });
    this.gpus = h("div", { class: "cards" });
    this.cpu = new Meter(say("system.cpu"));
    this.ram = new Meter(say("system.ram"));
    this.disk = new Meter(say("system.disk"));
    this.learnt = new Learnt();
    this.versions = h("dl", { class: "st-facts" });
    this.places = h("dl", { class: "st-facts places" });
    this.cards = [];
    const cards = [this.cpu, this.ram, this.disk].map((meter) => h("section", { class: "st-card" }, meter.element));
    this.element = h(
      "div",
      { class: "system" },
      this.problem,
      this.note,
      this.gpus,
      h("div", { class: "cards three" }, cards),
      this.learnt.element,
      h(
        "div",
        { class: "cards" },
        h("section", { class: "st-card" }, h("h3", {}, say("system.versions")), this.versions),
        h("section", { class: "st-card" }, h("h3", {}, say("system.places")), this.places),
      ),
    );
  }

  update(seen) {
    warn(this.problem, seen.problem);
    warn(this.note, seen.gpus.length ? seen.gpu_note : null);
    this.#cards(seen);
    this.cpu.set(seen.cpu_load === null ? null : seen.cpu_load / 100, percent(seen.cpu_load));
    this.cpu.fill.dataset.state = ""; // as is a card at work, a busy processor is no cause for worry
    this.cpu.note(`${seen.cpu_name} · ${say("system.cores", { count: seen.cpu_count })}`);
    this.ram.set(seen.ram_used / seen.ram_total, of(seen.ram_used, seen.ram_total));
    this.ram.note(say("system.free", { size: bytes(seen.ram_available) }));
    this.disk.set(1 - seen.disk_free / seen.disk_total, of(seen.disk_total - seen.disk_free, seen.disk_total));
    this.disk.note(say("system.free", { size: bytes(seen.disk_free) }));
    this.learnt.update(seen.learnt);
    const system = [[say("system.os"), seen.os], [say("system.driver"), driver(seen)]];
    const missing = (version) => (version === "missing" ? say("system.missing") : version);
    const packages = Object.entries(seen.versions).map(([name, version]) => [name, missing(version)]);
    facts(this.versions, [...system.filter(([, value]) => value), ...packages]);
    facts(this.places, Object.entries(seen.places).map(([name, path]) => [say(`system.place.${name}`), path]));
  }

  #cards({ gpus, gpu_note: why, holders }) {
    const wanted = gpus.length ? gpus.length : 0;
    if (this.cards.length !== wanted || !this.gpus.childElementCount) {
      this.cards = gpus.map(() => new Card());
      this.holders = new Processes();
      const words = [h("h3", {}, say("system.no_gpu")), h("p", {}), h("h4", {}, say("system.holders"))];
      this.none = wanted ? null : h("section", { class: "st-card" }, words, this.holders.element);
      this.gpus.replaceChildren(...(wanted ? this.cards.map((card) => card.element) : [this.none]));
    }
    gpus.forEach((gpu, place) => this.cards[place].update(gpu));
    this.holders.set(holders);
    if (this.none) put(this.none.querySelector("p"), [why, say("system.no_gpu.next")].filter(Boolean).join(" "));
  }
}

/** A name, a bar, a figure, and a line under them. */
class Meter {
  constructor(name) {
    this.figure = h("span", { class: "num" });
    this.fill = h("span", { class: "fill" });
    this.under = h("p", { class: "under" });
    this.element = h(
      "div",
      { class: "st-meter" },
      h("h3", {}, name, this.figure),
      h("div", { class: "meter", "aria-hidden": "true" }, this.fill),
      this.under,
    );
  }

  set(share, words) {
    const known = Number.isFinite(share);
    put(this.figure, words);
    this.fill.style.width = known ? `${100 * share}%` : "0";
    this.fill.dataset.state = known && share > 0.95 ? "bad" : known && share > 0.85 ? "warn" : "";
  }

  note(words) {
    put(this.under, words);
  }
}

/** One graphics card. */
class Card {
  constructor() {
    this.name = h("h3", {});
    this.memory = new Meter(say("system.memory"));
    this.load = new Meter(say("system.load"));
    this.figures = h("dl", { class: "card-figures" });
    this.slowed = h("p", { class: "st-note warn", hidden: true });
    this.processes = new Processes();
    this.none = h("p", { class: "under" }, say("system.no_processes"));
    this.element = h(
      "section",
      { class: "st-card gpu" },
      this.name,
      h("div", { class: "cards two" }, this.memory.element, this.load.element),
      this.slowed,
      this.figures,
      h("h4", {}, say("system.processes")),
      this.processes.element,
      this.none,
    );
  }

  #figures(gpu) {
    const energy = gpu.energy === null ? null : gpu.energy / 3.6e6;
    const pairs = [
      ["system.temperature", degrees(gpu.temperature)],
      ["system.power", power(gpu)],
      ["system.clock", clock(gpu.clock, gpu.clock_most)],
      ["system.memory_clock", clock(gpu.memory_clock, gpu.memory_clock_most)],
      ["system.link", link(gpu)],
      ["system.energy", energy === null ? null : say("system.energy.value", { kwh: kilowattHours(energy) })],
      ["system.parts", gpu.parts.map((part) => say("system.part", { name: part.name, memory: of(part.memory_used, part.memory_total) })).join("; ")],
    ];
    const told = pairs.filter(([, value]) => value).map(([key, value]) => [say(key), value]);
    const text = JSON.stringify(told);
    if (this.figures.dataset.told === text) return;
    this.figures.dataset.told = text;
    this.figures.replaceChildren(...told.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", { class: "num" }, value))));
  }

  update(gpu) {
    put(this.name, `${gpu.index}: ${gpu.name}`);
    this.memory.set(gpu.memory_used / gpu.memory_total, of(gpu.memory_used, gpu.memory_total));
    this.memory.note(gpu.memory_free === null ? "" : say("system.free", { size: bytes(gpu.memory_free) }));
    this.load.set(gpu.load === null ? null : gpu.load / 100, percent(gpu.load));
    this.load.fill.dataset.state = ""; // a card at work is no cause for worry
    const reasons = gpu.slowed.map((reason) => say(`system.slowed.${reason}`)).join("; ");
    warn(this.slowed, reasons ? say("system.slowed", { reasons }) : "");
    this.#figures(gpu);
    this.none.hidden = gpu.processes.length > 0;
    this.processes.set(gpu.processes);
  }
}

/** Who holds memory, and how much. */
class Processes {
  constructor() {
    this.rows = h("tbody");
    const heads = ["pid", "process", "memory"].map((key) => h("th", { class: key }, say(`system.${key}`)));
    this.element = h("table", { class: "st-table" }, h("thead", {}, h("tr", {}, heads)), this.rows);
  }

  set(processes) {
    this.element.hidden = processes.length === 0;
    const rows = processes.map((process) => [String(process.pid), process.name, bytes(process.memory_bytes)]);
    const cells = ([pid, name, size]) => [h("td", { class: "num" }, pid), h("td", {}, name), h("td", { class: "num" }, size)];
    this.rows.replaceChildren(...rows.map((row) => h("tr", {}, cells(row))));
  }
}

function power(gpu) {
  const now = gpu.power_limit ? say("system.of", { used: watts(gpu.power), total: watts(gpu.power_limit) }) : watts(gpu.power);
  if (!gpu.power_range) return now;
  const [least, most] = gpu.power_range;
  return say("system.power.range", { power: now, least: watts(least), most: watts(most) });
}

function clock(now, most) {
  if (now === null) return null;
  return most === null ? megahertz(now) : say("system.of", { used: String(now), total: megahertz(most) });
}

/** How the card is connected; at rest the link is turned down, which is no fault. */
function link(gpu) {
  if (gpu.pcie_generation === null || gpu.pcie_width === null) return null;
  const words = { generation: gpu.pcie_generation, width: gpu.pcie_width };
  const most = gpu.pcie_generation_most;
  return most > gpu.pcie_generation ? say("system.link.most", { ...words, most }) : say("system.link.value", words);
}

function of(used, total) {
  const [most, unit] = bytes(total).split(" ");
  const less = bytes(used).replace(` ${unit}`, ""); // "4.1 of 24.0 GB": the unit once
  return say("system.of", { used: less, total: unit ? `${most} ${unit}` : most });
}

function warn(element, sentence) {
  element.hidden = !sentence;
  put(element, sentence);
}

function driver(seen) {
  return seen.driver ? `${seen.driver}${seen.cuda ? ` (CUDA ${seen.cuda})` : ""}` : "";
}

function facts(list, pairs) {
  const told = JSON.stringify(pairs);
  if (list.dataset.told === told) return;
  list.dataset.told = told;
  list.replaceChildren(...pairs.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}
