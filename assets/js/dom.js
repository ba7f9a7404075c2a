// Making elements and finding words. Text is always set as text, never as HTML: names, logs and causes are other
// people's words and may hold anything.

const texts = JSON.parse(document.getElementById("studio-texts").textContent);

/** The text of a key, its {names} filled in. */
export function say(key, values = {}) {
  const text = texts[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** An element. `props`: attributes, `class`, `data-*`, and `onclick`-like listeners; children: elements or text. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Set an element's text if it differs, so that a tick that brings nothing new touches nothing. */
export function put(element, text) {
  const wanted = text ?? "";
  if (element.textContent !== wanted) element.textContent = wanted;
}

/** A word with a dotted underline and a one-sentence explanation on hover and focus. */
export function term(word, sentence) {
  return h("span", { class: "term", tabindex: "0", "data-tip": sentence, "aria-description": sentence }, word);
}

/** Resolves with the element once it is in the page. */
export function appear(selector) {
  return new Promise((resolve) => {
    const look = () => {
      const element = document.querySelector(selector);
      if (element) resolve(element);
      else requestAnimationFrame(look);
    };
    look();
  });
}

const places = new Map();

/** Fill the empty place `id` with what `build` returns whenever Gradio has (again) put it into the page. */
export function fill(id, build) {
  places.set(id, build);
  fillPlaces();
}

export function fillPlaces() {
  for (const [id, build] of places) {
    const place = document.getElementById(id);
    if (place && !place.dataset.filled) {
      place.dataset.filled = "yes";
      place.replaceChildren(build());
    }
  }
}

/** A button that copies what `text()` returns and says so. */
export function copyButton(text) {
  const button = h("button", { type: "button", class: "st-button small" }, say("runs.copy"));
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text());
    put(button, say("runs.copied"));
    setTimeout(() => put(button, say("runs.copy")), 1500);
  });
  return button;
}
