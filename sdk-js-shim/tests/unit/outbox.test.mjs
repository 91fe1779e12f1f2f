// What waits in storage: over reloads, between pages, through faults.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { startCollector } from "../support/collector.mjs";
import { load } from "../support/source.mjs";
import { balance, KEY, MemoryStorage, stage, tick, until } from "../support/page.mjs";

const { delivery } = JSON.parse(
  readFileSync(new URL("../../../spec/limits.json", import.meta.url)),
);
const begin = stage(startCollector);
const LEASE = 150_000;
// By so much may the age be wrong that is read from a message id.
const EXPIRY_STEP_MS = 2 ** 16;

const names = (collector) => collector.taken().map(({ name }) => name);
const track = (client, text) => [...text].forEach((name) => assert.ok(client.track(name)));
const idle = (client) => until(() => client.stats().queued == 0, "the queue is empty");
const box = (name) => `analytics:${KEY}:${name}`;

/** Open a page, track on it and let it crash before it sends. */
async function crashed(open, text, given) {
  const page = open(given);
  track(page.client, text);
  await tick();
  page.die();
}

test("events are written down at once, all of a burst in one go", async (test) => {
  const { storage, open } = await begin(test);
  let writes = 0;
  const { setItem } = storage;
  storage.setItem = function (name, value) {
    if (!/:id$/.test(name)) writes++;
    setItem.call(this, name, value);
  };
  track(open().client, "abcde");
  await tick();

  assert.equal(writes, 1);
  assert.deepEqual(
    storage.events().map(({ name }) => name),
    [..."abcde"],
  );
});

test("a box is a lease and a line for each event", async (test) => {
  const { clock, storage, open } = await begin(test);
  track(open().client, "ab");
  await tick();

  const [[name, value]] = storage.boxes();
  assert.match(name, /^analytics:ak_live_test:[0-9a-f-]{36}$/);
  const [lease, ...lines] = value.split("\n");
  assert.equal(+lease, clock.now + LEASE);
  assert.equal(lines.length, 2);
});

test("what a page that ended left is sent by the next, in order and before its own, exactly once", async (test) => {
  const { collector, clock, storage, open } = await begin(test);
  await crashed(open, "abc");
  const [left] = storage.boxes();
  clock.advance(LEASE + 1);
  const { client } = open();
  track(client, "d");
  clock.advance(1000);
  await idle(client);

  assert.deepEqual(names(collector), ["a", "b", "c", "d"]);
  assert.deepEqual(collector.requests.length, 1);
  assert.deepEqual(
    collector
      .taken()
      .slice(0, 3)
      .map((event) => JSON.stringify(event)),
    left[1].split("\n").slice(1),
  );
  assert.deepEqual(client.stats().adopted, 3);
  assert.deepEqual(storage.boxes(), []);
});

test("what several left is taken over, the older first", async (test) => {
  const { collector, clock, open } = await begin(test);
  await crashed(open, "ab");
  clock.advance(5);
  await crashed(open, "cd");
  clock.advance(LEASE + 1);
  const { client } = open();
  clock.advance(1000);
  await idle(client);

  assert.deepEqual(names(collector), [..."abcd"]);
});

test("what does not fit beside what waits is taken over later, and none of it is dropped", async (test) => {
  const { collector, clock, open } = await begin(test);
  for (const name of "ab") {
    const page = open({ options: { batchSize: 99 } });
    for (let count = 0; count < 6; count++) page.client.track(name, { text: "x".repeat(5e4) });
    await tick();
    page.die();
  }
  clock.advance(LEASE + 1);
  const { client } = open();
  clock.advance(1000);
  await idle(client);
  assert.equal(client.stats().adopted, 6);
  clock.advance(60_000);
  await until(() => client.stats().delivered == 12);

  assert.equal(client.stats().dropped, 0);
  assert.equal(names(collector).sort().join(""), "aaaaaabbbbbb");
});

test("what waits and what is under way together leave room for the next page to take over", async (test) => {
  const { collector, clock, storage, open } = await begin(test);
  collector.next("hang");
  const page = open();
  for (let count = 0; count < 1100; count++) page.client.track("a", { text: "x".repeat(100) });
  await until(() => collector.requests.length == 1);
  for (let count = 0; count < 40; count++) page.client.track("b");
  await tick();
  assert.ok(page.client.stats().dropped > 0);
  const [[, left]] = storage.boxes();
  page.die();
  clock.advance(LEASE + 1);
  const { client } = open();
  clock.advance(1000);
  await idle(client);

  assert.equal(client.stats().adopted, left.split("\n").length - 1);
  assert.equal(names(collector).filter((name) => name == "b").length, 40);
});

test("a page that lives keeps what it has, however long it waits", async (test) => {
  const { collector, clock, storage, open } = await begin(test);
  collector.next(...Array(2).fill({ status: 401 }));
  const first = open();
  track(first.client, "a");
  first.client.flush();
  await until(() => collector.requests.length == 1);
  await until(() => clock.waits().includes(60_000));
  const second = open();
  for (let turn = 0; turn < 8; turn++) {
    collector.next({ status: 401 });
    clock.advance(30_000);
    for (let turns = 0; turns < 20; turns++) await tick();
  }
  const [[, value]] = storage.boxes();

  assert.equal(second.client.stats().adopted, 0);
  assert.equal(first.client.stats().queued, 1);
  assert.ok(value.split("\n")[0] > clock.now + 60_000);
});

test("what a page leaves behind on its way out is free at once", async (test) => {
  const { collector, clock, open } = await begin(test);
  collector.next("reset");
  const first = open();
  track(first.client, "ab");
  first.fire("pagehide");
  await until(() => clock.waits().some((ms) => ms < 500), "the request has failed");
  first.die();
  const { client } = open();
  clock.advance(1000);
  await idle(client);

  assert.deepEqual(names(collector), ["a", "b"]);
});

test("a request under way as the page goes has ten seconds before others send its events", async (test) => {
  const { clock, storage, collector, open } = await begin(test);
  collector.next("hang");
  const first = open();
  track(first.client, "a");
  first.fire("pagehide");
  await tick();
  const [[, value]] = storage.boxes();

  assert.equal(+value.split("\n")[0], clock.now + 10_000);
});

test("another key's events are never touched, nor what is not ours", async (test) => {
  const { collector, clock, storage, open } = await begin(test);
  await crashed(open, "a", { options: { apiKey: "ak_live_other", apiUrl: collector.url } });
  await crashed(open, "own");
  storage.setItem("basket", "milk");
  clock.advance(LEASE + 1);
  const before = storage.boxes("ak_live_other");
  const { client } = open();
  track(client, "b");
  clock.advance(1000);
  await client.flush();
  client.optOut();

  assert.deepEqual(storage.boxes("ak_live_other"), before);
  assert.equal(storage.getItem("basket"), "milk");
  assert.deepEqual(names(collector), [..."ownb"]);
});

test("a foreign name that has ours in it keeps nobody from taking over", async (test) => {
  const { collector, clock, storage, open } = await begin(test);
  await crashed(open, "own");
  const strange = `my analytics:${KEY}:0`;
  storage.setItem(strange, "1\nx");
  clock.advance(LEASE + 1);
  const { client } = open();
  clock.advance(1000);
  await client.flush();

  assert.equal(storage.getItem(strange), "1\nx");
  assert.deepEqual(names(collector), [..."own"]);
});

test("two clients on one storage lose and double nothing", async (test) => {
  const { collector, clock, storage, open } = await begin(test);
  const pages = [open(), open()];
  for (let turn = 0; turn < 25; turn++) {
    pages.forEach(({ client }, index) => track(client, "ab"[index]));
    await tick();
    if (turn % 5 == 4) clock.advance(1000);
  }
  await Promise.all(pages.map(({ client }) => client.flush()));

  assert.deepEqual(names(collector).sort().join(""), "a".repeat(25) + "b".repeat(25));
  assert.equal(new Set(collector.taken().map(({ messageId }) => messageId)).size, 50);
  assert.deepEqual(storage.boxes(), []);
});

test("a page that slept while another took over sends copies, by whose ids the collector knows them", async (test) => {
  const { collector, clock, open } = await begin(test);
  const first = open();
  track(first.client, "a");
  await tick();
  // Asleep: time passes, and no timer of the first page comes.
  clock.timers.clear();
  clock.now += 3_600_000;
  const second = open();
  clock.advance(1000);
  await idle(second.client);
  await first.client.flush();

  const [its, copy, ...more] = collector.taken();
  assert.deepEqual(copy, its);
  assert.deepEqual(more, []);
  for (const { client } of [first, second]) {
    assert.equal(client.stats().delivered, 1);
    assert.deepEqual(...balance(client.stats()).map((sum) => [sum]));
  }
});

test("a page that comes back from the back/forward cache sends its copies and lives on", async (test) => {
  const { collector, clock, open } = await begin(test);
  collector.next("reset");
  const first = open();
  track(first.client, "a");
  first.fire("pagehide");
  await until(() => collector.requests.length == 1 && first.client.stats().queued == 1);
  await tick();
  // What is frozen has timers too, which go on when it comes back.
  const frozen = [...clock.timers];
  clock.timers.clear();
  clock.now += 60_000;
  const second = open();
  clock.advance(1000);
  await idle(second.client);
  frozen.forEach((timer) => clock.timers.add(timer));
  first.fire("visibilitychange", false);
  clock.advance(500);
  await idle(first.client);
  track(first.client, "b");
  await first.client.flush();

  const ids = collector.taken().map(({ name, messageId }) => `${name} ${messageId}`);
  assert.equal(ids.length, 3);
  assert.equal(new Set(ids).size, 2);
});

test("a lock of the browser keeps two pages from taking over at once", async (test) => {
  const { collector, clock, open } = await begin(test);
  await crashed(open, "ab");
  clock.advance(LEASE + 1);
  const asked = [];
  let holder;
  const locks = {
    request: async (name, options, work) => {
      asked.push([name, options]);
      if (holder) return work(null);
      holder = work({ name });
      await holder;
      holder = undefined;
    },
  };
  const pages = [open({ navigator: { locks } }), open({ navigator: { locks } })];
  clock.advance(1000);
  await until(() => collector.taken().length == 2);
  assert.ok(holder, "it is held for a moment");
  clock.advance(1000);
  await tick();

  assert.equal(holder, undefined);
  assert.deepEqual(asked, Array(2).fill([`analytics:${KEY}:`, { ifAvailable: true }]));
  assert.deepEqual(pages.map(({ client }) => client.stats().adopted).sort(), [0, 2]);
});

test("a page that does not get the lock takes nothing over, and still says that it lives", async (test) => {
  const { clock, storage, open } = await begin(test);
  await crashed(open, "left");
  const [[left]] = storage.boxes();
  clock.advance(LEASE + 1);
  const { client } = open({
    navigator: { locks: { request: async (name, options, work) => work(null) } },
    options: { flushInterval: 1e9 },
  });
  track(client, "a");
  await tick();
  clock.advance(61_001);
  await tick();

  assert.equal(client.stats().adopted, 0);
  const [, value] = storage.boxes().find(([name]) => name != left);
  assert.equal(+value.split("\n")[0], clock.now + LEASE);
});

// What is broken

const line = (name, age = 0) => {
  const time = (Date.now() - age).toString(16).padStart(12, "0");
  return JSON.stringify({
    messageId: `${time.slice(0, 8)}-${time.slice(8)}-7000-8000-000000000000`,
    type: "track",
    name,
  });
};

for (const [what, spoiled, kept] of [
  ["half a line at the end", () => [`1`, line("a"), line("b").slice(0, 60)], ["a"]],
  ["half a line in the middle", () => [`1`, line("a").slice(0, 70), line("b")], ["b"]],
  [
    "garbage among the lines",
    () => [`1`, line("a"), "\u0000garbage", "", "[]", "}", line("b")],
    ["a", "b"],
  ],
  ["nothing but a lease", () => [`1`], []],
  ["nothing at all", () => [``], []],
]) {
  test(`${what}: the good events arrive, each line is counted`, async (test) => {
    const { collector, clock, storage, open } = await begin(test);
    const lines = spoiled();
    storage.setItem(box("01935a2e-7c1b-7d10-a3a4-5b0c6f1c9d11"), lines.join("\n"));
    const { client } = open();
    clock.advance(1000);
    track(client, "z");
    await client.flush();
    await idle(client);

    assert.deepEqual(names(collector), [...kept, "z"]);
    assert.deepEqual(storage.boxes(), []);
    const stats = client.stats();
    assert.equal(stats.adopted, lines.length - 1);
    assert.deepEqual(...balance(stats).map((sum) => [sum]));
  });
}

for (const [what, lease] of [
  ["no number", "garbage"],
  ["a day ahead, for the clock was wrong", () => Date.now() + 864e5],
]) {
  test(`a lease that is ${what} keeps nobody from taking over`, async (test) => {
    const { collector, clock, storage, open } = await begin(test);
    storage.setItem(
      box("01935a2e-7c1b-7d10-a3a4-5b0c6f1c9d11"),
      [typeof lease == "function" ? lease() : lease, line("a")].join("\n"),
    );
    const { client } = open();
    clock.advance(LEASE * 2);
    for (let turn = 0; turn < 50; turn++) await tick();

    assert.deepEqual(names(collector), ["a"]);
    assert.deepEqual(storage.boxes(), []);
    assert.equal(client.stats().adopted, 1);
  });
}

for (const id of [
  "garbage",
  "{",
  "null",
  "5",
  `"text"`,
  "[1]",
  "{}",
  `{"sessionId":5,"last":"x"}`,
]) {
  test(`an identity of ${id} does not stop events`, async (test) => {
    const { collector, storage, open } = await begin(test);
    storage.setItem(box("id"), id);
    const { client } = open();
    track(client, "ab");
    await client.flush();

    const [first, second] = collector.taken();
    assert.match(first.anonymousId, /^[0-9a-f-]{36}$/);
    assert.match(first.sessionId, /^[0-9a-f-]{36}$/);
    assert.equal(second.anonymousId, first.anonymousId);
    assert.equal(second.sessionId, first.sessionId);
  });
}

// What storage refuses

const FAULTS = {
  "no storage": () => undefined,
  "storage that refuses everything": () =>
    new Proxy(
      {},
      {
        get() {
          throw new DOMException("The operation is insecure.", "SecurityError");
        },
      },
    ),
  "storage that refuses to read": () =>
    Object.assign(new MemoryStorage(), { getItem: () => assert.fail("refused") }),
  "storage that refuses to write": () =>
    Object.assign(new MemoryStorage(), { setItem: () => assert.fail("refused") }),
  "storage that refuses to remove": () =>
    Object.assign(new MemoryStorage(), { removeItem: () => assert.fail("refused") }),
  "storage that refuses to list": () =>
    Object.assign(new MemoryStorage(), { key: () => assert.fail("refused") }),
  "storage that keeps nothing": () => Object.assign(new MemoryStorage(), { setItem() {} }),
};
for (const [what, make] of Object.entries(FAULTS)) {
  test(`${what}: events arrive all the same, of one visitor and session`, async (test) => {
    const { collector, clock, open } = await begin(test);
    const { client } = open({ storage: make() });
    client.identify("u1");
    track(client, "abcdefghij");
    clock.advance(1000);
    await client.flush();
    track(client, "k");
    await client.flush();

    const events = collector.taken();
    assert.equal(events.map(({ name }) => name ?? "").join(""), "abcdefghijk");
    for (const member of ["anonymousId", "sessionId", "userId"]) {
      assert.equal(new Set(events.map((event) => event[member])).size, 1, member);
    }
    assert.deepEqual(client.stats().delivered, 12);
  });
}

test("a browser that refuses to give its storage: events arrive all the same", async (test) => {
  const { collector, open } = await begin(test);
  const denied = {
    configurable: true,
    get() {
      throw new DOMException("Access is denied.", "SecurityError");
    },
  };
  const { createClient } = await load("client");
  const make = (options) =>
    createClient((Object.defineProperty(globalThis, "localStorage", denied), options));
  const { client } = open({ make });
  track(client, "a");
  await client.flush();

  assert.deepEqual(names(collector), ["a"]);
});

/** Let a storage hold no more than it does and *more* characters. */
function full(storage, more = 0) {
  const size = () =>
    [...storage.map].reduce((sum, [name, value]) => sum + name.length + value.length, 0);
  const most = size() + more;
  storage.setItem = function (name, value) {
    if (size() - (this.map.get(name)?.length ?? -name.length) + value.length > most) {
      throw new DOMException("The quota has been exceeded.", "QuotaExceededError");
    }
    this.map.set(name, value);
  };
}

test("a full storage loses no event of a page that lives", async (test) => {
  const { collector, storage, open } = await begin(test);
  full(storage, 1500);
  const { client } = open({ options: { batchSize: 100 } });
  for (const name of "abcdefgh") {
    track(client, name);
    await tick();
  }
  await client.flush();

  assert.deepEqual(names(collector), [..."abcdefgh"]);
  assert.deepEqual(storage.boxes(), []);
});

test("a full storage does not forget who was identified", async (test) => {
  const { collector, storage, open } = await begin(test);
  const { client } = open();
  track(client, "a");
  await client.flush();
  full(storage);
  client.identify("u1");
  track(client, "b");
  await client.flush();

  assert.deepEqual(
    collector.taken().map(({ userId }) => userId),
    [undefined, "u1", "u1"],
  );
});

test("a full storage does not make a session of every event", async (test) => {
  const { collector, clock, storage, open } = await begin(test);
  const { client } = open();
  track(client, "a");
  await client.flush();
  storage.setItem = () => {
    throw new DOMException("The quota has been exceeded.", "QuotaExceededError");
  };
  clock.advance(3_600_000);
  for (let turn = 0; turn < 20; turn++) await tick();
  track(client, "bcd");
  await client.flush();

  const sessions = collector.taken().map(({ sessionId }) => sessionId);
  assert.equal(new Set(sessions).size, 2);
});

test("500,000 characters wait at most: the oldest go, and are counted", async (test) => {
  const { collector, storage, open } = await begin(test);
  const { client } = open({ options: { batchSize: 1000 } });
  for (let index = 0; index < 70; index++) client.track(`${index}`, { text: "x".repeat(10_000) });
  await tick();

  const [[, value]] = storage.boxes();
  assert.ok(value.length <= 500_100, `${value.length} characters`);
  assert.ok(value.length > 480_000);
  const { dropped, queued } = client.stats();
  assert.equal(dropped + queued, 70);
  await client.flush();
  assert.deepEqual(
    names(collector),
    Array.from({ length: queued }, (_, index) => `${dropped + index}`),
  );
});

test("what was left for more than 30 days is given up, and counted", async (test) => {
  const { collector, clock, storage, open } = await begin(test);
  const days = delivery.spool_expiry_days * 864e5;
  storage.setItem(
    box("01935a2e-7c1b-7d10-a3a4-5b0c6f1c9d11"),
    ["1", line("old", days + EXPIRY_STEP_MS), line("young", days - EXPIRY_STEP_MS)].join("\n"),
  );
  const { client } = open();
  clock.advance(1000);
  await idle(client);

  assert.deepEqual(names(collector), ["young"]);
  assert.equal(client.stats().expired, 1);
});
