// The page's own scripts: header, data, runs, export, system, and whether a run fits. Gradio draws the forms; what changes by itself is drawn here.

import { buildData } from "./js/data.js";
import { appear, fill, fillPlaces } from "./js/dom.js";
import { buildExport } from "./js/export.js";
import { buildFit, buildWarning } from "./js/fit.js";
import { buildModels } from "./js/fitmodels.js";
import * as form from "./js/form.js";
import * as header from "./js/header.js";
import * as live from "./js/live.js";
import * as route from "./js/route.js";
import { buildRuns } from "./js/runs.js";
import { buildSweepForm } from "./js/sweepform.js";
import { buildSystem } from "./js/system.js";

const givers = {};

/** Give a run or a dataset to a Gradio tab, now or as soon as the tab is there. */
function hand({ tab, run, dataset, max_length: length }) {
  if (run) givers[tab]?.(run);
  else if (dataset) givers[tab]?.(JSON.stringify({ dataset, ...(length ? { max_length: Number(length) } : {}) }));
}

window.studio = {
  /** Open a tab, and a run in it: for the `js=` of Gradio's events too. */
  open: (tab, run = "") => route.go(tab, run),
  /** The Train tab's form, for Gradio's components and for other scripts. */
  form: form.mount,
  told: form.told,
  look: form.look,
  change: form.change,
  /** Called by a tab's hidden component: `give(value)` hands it a run's id, or a dataset as JSON. */
  register: (tab, give) => {
    givers[tab] = give;
    if (route.route.tab === tab) hand(route.route);
  },
};

route.onRoute(hand);
route.onRoute(({ tab }) => void appear(`#tab-${tab} > *`).then(fillPlaces));
header.start();
route.start();
fill("data-view", buildData);
fill("runs-view", buildRuns);
fill("export-view", buildExport);
fill("sweep-view", buildSweepForm);
fill("system-view", buildSystem);
fill("fit-models", buildModels);
fill("fit-view", buildFit);
fill("fit-warning", buildWarning);
live.start();
