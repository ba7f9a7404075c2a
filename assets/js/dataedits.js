// Rows changed by hand, for a new dataset: position -> JSON. Until they are saved there they outlive a reload of the page
// and a look at another dataset, as long as the browser's tab is open.

const keptAs = (name) => `studio.data.edits.${name}`;
let tooMany = false; // more than the browser keeps: leaving the page would lose them, so it asks

window.addEventListener("beforeunload", (event) => tooMany && event.preventDefault());

export class Edits extends Map {
  constructor(name) {
    super();
    this.name = name;
    for (const [position, written] of read(name)) super.set(position, written);
  }

  set(position, written) {
    super.set(position, written);
    this.#keep();
    return this;
  }

  delete(position) {
    const there = super.delete(position);
    this.#keep();
    return there;
  }

  clear() {
    super.clear();
    this.#keep();
  }

  #keep() {
    try {
      if (this.size) sessionStorage.setItem(keptAs(this.name), JSON.stringify([...this]));
      else sessionStorage.removeItem(keptAs(this.name));
      tooMany = false;
    } catch {
      tooMany = true;
    }
  }
}

function read(name) {
  try {
    return JSON.parse(sessionStorage.getItem(keptAs(name))) ?? [];
  } catch {
    return [];
  }
}
