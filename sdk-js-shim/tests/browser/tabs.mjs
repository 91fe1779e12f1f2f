// Several tabs of one origin, which come and go as they like.

import assert from "node:assert/strict";
import { test } from "node:test";

import { lab } from "../support/lab.mjs";
import { LAPSE } from "../support/visitor.mjs";
import { waitFor } from "../support/waiting.mjs";

const EVENTS = 1_000;
const TABS = 3;
const MOST_AT_ONCE = 60;
const SEED = Number(process.env.BROWSER_SEED || Date.now() % 1e6);

export function tabs() {
  test("1,000 events of 3 tabs that come and go at random are stored once each", async (t) => {
    t.diagnostic(`BROWSER_SEED=${SEED}`);
    const visitor = await lab.visitor(t);
    const numbers = Array.from({ length: EVENTS }, (_, index) => index + 1);
    const waiting = [...numbers];
    const does = { nothing: 0, reload: 0, close: 0, cut: 0 };
    const users = Array.from({ length: TABS }, async (_, tab) => {
      const random = dice(SEED + tab);
      let page = await visitor.open();
      while (waiting.length) {
        const some = waiting.splice(0, 1 + random() * MOST_AT_ONCE);
        assert.ok(await page.evaluate((some) => some.every(track), some));
        const next = Object.keys(does)[Math.floor(random() * 4)];
        does[next]++;
        if (next === "reload") await page.reload();
        if (next === "cut") visitor.link.breakAll();
        if (next === "close") {
          await page.close();
          page = await visitor.open();
        }
      }
      await page.close();
    });
    await Promise.all(users);
    const before = (await visitor.stored()).length;
    visitor.change({ before: LAPSE });
    await visitor.open();
    await visitor.waitStored(EVENTS);

    const { events, duplicates } = visitor.link;
    t.diagnostic(`${JSON.stringify(does)}, ${before} stored before the last tab came`);
    t.diagnostic(`sent ${events.length}, of which the collector had ${duplicates}`);
    assert.deepEqual(await visitor.stored(), numbers);
  });
}

/** Numbers from [0, 1), the same for the same seed (mulberry32). */
function dice(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
