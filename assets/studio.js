// The page's own scripts: header, runs, system. Gradio draws the forms; what changes by itself is drawn here.

import { appear, fill, fillPlaces } from "./js/dom.js";
import * as header from "./js/header.js";
import * as live from "./js/live.js";
import * as route from "./js/route.js";
import { buildRuns } from "./js/runs.js";
import { buildSystem } from "./js/system.js";

const givers = {};

/** Give a run to a Gradio tab, now or as soon as the tab is there. */
function hand({ tab, run }) {
  if (run) givers[tab]?.(run);
}

window.studio = {
  /** Open a tab, and a run in it: for the `js=` of Gradio's events too. */
  open: (tab, run = "") => route.go(tab, run),
  /** Called by a tab's hidden component: `give(run)` hands it a run's id. */
  register: (tab, give) => {
    givers[tab] = give;
    if (route.route.tab === tab) hand(route.route);
  },
};

route.onRoute(hand);
route.onRoute(({ tab }) => void appear(`#tab-${tab} > *`).then(fillPlaces));
header.start();
route.start();
fill("runs-view", buildRuns);
fill("system-view", buildSystem);
live.start();
