// The collector is of another origin than the page: what browsers ask it, and what it refuses.

import assert from "node:assert/strict";
import { test } from "node:test";

import { lab } from "../support/lab.mjs";
import { LAPSE } from "../support/visitor.mjs";
import { waitFor } from "../support/waiting.mjs";

const POSTS = 5;

export function origins() {
  test("the browser asks once for leave to send, however often it sends", async (t) => {
    const visitor = await lab.visitor(t);
    const page = await visitor.open();
    for (let n = 1; n <= POSTS; n++) {
      await page.evaluate((n) => track(n) && analytics.flush(), n);
    }
    const { preflights, posts } = visitor.link;

    t.diagnostic(`${preflights.length} preflight for ${posts.length} requests`);
    assert.equal(preflights.length, 1);
    assert.equal(posts.length, POSTS);
    assert.equal((await visitor.stored()).length, POSTS);
  });

  test("a page that may not use its key says so with debug, and keeps its events", async (t) => {
    const key = await lab.collector.makeKey(["https://shop.example.org"]);
    const before = `options.debug = true; ${LAPSE}`;
    const visitor = await lab.visitor(t, { apiKey: key.key, before });
    const page = await visitor.open();
    const said = [];
    page.on("console", (message) => said.push(message.text()));
    await page.evaluate(() => track(1) && void analytics.flush());
    await waitFor(() => said.some((text) => text.includes("ORIGIN_NOT_ALLOWED")), "it is said");
    const { queued, delivered } = await page.evaluate(() => analytics.stats());
    const kept = await page.evaluate(() => Object.values(localStorage).join("\n"));

    t.diagnostic(said.find((text) => text.includes("ORIGIN_NOT_ALLOWED")));
    assert.deepEqual({ queued, delivered }, { queued: 1, delivered: 0 });
    assert.ok(kept.includes('"properties":{"n":1}'));
    assert.deepEqual(await visitor.stored(), []);

    await lab.collector.allow(key, lab.site.origin);
    await page.reload();
    await visitor.waitStored(1);
    assert.deepEqual(await visitor.stored(), [1]);
  });
}
