// What depends most on the browser, in another one: `BROWSER=firefox node --test …`, or `webkit`.

import { after, describe } from "node:test";

import { BROWSER } from "../support/browsers.mjs";
import { lab } from "../support/lab.mjs";
import { closing } from "./closing.mjs";
import { outages } from "./outages.mjs";

after(() => lab.stop());

describe(`in ${BROWSER}`, () => {
  closing();
  outages();
});
