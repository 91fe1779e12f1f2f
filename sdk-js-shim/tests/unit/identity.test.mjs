// Who it is, which session, and what brought the visitor.

import assert from "node:assert/strict";
import { test } from "node:test";
import { startCollector } from "../support/collector.mjs";
import { KEY, stage, tick } from "../support/page.mjs";

const begin = stage(startCollector);
const MINUTE = 60_000;

/** Return what arrived, by name of the event. */
async function arrived(collector, ...pages) {
  for (const { client } of pages) await client.flush();
  return Object.fromEntries(collector.taken().map((event) => [event.name ?? event.type, event]));
}

test("the visitor is the same over events, pages and tabs", async (test) => {
  const { collector, open } = await begin(test);
  const first = open();
  first.client.track("a");
  first.client.track("b");
  const second = open();
  second.client.track("c");
  const { a, b, c } = await arrived(collector, first, second);

  assert.equal(a.anonymousId, b.anonymousId);
  assert.equal(a.anonymousId, c.anonymousId);
  assert.equal(a.sessionId, c.sessionId);
  assert.equal(a.userId, undefined);
});

test("identify() and alias() tell who later events are of, in all tabs", async (test) => {
  const { collector, open } = await begin(test);
  const first = open();
  const second = open();
  first.client.identify("u1", { name: "Ada" });
  second.client.track("a");
  second.client.alias("u1", "u2");
  first.client.track("b");
  const later = open();
  later.client.track("c");
  const { identify, a, alias, b, c } = await arrived(collector, first, second, later);

  assert.deepEqual(
    [identify, a, alias, b, c].map(({ userId }) => userId),
    ["u1", "u1", "u2", "u2", "u2"],
  );
  assert.equal(c.anonymousId, identify.anonymousId);
  assert.equal(a.traits, undefined);
});

test("a userId in the options is of that event alone", async (test) => {
  const { collector, open } = await begin(test);
  const page = open();
  page.client.identify("u1");
  page.client.track("a", {}, { userId: "u2", anonymousId: "x", sessionId: "y" });
  page.client.track("b");
  const { a, b } = await arrived(collector, page);

  assert.deepEqual([a.userId, a.anonymousId, a.sessionId], ["u2", "x", "y"]);
  assert.equal(b.userId, "u1");
  assert.match(b.anonymousId, /-7/);
});

test("reset() makes another visitor and session, in all tabs", async (test) => {
  const { collector, open } = await begin(test);
  const first = open();
  const second = open();
  first.client.identify("u1");
  first.client.track("a");
  first.client.reset();
  second.client.track("b");
  first.client.track("c");
  const { a, b, c } = await arrived(collector, first, second);

  assert.equal(b.userId, undefined);
  assert.notEqual(b.anonymousId, a.anonymousId);
  assert.notEqual(b.sessionId, a.sessionId);
  assert.equal(c.anonymousId, b.anonymousId);
});

test("reset() amid a task begins one session", async (test) => {
  const { collector, open } = await begin(test);
  const page = open();
  page.client.track("a");
  page.client.reset();
  page.client.track("b");
  await tick();
  page.client.track("c");
  const { a, b, c } = await arrived(collector, page);

  assert.notEqual(b.sessionId, a.sessionId);
  assert.equal(c.sessionId, b.sessionId);
});

test("reset() works without storage", async (test) => {
  const { collector, open } = await begin(test);
  const page = open({ storage: undefined });
  page.client.identify("u1");
  page.client.track("a");
  page.client.reset();
  page.client.track("b");
  const { a, b } = await arrived(collector, page);

  assert.equal(a.userId, "u1");
  assert.equal(b.userId, undefined);
  assert.notEqual(b.anonymousId, a.anonymousId);
});

for (const nobody of [undefined, null, ""]) {
  test(`identify(${JSON.stringify(nobody)}) does not log out, and gives nobody traits`, async (test) => {
    const { collector, open } = await begin(test);
    const page = open();
    page.client.identify("u1");
    page.client.identify(nobody, { name: "Eve" });
    page.client.track("a");
    const { a, identify } = await arrived(collector, page);

    assert.equal(a.userId, "u1");
    // The collector refuses it: the traits of nobody are not those of who was here before.
    assert.ok(!identify.userId);
  });
}

test("a number is a user, and zero is one of that event alone", async (test) => {
  const { collector, open } = await begin(test);
  const page = open();
  page.client.identify(7);
  page.client.track("a");
  page.client.identify(0, { name: "root" });
  page.client.track("b");
  const { a, identify, b } = await arrived(collector, page);

  assert.equal(a.userId, "7");
  assert.deepEqual([identify.userId, identify.traits], ["0", { name: "root" }]);
  assert.equal(b.userId, "7");
});

test("a session ends after 30 idle minutes, and not before", async (test) => {
  const { collector, clock, open } = await begin(test);
  const page = open({ options: { batchSize: 99, flushInterval: 1e9 } });
  page.client.track("a");
  clock.advance(30 * MINUTE - 1);
  page.client.track("b");
  clock.advance(30 * MINUTE);
  page.client.track("c");
  const { a, b, c } = await arrived(collector, page);

  assert.equal(b.sessionId, a.sessionId);
  assert.notEqual(c.sessionId, a.sessionId);
  assert.equal(c.anonymousId, a.anonymousId);
});

test("a session lasts 24 hours at most", async (test) => {
  const { collector, clock, open } = await begin(test);
  const page = open({ options: { batchSize: 999, flushInterval: 1e9 } });
  for (let hour = 0; hour <= 25; hour += 0.25) {
    page.client.track(`${hour}`);
    await tick();
    clock.advance(15 * MINUTE);
    await tick();
  }
  const events = await arrived(collector, page);

  assert.equal(events["23.75"].sessionId, events["0"].sessionId);
  assert.notEqual(events["24.25"].sessionId, events["0"].sessionId);
  assert.equal(events["25"].sessionId, events["24.25"].sessionId);
});

// Campaigns

const SHOP = "https://shop.example/";

test("a new campaign begins a session; the same one does not, nor does a page without", async (test) => {
  const { collector, open } = await begin(test);
  const visits = ["?utm_source=a", "", "?utm_source=a", "?utm_source=b"].map((search, index) => {
    const page = open({ url: SHOP + search });
    page.client.track(`${index}`);
    return page;
  });
  const events = await arrived(collector, ...visits);
  const sessions = [0, 1, 2, 3].map((index) => events[index].sessionId);

  assert.equal(sessions[1], sessions[0]);
  assert.equal(sessions[2], sessions[0]);
  assert.notEqual(sessions[3], sessions[0]);
});

test("first and last touch are told with every event", async (test) => {
  const { collector, open } = await begin(test);
  const first = open({
    url: `${SHOP}?utm_source=news&utm_medium=mail&utm_campaign=may&utm_term=t&utm_content=c&x=1`,
    document: { referrer: "https://mail.example/" },
  });
  first.client.track("a");
  const second = open({
    url: `${SHOP}?gclid=G1&wbraid=W1&li_fat_id=L1`,
    document: { referrer: "https://ads.example/" },
  });
  second.client.track("b");
  const third = open({ url: SHOP });
  third.client.track("c");
  const { a, b, c } = await arrived(collector, first, second, third);

  const may = { source: "news", medium: "mail", name: "may", term: "t", content: "c" };
  const clicks = { gclid: "G1", wbraid: "W1", li_fat_id: "L1" };
  assert.deepEqual(a.context.campaign, may);
  assert.deepEqual(b.context.campaign, clicks);
  assert.deepEqual(c.context.campaign, clicks);
  for (const { context } of [a, b, c]) {
    assert.deepEqual(context.firstTouch, { referrer: "https://mail.example/", ...may });
  }
});

test("a campaign counts once for a page load: a route change is none", async (test) => {
  const { collector, open } = await begin(test);
  const page = open({ url: `${SHOP}?utm_source=news` });
  page.client.track("a");
  page.location.search = "?utm_source=push";
  page.client.track("b");
  const { a, b } = await arrived(collector, page);

  assert.equal(b.sessionId, a.sessionId);
  assert.deepEqual(b.context.campaign, { source: "news" });
  assert.equal(b.context.page.search, "?utm_source=push");
});

test("two tabs of two campaigns do not begin a session with each event", async (test) => {
  const { collector, open } = await begin(test);
  const pages = [open({ url: `${SHOP}?utm_source=a` }), open({ url: `${SHOP}?utm_source=b` })];
  for (let turn = 0; turn < 4; turn++)
    pages.forEach(({ client }, index) => client.track(`${index}${turn}`));
  const events = await arrived(collector, ...pages);

  assert.equal(new Set(Object.values(events).map(({ sessionId }) => sessionId)).size, 2);
});

// Cookies

test("there are no cookies unless asked for", async (test) => {
  const { open } = await begin(test);
  const page = open();
  page.client.identify("u1");
  await tick();
  page.client.reset();
  page.client.optOut();

  assert.equal(page.document.cookie, "");
});

/** Open a page that remembers all that was said to document.cookie. */
function withCookies(open, cookies = true) {
  const said = [];
  const document = {};
  const page = open({ document, options: { cookies } });
  Object.defineProperty(page.document, "cookie", { set: (text) => said.push(text) });
  return { ...page, said };
}

test("with `cookies` the page's server learns of visitor and session, until they are reset", async (test) => {
  const { collector, open } = await begin(test);
  const page = withCookies(open);
  page.client.track("a");
  const { a } = await arrived(collector, page);

  assert.deepEqual(page.said, [
    `analytics_anonymous_id=${a.anonymousId};path=/;samesite=lax;max-age=34560000`,
    `analytics_session_id=${a.sessionId};path=/;samesite=lax;max-age=1800`,
  ]);
  page.client.reset();
  for (const text of page.said.slice(2))
    assert.match(text, /^analytics_(anonymous|session)_id=[^;]*;.*max-age=0$/);
  assert.equal(page.said.length, 4);
});

test("cookies are of this host alone, whatever text switched them on", async (test) => {
  const { open } = await begin(test);
  const page = withCookies(open, "example.com");
  page.client.track("a");

  for (const text of page.said) assert.doesNotMatch(text, /domain|example/);
  assert.equal(page.said.length, 2);
});

test("nothing is kept under other names than the SDK's", async (test) => {
  const { storage, open } = await begin(test);
  const page = open();
  page.client.identify("u1");
  await tick();
  page.client.optOut();
  page.client.optIn();

  for (const name of storage.map.keys()) assert.ok(name.startsWith(`analytics:${KEY}:`), name);
});
