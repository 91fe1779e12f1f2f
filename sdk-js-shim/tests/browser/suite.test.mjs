// The browser tests, in one process, so that they share a browser and a collector, and wait
// at the same time.

import { after, describe } from "node:test";

import { lab } from "../support/lab.mjs";
import { closing } from "./closing.mjs";
import { cost } from "./cost.mjs";
import { identity } from "./identity.mjs";
import { killing } from "./killing.mjs";
import { origins } from "./origins.mjs";
import { outages } from "./outages.mjs";
import { storage } from "./storage.mjs";
import { tabs } from "./tabs.mjs";
import { inheritance, takeover } from "./takeover.mjs";

after(() => lab.stop());

// Those that take longest come first.
describe("in Chromium", { concurrency: 6 }, () => {
  outages();
  tabs();
  takeover();
  inheritance();
  closing();
  storage();
  identity();
  origins();
});

// What measures, and what takes the collector from the others.
describe("in Chromium, one at a time", () => {
  cost();
  killing();
});
