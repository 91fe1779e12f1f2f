// The script build: `window.analytics`, with settings from the `data-` attributes of its tag.

import { createClient } from "./client";
import type { Options } from "./types";

// What the snippet has put there takes calls until we come; so it stays the same object.
const analytics: any = ((window as any).analytics = (window as any).analytics || []);
const tag: any = document.currentScript;

function replay() {
  analytics.splice(0).forEach(([method, args]: [string, unknown[]]) => analytics[method](...args));
}

analytics.init = (options: Options) => {
  if (analytics.stop) analytics.stop();
  Object.assign(analytics, createClient(options));
  replay();
};
if (tag && tag.dataset.apiKey) analytics.init({ apiUrl: tag.src.split("/js/")[0], ...tag.dataset });
replay();
