// The browser tests, in one process, so that they share a browser and a collector, and wait
// at the same time.

import { after, describe } from "node:test";

import { lab } from "../support/lab.mjs";
import { closing } from "./closing.mjs";
import { identity } from "./identity.mjs";
import { origins } from "./origins.mjs";
import { outages } from "./outages.mjs";
import { storage } from "./storage.mjs";
import { tabs } from "./tabs.mjs";

after(() => lab.stop());

describe("in Chromium", { concurrency: 6 }, () => {
  closing();
  outages();
  tabs();
  storage();
  identity();
  origins();
});
