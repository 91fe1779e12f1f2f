// Tabs take over, all at the same moment, what a tab has left that ended.

import assert from "node:assert/strict";
import { test } from "node:test";

import { lab } from "../support/lab.mjs";
import { waitFor } from "../support/waiting.mjs";

const TABS = 6;
const ROUNDS = 3;
const EVENTS = 10;
// Enough for each tab to hear when it is to start; those that are early spin for the last of it.
const AHEAD_MS = 200;
const SPIN_MS = 4;

// What the SDK wants done first, and then each 15 s, is to look for what others have left. Here
// that waits until it is told to go.
const HOLD = `
  let look;
  options.later = (work, ms) => (!look || ms === 15_000 ? (look = work) : setTimeout(work, ms));`;

export function takeover() {
  test("6 tabs at the same millisecond take over each event once", async (t) => {
    assert.deepEqual(await takeOver(t, {}), Array(ROUNDS).fill(EVENTS));
  });

  test("control: without the lock they send events more than once", async (t) => {
    const sent = await takeOver(t, { without: "lock" });

    assert.ok(sent.some((count) => count > EVENTS));
  });
}

export function inheritance() {
  test("a tab takes over what all of 40 have left, at once", async (t) => {
    assert.equal((await inherit(t, 40)).adopted, 40 * EVENTS);
  });

  test("a tab drops nothing of what 120 have left", async (t) => {
    assert.equal((await inherit(t, 120)).dropped, 0);
  });
}

/** Let a tab look for what so many have left; return its figures once it has. */
async function inherit(t, ended) {
  const visitor = await lab.visitor(t, { before: HOLD });
  const elsewhere = await visitor.openElsewhere();
  const [name, text] = await leave(visitor, elsewhere);
  const tab = await visitor.open();
  await tab.evaluate(
    ([name, text, ended]) => {
      for (let n = 0; n < ended; n++) {
        localStorage.setItem(name.replace(/.{12}$/, String(n).padStart(12, "0")), text);
      }
      look();
    },
    [name, text, ended],
  );
  return waitFor(async () => {
    const stats = await tab.evaluate(() => analytics.stats());
    return stats.adopted && stats;
  }, "the tab takes over");
}

/** Leave events for some tabs, some times; return how many events they sent each time. */
async function takeOver(t, settings) {
  const visitor = await lab.visitor(t, { ...settings, before: HOLD });
  const elsewhere = await visitor.openElsewhere();
  const left = await leave(visitor, elsewhere);
  const tabs = await Promise.all(Array.from({ length: TABS }, () => visitor.open()));
  const sent = [];
  for (let count = 0; count < ROUNDS; count++) {
    visitor.link.requests.length = 0;
    await elsewhere.evaluate(([name, text]) => localStorage.setItem(name, text), left);
    await lookTogether(tabs, left);
    await waitFor(() => isOver(tabs), "all have looked and sent");
    sent.push(visitor.link.events.length);
  }
  t.diagnostic(`sent ${sent} of ${EVENTS} each time`);
  assert.equal((await visitor.stored()).length, EVENTS);
  return sent;
}

/** Return name and text of what a tab leaves that ends while there is no way to the collector. */
async function leave(visitor, elsewhere) {
  await visitor.link.down();
  const page = await visitor.open();
  await page.evaluate((events) => Array.from({ length: events }, (_, n) => track(n)), EVENTS);
  await page.close();
  await visitor.link.up();
  return elsewhere.evaluate(() => {
    const [name, text] = Object.entries(localStorage).find(([, text]) => /^\d+\n/.test(text));
    localStorage.removeItem(name);
    return [name, text.replace(/^\d+/, "1")];
  });
}

/** Let all tabs look at the same millisecond for what they all can see. */
async function lookTogether(tabs, [name]) {
  const sees = (tab) => tab.evaluate((name) => localStorage.getItem(name) !== null, name);
  for (const tab of tabs) await waitFor(() => sees(tab), "each tab sees what is left");
  const at = Date.now() + AHEAD_MS;
  await Promise.all(tabs.map((tab) => tab.evaluate(lookAt, [at, SPIN_MS])));
}

/** In a page: look at this millisecond. */
function lookAt([at, spin]) {
  return new Promise((done) => {
    const spinAndLook = () => {
      while (Date.now() < at);
      done(look());
    };
    setTimeout(spinAndLook, at - Date.now() - spin);
  });
}

/** Whether nothing is left, nothing waits, and nobody holds the lock any more. */
async function isOver(tabs) {
  const states = tabs.map((tab) =>
    tab.evaluate(async () => {
      const { held } = await navigator.locks.query();
      const left = Object.values(localStorage).some((text) => /^\d+\n/.test(text));
      return !left && !held.length && !analytics.stats().queued;
    }),
  );
  return (await Promise.all(states)).every(Boolean);
}
