// Nothing is taken, kept or sent of those who don't want it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { accepted, startCollector } from "../support/collector.mjs";
import { balance, KEY, stage, tick, until } from "../support/page.mjs";

const begin = stage(startCollector);
const names = (collector) => collector.taken().map(({ name }) => name);

test("optOut in the options takes nothing and keeps nothing, until optIn()", async (test) => {
  const { collector, clock, storage, open } = await begin(test);
  const page = open({ options: { optOut: true, cookies: true } });
  assert.equal(page.client.track("a"), false);
  assert.equal(page.client.identify("u1"), false);
  clock.advance(120_000);
  page.fire("visibilitychange", true);
  page.fire("pagehide");
  await page.client.flush();
  assert.equal(storage.length, 0);
  assert.equal(page.document.cookie, "");
  assert.equal(page.client.stats().refused, 2);
  page.client.optIn();
  assert.equal(page.client.track("b"), true);
  await page.client.flush();

  assert.deepEqual(names(collector), ["b"]);
});

test("optIn() and optOut() are remembered, and hold in all tabs", async (test) => {
  const { open } = await begin(test);
  const first = open();
  const second = open();
  first.client.optOut();
  assert.equal(second.client.track("a"), false);
  assert.equal(open().client.track("a"), false);
  second.client.optIn();
  assert.equal(first.client.track("a"), true);
  assert.equal(open({ options: { optOut: true } }).client.track("a"), true);
});

test("optOut() erases what waits on its page and who it was, and counts it", async (test) => {
  const { collector, storage, open } = await begin(test);
  const page = open();
  page.client.identify("u1");
  await tick();
  page.client.optOut();
  assert.deepEqual([...storage.map], [[`analytics:${KEY}:out`, "1"]]);
  await page.client.flush();

  assert.equal(collector.requests.length, 0);
  assert.equal(page.client.stats().dropped, 1);
  assert.deepEqual(...balance(page.client.stats()).map((sum) => [sum]));
  page.client.optIn();
  page.client.track("c");
  await page.client.flush();
  assert.equal(collector.taken()[0].userId, undefined);
});

test("other pages that are open drop what they have when they would send it", async (test) => {
  const { collector, clock, storage, open } = await begin(test);
  const page = open();
  const other = open();
  other.client.track("b");
  await tick();
  page.client.optOut();
  clock.advance(5000);
  await until(() => other.client.stats().queued == 0);
  await tick();

  assert.equal(collector.requests.length, 0);
  assert.deepEqual([...storage.map], [[`analytics:${KEY}:out`, "1"]]);
  assert.equal(other.client.stats().dropped, 1);
  assert.deepEqual(...balance(other.client.stats()).map((sum) => [sum]));
});

test("opting out in the same task as the event leaves nothing of it", async (test) => {
  const { collector, storage, open } = await begin(test);
  const { client } = open();
  client.track("a");
  client.optOut();
  await tick();
  await client.flush();

  assert.deepEqual(storage.boxes(), []);
  assert.equal(collector.requests.length, 0);
});

test("where cookies may not be set, all else goes on", async (test) => {
  const { collector, open } = await begin(test);
  const { client, document } = open({ options: { cookies: true } });
  const set = () => assert.fail("this frame may have none");
  Object.defineProperty(document, "cookie", { set });
  assert.equal(client.track("a"), true);
  client.reset();
  await client.flush();
  client.optOut();
  assert.equal(collector.taken()[0].name, "a");
});

test("opting out works without storage, and forgets who it was", async (test) => {
  const { collector, open } = await begin(test);
  const page = open({ storage: undefined, options: { cookies: true } });
  page.client.identify("u1");
  page.client.optOut();
  assert.match(page.document.cookie, /max-age=0$/);
  assert.equal(page.client.track("b"), false);
  await page.client.flush();
  assert.equal(collector.requests.length, 0);
  page.client.optIn();
  page.client.track("c");
  await page.client.flush();

  assert.equal(collector.taken()[0].userId, undefined);
});

test("what was left by a page is not sent once the visitor opted out", async (test) => {
  const { collector, clock, storage, open } = await begin(test);
  const page = open();
  page.client.track("a");
  await tick();
  page.die();
  const [box] = storage.boxes();
  clock.advance(150_001);
  const next = open();
  next.client.optOut();
  storage.setItem(...box);
  clock.advance(61_000);
  await tick();

  assert.equal(collector.requests.length, 0);
  assert.deepEqual(storage.boxes(), []);
  assert.deepEqual(...balance(next.client.stats()).map((sum) => [sum]));
});

test("a request under way at optOut() is not written down again, nor sent again", async (test) => {
  const { collector, storage, open } = await begin(test);
  const { client } = open();
  collector.next("hang");
  client.track("a");
  client.flush();
  await until(() => collector.requests.length == 1);
  client.optOut();
  assert.deepEqual(storage.boxes(), []);
  collector.requests[0].release({ status: 503, headers: { "retry-after": "300" } });
  for (let turn = 0; turn < 50; turn++) await tick();

  assert.deepEqual(storage.boxes(), []);
  assert.equal(client.stats().queued, 0);
});

for (const [what, answer] of [
  ["takes it", accepted(1)],
  ["refuses it", accepted(0, [{ index: 0, code: "X", message: "m" }])],
]) {
  test(`an event under way at optOut() counts once, though the collector ${what}`, async (test) => {
    const { collector, open } = await begin(test);
    const heard = [];
    const { client } = open({ options: { onError: ({ code }) => heard.push(code) } });
    collector.next("hang");
    client.track("a");
    client.flush();
    await until(() => collector.requests.length == 1);
    client.optOut();
    client.optIn();
    client.track("b");
    collector.requests[0].release(answer);
    await client.flush();

    const { dropped, delivered, rejected, queued } = client.stats();
    assert.deepEqual(
      { dropped, delivered, rejected, queued },
      {
        dropped: 1,
        delivered: 1,
        rejected: 0,
        queued: 0,
      },
    );
    assert.deepEqual(heard, []);
    assert.equal(collector.requests[1].batch[0].name, "b");
  });
}

test("after opting out and in during an outage events go again", async (test) => {
  const { collector, clock, open } = await begin(test);
  const { client } = open();
  collector.next({ status: 503 });
  client.track("a");
  client.flush();
  await until(() => clock.waits().some((ms) => ms < 500));
  client.optOut();
  client.optIn();
  clock.advance(1000);
  client.track("b");
  await tick();
  clock.advance(10_000);
  for (let turn = 0; turn < 50; turn++) await tick();

  assert.deepEqual(names(collector), ["b"]);
});

for (const [what, navigator, taken] of [
  ["Do Not Track", { doNotTrack: "1" }, false],
  ["Global Privacy Control", { globalPrivacyControl: true }, false],
  ["neither", { doNotTrack: "0", globalPrivacyControl: false }, true],
  ["an unset Do Not Track", { doNotTrack: null }, true],
]) {
  test(`doNotTrack: a browser that says ${what} is ${taken ? "" : "not "}tracked`, async (test) => {
    const { open } = await begin(test);

    assert.equal(open({ navigator, options: { doNotTrack: true } }).client.track("a"), taken);
    assert.equal(open({ navigator }).client.track("a"), true);
  });
}

test("optIn() is stronger than the browser's wish", async (test) => {
  const { open } = await begin(test);
  const { client } = open({
    navigator: { globalPrivacyControl: true },
    options: { doNotTrack: true },
  });
  client.optIn();

  assert.equal(client.track("a"), true);
});

test("the browser's wish is not remembered as the visitor's word", async (test) => {
  const { clock, open } = await begin(test);
  const before = open();
  before.client.track("a");
  await tick();
  before.die();
  clock.advance(150_001);
  open({ navigator: { globalPrivacyControl: true }, options: { doNotTrack: true } });
  clock.advance(1000);
  await tick();

  assert.equal(open({ options: { doNotTrack: true } }).client.track("b"), true);
});

for (const [what, denyProperties] of [
  ["a list", ["email", "phone"]],
  ["a text with commas", "email,phone"],
  ["a text with commas and spaces", "email, phone"],
]) {
  test(`denyProperties as ${what} keeps them back`, async (test) => {
    const { collector, open } = await begin(test);
    const { client } = open({ options: { denyProperties } });
    client.track("a", { email: "a@b.c", phone: "1", plan: "pro" });
    client.identify("u1", { phone: "1", email: "a@b.c", plan: "pro" });
    await client.flush();

    const [track, identify] = collector.taken();
    assert.deepEqual(track.properties, { plan: "pro" });
    assert.deepEqual(identify.traits, { plan: "pro" });
  });
}

test("a name with a blank in it is denied", async (test) => {
  const { collector, open } = await begin(test);
  const { client } = open({ options: { denyProperties: ["Credit Card", "Phone"] } });
  client.track("a", { "Credit Card": "1", Phone: "2", Card: 3 });
  await client.flush();
  assert.deepEqual(collector.taken()[0].properties, { Card: 3 });
});

test("without denyProperties no name is denied but `undefined`", async (test) => {
  const { collector, open } = await begin(test);
  const { client } = open();
  client.track("a", { undefined: 1, "": 2, null: 3, email: 4 });
  await client.flush();

  assert.deepEqual(collector.taken()[0].properties, { "": 2, null: 3, email: 4 });
});

test("beforeSend changes an event", async (test) => {
  const { collector, open } = await begin(test);
  const beforeSend = (event) => {
    event.properties.plan = "changed";
    delete event.context.page;
    return { ...event, name: event.name.toUpperCase() };
  };
  const { client } = open({ options: { beforeSend } });
  client.track("a", { plan: "pro" });
  await client.flush();

  const [event] = collector.taken();
  assert.equal(event.name, "A");
  assert.deepEqual(event.properties, { plan: "changed" });
  assert.equal(event.context.page, undefined);
});

for (const [what, answer] of [
  ["null", () => null],
  ["false", () => false],
  ["nothing", () => {}],
  ["a failure", () => assert.fail("hook")],
  ["what JSON can't hold", (event) => ({ ...event, big: 1n })],
]) {
  test(`beforeSend with ${what} keeps an event back`, async (test) => {
    const { collector, storage, open } = await begin(test);
    const { client } = open({
      options: { beforeSend: (event) => (event.name == "a" ? answer(event) : event) },
    });
    assert.equal(client.track("a"), false);
    assert.equal(client.track("b"), true);
    await client.flush();

    assert.deepEqual(names(collector), ["b"]);
    assert.deepEqual([client.stats().taken, client.stats().refused], [1, 1]);
    assert.deepEqual(storage.boxes(), []);
  });
}

/** Return all that `console.warn` gets to hear, as texts. */
function listen(test) {
  const said = [];
  test.mock.method(console, "warn", (...words) =>
    said.push(
      words.map((word) => (typeof word == "string" ? word : JSON.stringify(word))).join(" "),
    ),
  );
  return said;
}

for (const [what, onError, told] of [
  ["with the event that was refused", undefined, true],
  ["but leaves what was refused to onError", () => {}, false],
]) {
  test(`debug says on the console what is wrong, never the key, ${what}`, async (test) => {
    const said = listen(test);
    const { collector, clock, open } = await begin(test);
    const { client } = open({ options: { debug: true, onError } });
    collector.next(
      { status: 503 },
      accepted(0, [{ index: 0, code: "INVALID_NAME", message: "m" }]),
    );
    client.track("big", { text: "huge".repeat(30_000) });
    client.track("a", { text: "refused" });
    const flushed = client.flush();
    await until(() => clock.waits().some((ms) => ms < 500));
    clock.advance(500);
    await flushed;

    const all = said.join("\n");
    assert.match(all, /503/);
    assert.match(all, /refused track/);
    assert.equal(/INVALID_NAME.*"text":"refused"/.test(all), told);
    assert.doesNotMatch(all, /ak_live/);
    // What was not taken is the size of it.
    assert.doesNotMatch(all, /huge/);
  });
}

test("without debug the console stays still", async (test) => {
  const said = listen(test);
  const { collector, open } = await begin(test);
  const { client } = open({ storage: undefined });
  collector.next(accepted(0, [{ index: 0, code: "INVALID_NAME", message: "m" }]));
  client.track("a", {
    get bad() {
      throw new Error("getter");
    },
  });
  await client.flush();

  assert.deepEqual(said, []);
});
