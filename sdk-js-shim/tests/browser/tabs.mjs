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

// The last tab is alone, and so may look again and again for what the others have left: some of it
// comes late, after they are closed.
const HEIR = `
  ${LAPSE}
  options.later = (work, ms) => {
    if (ms !== 15_000) return setTimeout(work, ms);
    setTimeout(() => { lapse(); work(); }, 500);
  };`;
// What happens to a tab, or to the network, after some events.
const TURNS = ["nothing", "reload", "close", "cut"];

export function tabs() {
  test("1,000 events of 3 tabs that come and go at random are stored once each", async (t) => {
    t.diagnostic(`BROWSER_SEED=${SEED}`);
    const visitor = await lab.visitor(t);
    const numbers = Array.from({ length: EVENTS }, (_, index) => index + 1);
    const waiting = [...numbers];
    const users = Array.from({ length: TABS }, (_, tab) =>
      comeAndGo(visitor, waiting, dice(SEED + tab)),
    );
    const turns = (await Promise.all(users)).flat();
    const before = (await visitor.stored()).length;
    visitor.change({ before: HEIR });
    await visitor.open();
    await visitor.waitStored(EVENTS);

    const counts = TURNS.map((turn) => `${turn} ${turns.filter((one) => one === turn).length}`);
    const { events, duplicates } = visitor.link;
    t.diagnostic(`${counts.join(", ")}; ${before} stored before the last tab came`);
    t.diagnostic(`sent ${events.length}, of which the collector had ${duplicates}`);
    assert.deepEqual(await visitor.stored(), numbers);
  });

  test("a tab leaves alone what another keeps that lives", async (t) => {
    const visitor = await lab.visitor(t);
    await visitor.link.down();
    const living = await visitor.open();
    await living.evaluate(() => [1, 2, 3].every(track));
    await waitFor(() => living.evaluate(isLocked), "it has looked for what others left");
    await waitFor(async () => !(await living.evaluate(isLocked)), "it is done with that");
    const other = await visitor.open();
    await waitFor(() => other.evaluate(isLocked), "the other tab has looked");

    assert.equal(await other.evaluate(() => analytics.stats().adopted), 0);
    assert.equal(await living.evaluate(() => analytics.stats().queued), 3);
  });
}

/** Track what waits, some at a time, in a tab that meets with something each time; return what. */
async function comeAndGo(visitor, waiting, random) {
  const turns = [];
  let page = await visitor.open();
  while (waiting.length) {
    const some = waiting.splice(0, 1 + random() * MOST_AT_ONCE);
    assert.ok(await page.evaluate((some) => some.every(track), some));
    const turn = TURNS[Math.floor(random() * TURNS.length)];
    if (turn === "reload") await page.reload();
    if (turn === "cut") visitor.link.breakAll();
    if (turn === "close") {
      await page.close();
      page = await visitor.open();
    }
    turns.push(turn);
  }
  await page.close();
  return turns;
}

/** In a page: whether a tab holds the lock, as it does for a second once it has looked. */
async function isLocked() {
  return (await navigator.locks.query()).held.length > 0;
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
