// Who, where and when: what every event tells.

import assert from "node:assert/strict";
import { test } from "node:test";

import { lab } from "../support/lab.mjs";

const DAY_MS = 86_400_000;
const TOLERANCE_MS = 10_000;

export function identity() {
  for (const [place, shiftMs] of Object.entries({ ahead: DAY_MS, behind: -DAY_MS })) {
    test(`a clock one day ${place} is corrected in the store`, async (t) => {
      const visitor = await lab.visitor(t, { before: shiftClock(shiftMs) });
      const page = await visitor.open();
      await page.evaluate(() => track(1) && analytics.flush());
      const [event] = await lab.collector.stored(visitor.userId);
      const received = Date.parse(event.receivedAt);

      assert.ok(Math.abs(Date.parse(event.timestamp) - received) < TOLERANCE_MS, event.timestamp);
      assert.ok(
        Math.abs(Date.parse(event.clientTimestamp) - shiftMs - received) < TOLERANCE_MS,
        event.clientTimestamp,
      );
    });
  }

  test("an event tells its page, its campaigns, first and last, and its session", async (t) => {
    const visitor = await lab.visitor(t);
    const first = await visitor.open("?utm_source=letter&utm_campaign=spring");
    await first.evaluate(() => track(1) && analytics.flush());
    await first.goto(first.url().replace(/\?.*/, "?gclid=abc&utm_source=search&q=shoes"));
    await first.evaluate(() => track(2) && analytics.flush());
    const [late, early] = await lab.collector.stored(visitor.userId);
    const url = `${lab.site.origin}/${visitor.userId}`;
    const letter = { source: "letter", name: "spring" };

    assert.deepEqual(early.context.page, {
      url: `${url}?utm_source=letter&utm_campaign=spring`,
      path: `/${visitor.userId}`,
      search: "?utm_source=letter&utm_campaign=spring",
      title: "Shop",
      referrer: "",
    });
    assert.deepEqual(early.context.campaign, letter);
    assert.deepEqual(late.context.campaign, { source: "search", gclid: "abc" });
    assert.deepEqual(late.context.firstTouch, { referrer: "", ...letter });
    assert.deepEqual(late.context.library, { name: "analytics-js", version: "0.0.0" });
    assert.notEqual(late.sessionId, early.sessionId);
    assert.equal(late.anonymousId, early.anonymousId);
  });

  test("pages of one visit, in one tab or two, share visitor and session", async (t) => {
    const visitor = await lab.visitor(t);
    for (const n of [1, 2]) {
      const page = await visitor.open();
      await page.evaluate((n) => track(n) && analytics.flush(), n);
      await page.reload();
      await page.evaluate((n) => track(n) && analytics.flush(), n * 10);
    }
    const events = await lab.collector.stored(visitor.userId);

    assert.equal(events.length, 4);
    assert.equal(new Set(events.map(({ anonymousId }) => anonymousId)).size, 1);
    assert.equal(new Set(events.map(({ sessionId }) => sessionId)).size, 1);
    assert.match(events[0].anonymousId, /^[0-9a-f-]{36}$/);
  });

  test("cookies tell the page's server the visitor and the session, where they may", async (t) => {
    const [shy, open] = [
      await lab.visitor(t),
      await lab.visitor(t, { before: "options.cookies = true;" }),
    ];
    for (const visitor of [shy, open]) {
      const page = await visitor.open();
      await page.evaluate(() => track(1) && analytics.flush());
    }
    const [event] = await lab.collector.stored(open.userId);
    const cookies = await open.context.cookies();

    assert.deepEqual(await shy.context.cookies(), []);
    assert.deepEqual(Object.fromEntries(cookies.map(({ name, value }) => [name, value])), {
      analytics_anonymous_id: event.anonymousId,
      analytics_session_id: event.sessionId,
    });
  });
}

/** What a page does to live *shiftMs* from now. */
function shiftClock(shiftMs) {
  return `
    Date = class extends Date {
      constructor(...given) { super(...(given.length ? given : [Date.now()])); }
      static now() { return super.now() + ${shiftMs}; }
    };`;
}
