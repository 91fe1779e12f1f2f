// The collector, or the way to it, is away for a while.

import assert from "node:assert/strict";
import { test } from "node:test";

import { lab } from "../support/lab.mjs";
import { LAPSE } from "../support/visitor.mjs";
import { pause, waitFor } from "../support/waiting.mjs";

const OFFLINE_MS = 3_000;
const RETRY_AFTER_S = 2;
// What a collector tells browsers of its answers, so that the SDK may read them.
const READABLE = {
  "access-control-allow-origin": "*",
  "access-control-expose-headers": "retry-after",
};

export function outages() {
  test("what a closed tab could not send is delivered on the next visit", async (t) => {
    const visitor = await lab.visitor(t);
    await visitor.link.down();
    const page = await visitor.open();
    await page.evaluate(() => track(1));
    await page.close();
    await visitor.link.up();
    const elsewhere = await visitor.openElsewhere();
    await waitFor(() => elsewhere.evaluate(isLeft), "the closed tab's lease is over");
    await visitor.open();

    await visitor.waitStored(1);
    assert.deepEqual(await visitor.stored(), [1]);
  });

  test("what is tracked offline is delivered after a reload", async (t) => {
    const visitor = await trackOfflineAndReload(t, {});

    await visitor.waitStored(2);
    assert.deepEqual(await visitor.stored(), [1, 2]);
  });

  test("control: without storage it is lost", async (t) => {
    const visitor = await trackOfflineAndReload(t, { without: "storage" });

    await visitor.waitStored(1);
    await visitor.link.settle();
    assert.deepEqual(await visitor.stored(), [2]);
  });

  test("an event whose answer breaks off is sent again, and stored once", async (t) => {
    const visitor = await lab.visitor(t);
    visitor.link.treatments = [{ answered() {} }];
    const page = await visitor.open();
    await page.evaluate(() => track(1) && analytics.flush());

    assert.deepEqual(await visitor.stored(), [1]);
    assert.equal(visitor.link.duplicates, 1);
    assert.equal(visitor.link.posts.length, 2);
  });

  test("after a 503 it waits as long as Retry-After asks, and delivers", async (t) => {
    const visitor = await lab.visitor(t);
    const headers = { ...READABLE, "retry-after": RETRY_AFTER_S };
    visitor.link.treatments = [{ status: 503, headers, body: "{}" }];
    const page = await visitor.open();
    await page.evaluate(() => track(1) && analytics.flush());

    const [first, second] = visitor.link.posts;
    t.diagnostic(`next try after ${second.at - first.at} ms`);
    assert.ok(second.at - first.at >= RETRY_AFTER_S * 1_000);
    assert.deepEqual(await visitor.stored(), [1]);
  });
}

/** Track 1 while there is no way to the collector, and 2 after a reload and once there is one. */
async function trackOfflineAndReload(t, settings) {
  const visitor = await lab.visitor(t, { ...settings, before: LAPSE });
  const page = await visitor.open();
  // Not by the browser's own switch: a request that outlives its page does not heed it.
  await visitor.link.down();
  await page.evaluate(() => track(1) && void analytics.flush());
  await pause(OFFLINE_MS);
  await page.reload();
  await visitor.link.up();
  await page.evaluate(() => track(2) && analytics.flush());
  return visitor;
}

/** In a page: whether there are events, and all of them of pages that are known to have ended. */
function isLeft() {
  const leases = Object.values(localStorage).filter((text) => /^\d+\n/.test(text));
  return leases.length > 0 && leases.every((text) => parseInt(text) < Date.now());
}
