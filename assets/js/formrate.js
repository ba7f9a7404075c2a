// The learning rate over the run, as a small picture with a sentence below it.

import { h, put } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HEIGHT = 56;

export function makeRate(words) {
  const line = document.createElementNS(SVG, "polyline");
  const svg = document.createElementNS(SVG, "svg");
  for (const [name, value] of Object.entries({ viewBox: `0 -2 ${WIDTH} ${HEIGHT + 4}`, preserveAspectRatio: "none", role: "img", "aria-label": words["form.rate.label"] })) {
    svg.setAttribute(name, value);
  }
  svg.append(line);
  const text = h("figcaption", { class: "num" });
  return {
    element: h("figure", { class: "rate", id: "form-rate" }, svg, text),
    draw: ({ points, text: told }) => {
      line.setAttribute("points", points.map(([at, share]) => `${(at * WIDTH).toFixed(1)},${(HEIGHT * (1 - share)).toFixed(1)}`).join(" "));
      put(text, told);
    },
  };
}
