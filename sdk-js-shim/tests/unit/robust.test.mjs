// Whatever a page does to it, the SDK does not throw, and loses count of nothing. (A rejection that nobody
// handles fails a test by itself.)

import assert from "node:assert/strict";
import { test } from "node:test";
import { accepted, startCollector } from "../support/collector.mjs";
import { load } from "../support/source.mjs";
import { balance, seeded, setGlobals, stage, tick, until } from "../support/page.mjs";

const { createClient } = await load("client");
const begin = stage(startCollector);
const names = (collector) => collector.taken().map(({ name }) => name);

// Values

const cycle = { name: "cycle" };
cycle.self = cycle;
let deep = {};
for (let level = 0; level < 20_000; level++) deep = { deep };
const revoked = Proxy.revocable({}, {});
revoked.revoke();

const HOSTILE = {
  "a cycle": cycle,
  "a cycle in a list": [[cycle]],
  "a getter that throws": {
    get bad() {
      throw new Error("getter");
    },
  },
  "a toJSON that throws": {
    toJSON() {
      throw new Error("toJSON");
    },
  },
  "a toJSON that is endless": {
    toJSON() {
      return { toJSON: this.toJSON, next: { toJSON: this.toJSON } };
    },
  },
  "a Proxy that throws": new Proxy(
    {},
    {
      get() {
        throw new Error("proxy");
      },
      ownKeys() {
        throw new Error("proxy");
      },
    },
  ),
  "a revoked Proxy": revoked.proxy,
  "a symbol": Symbol("s"),
  "a function": () => 1,
  undefined: undefined,
  "20,000 levels": deep,
  "an invalid date": new Date(NaN),
  "a number that is none": NaN,
  infinity: Infinity,
  "a lone surrogate": "\ud800",
  "an object without prototype": Object.create(null),
  "a Map": new Map([[1, 2]]),
  "a typed array": new Uint8Array(3),
  "an error": new Error("e"),
  "a promise": Promise.resolve(1),
  "a big integer": 10n ** 30n,
};
for (const [what, value] of Object.entries(HOSTILE)) {
  test(`${what} among the properties costs nothing but itself`, async (test) => {
    const { collector, open } = await begin(test);
    const { client } = open();
    assert.equal(client.track("a", { before: 1, value, after: { deeper: 2 } }), true);
    assert.equal(client.identify("u1", { before: 1, value }), true);
    assert.equal(client.track("b"), true);
    await client.flush();

    const [a, identify, b] = collector.taken();
    assert.equal(a.properties.before, 1);
    assert.deepEqual(a.properties.after, { deeper: 2 });
    assert.equal(identify.traits.before, 1);
    assert.equal(b.name, "b");
  });

  test(`${what} in any place harms no other event`, async (test) => {
    const { collector, open } = await begin(test);
    const { client } = open();
    const places = [
      () => client.track(value),
      () => client.track("x", value),
      () => client.track("x", {}, value),
      () => client.track("x", {}, { context: value }),
      () => client.track("x", {}, { context: { value } }),
      () => client.track("x", {}, { userId: value, timestamp: value, sessionId: value }),
      () => client.identify(value, value, value),
      () => client.group(value, value, value),
      () => client.alias(value, value, value),
      () => client.page(value, value, value),
      () => client.screen(value, value, value),
    ];
    const answers = places.map((place) => place());
    for (const answer of answers) assert.equal(typeof answer, "boolean");
    client.reset();
    assert.equal(client.track("last"), true);
    await client.flush();

    // A context that is a function or too deep, and so on, is the collector's to judge.
    assert.equal(collector.taken().at(-1)?.name, "last");
    const stats = client.stats();
    assert.equal(stats.taken + stats.refused, places.length + 1);
    assert.equal(stats.taken, answers.filter(Boolean).length + 1);
    assert.deepEqual(...balance(stats).map((sum) => [sum]));
  });
}

test("a text of 1 MB is refused, and counted", async (test) => {
  const { open } = await begin(test);
  const { client } = open();

  assert.equal(client.track("a", { text: "x".repeat(2 ** 20) }), false);
  assert.equal(client.track("x".repeat(2 ** 20)), false);
  assert.equal(client.stats().refused, 2);
});

test("a broken body of the SDK's own making never leaves: what goes is JSON", async (test) => {
  const { collector, open } = await begin(test);
  const { client } = open();
  for (const text of ['"', "\\", "\n", "\u2028", "\0", "\ud800", "</script>", "]}"])
    client.track(text, { [text]: text });
  await client.flush();

  assert.ok(collector.requests.every(({ body }) => body));
  assert.equal(client.stats().delivered, 8);
});

// What a runtime lacks

const LACKING = {
  "no fetch": { fetch: undefined },
  "a fetch that throws": { fetch: () => assert.fail("fetch") },
  "no crypto": { crypto: undefined },
  "no navigator, no screen, no document": {
    navigator: undefined,
    screen: undefined,
    document: undefined,
  },
  "no localStorage": { localStorage: undefined },
  "no addEventListener": { addEventListener: undefined, removeEventListener: undefined },
  "no queueMicrotask": { queueMicrotask: undefined },
  "no TextEncoder": { TextEncoder: undefined },
};
const OF_PAGE = [
  "navigator",
  "screen",
  "document",
  "localStorage",
  "addEventListener",
  "removeEventListener",
];

for (const [what, globals] of Object.entries(LACKING)) {
  test(`${what}: never a throw, and the events are taken`, async (test) => {
    const { clock, open } = await begin(test);
    const lacking = Object.entries(globals).filter(([name]) => !OF_PAGE.includes(name));
    test.after(setGlobals(Object.fromEntries(lacking)));
    const page = open(globals);
    test.after(() => page.die());
    assert.equal(page.client.track("a"), true);
    assert.equal(page.client.track("b"), true);
    page.client.flush();
    clock.advance(61_000);
    page.fire("visibilitychange", true);
    page.fire("pagehide");
    for (let turn = 0; turn < 20; turn++) await tick();

    const stats = page.client.stats();
    assert.deepEqual([stats.taken, stats.refused], [2, 0]);
    assert.deepEqual(...balance(stats).map((sum) => [sum]));
  });
}

// Pages without encryption have a crypto that makes no UUIDs.
for (const crypto of [globalThis.crypto, {}, undefined]) {
  const maker = crypto?.randomUUID ? "crypto" : crypto ? "a poor crypto" : "no crypto";
  test(`with ${maker} ids are UUIDs of version 7, and each is new`, async (test) => {
    const { collector, open } = await begin(test);
    test.after(setGlobals({ crypto }));
    const { client } = open();
    for (let count = 0; count < 500; count++) client.track("a");
    await client.flush();
    const ids = collector.taken().map(({ messageId }) => messageId);

    const version7 = /^[\da-f]{8}-[\da-f]{4}-7[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/;
    assert.deepEqual(
      ids.filter((id) => !version7.test(id)),
      [],
    );
    assert.equal(new Set(ids).size, 500);
  });
}

test("events wait while there is no fetch, and go when there is", async (test) => {
  const { collector, clock, open } = await begin(test);
  const { client } = open();
  const restore = setGlobals({ fetch: undefined });
  test.after(restore);
  client.track("a");
  client.flush();
  await until(() => clock.waits().some((ms) => ms < 500));
  restore();
  clock.advance(500);
  await until(() => client.stats().delivered == 1);

  assert.deepEqual(names(collector), ["a"]);
});

for (const [what, options] of [
  ["no options", undefined],
  ["empty options", {}],
  ["no key", { apiUrl: "http://127.0.0.1:1" }],
  ["a URL object", { apiKey: "k", apiUrl: new URL("http://127.0.0.1:1") }],
  ["an address that is none", { apiKey: "k", apiUrl: "::::" }],
  ["a key that is no header", { apiKey: "k\nx", apiUrl: "http://127.0.0.1:1" }],
  ["numbers that are none", { apiKey: "k", batchSize: "many", flushInterval: {} }],
  ["hooks that are none", { apiKey: "k", beforeSend: "x", onError: 5 }],
]) {
  test(`init with ${what} does not throw`, async (test) => {
    const { clock, open } = await begin(test);
    const page = open({ make: () => createClient(options && { later: clock.later, ...options }) });

    assert.equal(typeof page.client.track("a"), "boolean");
    page.fire("pagehide");
    clock.advance(1000);
    await tick();
  });
}

test("on a server that renders pages nothing is taken, and no timer stays", async (test) => {
  const { clock } = await begin(test);
  const server = createClient({ apiKey: "k", later: clock.later });

  assert.equal(server.track("a"), false);
  assert.equal(server.stats().refused, 1);
  await server.flush();
  assert.deepEqual(clock.waits(), []);
});

// Hooks

test("hooks that throw cost nothing but what they judge", async (test) => {
  const { collector, open } = await begin(test);
  let heard = 0;
  const { client } = open({
    options: {
      onError() {
        heard++;
        throw new Error("onError");
      },
      beforeSend(event) {
        if (event.name == "b") throw new Error("beforeSend");
        return event;
      },
    },
  });
  collector.next(
    accepted(1, [
      { index: 0, code: "X", message: "m" },
      { index: 1, code: "X", message: "m" },
    ]),
  );
  assert.deepEqual(
    ["a", "b", "c", "d"].map((name) => client.track(name)),
    [true, false, true, true],
  );
  await client.flush();

  assert.equal(heard, 2);
  assert.deepEqual(names(collector), ["d"]);
  assert.deepEqual(...balance(client.stats()).map((sum) => [sum]));
});

test("events that hooks track are taken too", async (test) => {
  const { collector, open } = await begin(test);
  const { client } = open({ options: { onError: ({ code }) => client.track(code) } });
  collector.next(accepted(1, [{ index: 0, code: "X", message: "m" }]));
  client.track("a");
  client.track("b");
  await client.flush();
  await client.flush();

  assert.deepEqual(names(collector), ["b", "X"]);
});

// A walk at random

/** Take a batch, but for some events that are always refused: a collector does not change its mind. */
function judged({ batch }) {
  const rejected = batch.flatMap(({ name }, index) =>
    /3$/.test(name) ? [{ index, code: "X", message: "m" }] : [],
  );
  return accepted(batch.length - rejected.length, rejected);
}

const REPLIES = [
  judged,
  judged,
  () => ({ status: 503, headers: { "retry-after": "2" } }),
  () => ({ status: 429 }),
  () => ({ status: 400, body: "?" }),
  ({ batch }) => ({
    status: 400,
    body: { rejected: [{ index: batch.length - 1, code: "X", message: "m" }] },
  }),
  () => ({ status: 413 }),
  () => ({ status: 401 }),
  () => ({ status: 200, body: "<html>" }),
  () => "reset",
  () => "half",
];

// A page that is hidden may have two requests under way, so that what it has is not lost; then order is not kept.
const WALKS = [1, 2, 3, 4, 5, 6].map((seed) => ({ seed, turns: seed % 2 == 0 }));

for (const { seed, turns } of WALKS) {
  test(`a walk at random${turns ? " with pages that hide" : ", in order"}: nothing lost, every sum right (seed ${seed})`, async (test) => {
    const { collector, clock, storage, open } = await begin(test);
    const random = seeded(seed);
    collector.otherwise = judged;
    const pick = (list) => list[Math.floor(random() * list.length)];
    const pages = [];
    const taken = [];
    const rejected = [];
    let count = 0;
    const begun = () => {
      const page = open({
        options: { batchSize: 3, onError: ({ event }) => rejected.push(event.name) },
      });
      pages.push(page);
      return page;
    };
    const living = () => pages.filter(({ dead }) => !dead);
    const check = () =>
      living().forEach(({ client }) => {
        const [in_, out] = balance(client.stats());
        assert.equal(in_, out, JSON.stringify(client.stats()));
      });
    const realFetch = globalThis.fetch;
    const flights = new Map();
    globalThis.fetch = (url, ...rest) => {
      const name = url.split("/")[3];
      flights.set(name, (flights.get(name) ?? 0) + 1);
      return realFetch(url, ...rest).finally(() => flights.set(name, flights.get(name) - 1));
    };
    test.after(() => (globalThis.fetch = realFetch));
    const steps = {
      track: (page) => {
        for (let more = random() * 6; more > 0; more--) {
          const name = `${page.name}:${count++}`;
          if (page.client.track(name)) taken.push(name);
        }
      },
      flush: (page) => void page.client.flush(),
      time: () => clock.advance(Math.floor(random() ** 3 * 40_000)),
      fault: () => collector.next(...Array.from({ length: random() * 4 }, () => pick(REPLIES))),
      ...(turns && {
        hide: (page) => page.fire("visibilitychange", random() < 0.5),
        go: (page) => (page.fire("pagehide"), page.die()),
        online: (page) => page.fire("online"),
      }),
      wait: async () => {
        for (let ticks = 0; ticks < 10; ticks++) await tick();
      },
      open: () => living().length < 3 && begun(),
      crash: async (page) => {
        if (random() < 0.3) {
          await tick();
          page.die();
        }
      },
    };
    begun();
    for (let step = 0; step < 150; step++) {
      const page = pick(living()) ?? begun();
      await steps[pick(Object.keys(steps))](page);
      check();
    }
    collector.forget();
    const last = begun();
    for (
      let rounds = 0;
      rounds < 60 &&
      (living().some(({ client }) => client.stats().queued) || storage.boxes().length);
      rounds++
    ) {
      clock.advance(20_000);
      for (let ticks = 0; ticks < 30; ticks++) await tick();
      await until(() =>
        [...flights].every(
          ([name, under]) => !under || pages.find((page) => page.name == name).dead,
        ),
      );
      check();
    }

    assert.equal(last.client.stats().queued, 0);
    const arrived = new Set(names(collector));
    const known = new Set([...arrived, ...rejected]);
    assert.deepEqual(
      taken.filter((name) => !known.has(name)),
      [],
    );
    assert.ok(arrived.size > 20);
    for (const { name } of turns ? [] : pages) {
      const first = [...arrived]
        .filter((its) => its.startsWith(`${name}:`))
        .map((its) => +its.split(":")[1]);
      assert.deepEqual(
        first,
        [...first].sort((a, b) => a - b),
        `order of ${name}`,
      );
    }
  });
}
