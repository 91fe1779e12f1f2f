// The doors: the package's default client, and the script tag's `window.analytics`.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { createContext, runInContext } from "node:vm";
import { startCollector } from "../support/collector.mjs";
import { setGlobals, stage, tick, until } from "../support/page.mjs";
import { bundle, load } from "../support/source.mjs";

const begin = stage(startCollector);
const METHODS = [
  "track",
  "page",
  "screen",
  "identify",
  "group",
  "alias",
  "reset",
  "flush",
  "optOut",
  "optIn",
  "stop",
  "stats",
];
const names = (collector) => collector.taken().map(({ name, type }) => name ?? type);

/** Return a fresh package and options with which it works here. */
async function fresh(test) {
  const { collector, clock, storage } = await begin(test);
  return {
    ...(await load("index")),
    collector,
    storage,
    options: { apiKey: "k", apiUrl: collector.url, storage, later: clock.later },
  };
}

test("the default client has the methods of every client, and init, which returns it", async (test) => {
  const { analytics, init, options } = await fresh(test);
  const all = [...METHODS, "init"].sort();

  assert.deepEqual(Object.keys(analytics).sort(), all);
  assert.equal(init(options), analytics);
  assert.deepEqual(Object.keys(analytics).sort(), all);
});

test("until init nothing is taken: each call says so, and flush() settles", async (test) => {
  const { analytics, collector, storage, options } = await fresh(test);
  const calls = [analytics.identify("u1"), analytics.track("a", { b: 1 }), analytics.page()];
  await analytics.flush();
  assert.deepEqual(calls, [false, false, false]);
  assert.deepEqual([analytics.stats().taken, analytics.stats().refused], [0, 3]);
  analytics.init(options);
  assert.equal(analytics.track("c"), true);
  await analytics.flush();

  assert.deepEqual(names(collector), ["c"]);
  assert.equal(collector.taken()[0].userId, undefined);
  assert.deepEqual(storage.boxes("k"), []);
});

test("calls without an init do not pile up", async (test) => {
  const { analytics, options } = await fresh(test);
  for (let index = 0; index < 1200; index++) analytics.track(`${index}`);
  assert.deepEqual([analytics.stats().queued, analytics.stats().refused], [0, 1200]);
  analytics.init(options);

  assert.deepEqual([analytics.stats().queued, analytics.stats().refused], [0, 0]);
});

test("optOut() before init is not heard by it, and leaves nothing: the option `optOut` is", async (test) => {
  const { analytics, createClient, options } = await fresh(test);
  const kept = new Map();
  const localStorage = {
    setItem: (name, value) => kept.set(name, value),
    getItem: (name) => kept.get(name) ?? null,
    removeItem: (name) => kept.delete(name),
  };
  test.after(setGlobals({ localStorage }));
  createClient({}).optOut();
  assert.equal(kept.size, 0);
  analytics.optOut();
  analytics.init(options);
  assert.equal(analytics.track("a"), true);
  analytics.init({ ...options, apiKey: "k2", optOut: true });

  assert.equal(analytics.track("b"), false);
});

test("init again stops the client that was, which delivers what it has", async (test) => {
  const { analytics, collector, options } = await fresh(test);
  analytics.init(options);
  const { track } = analytics;
  analytics.track("a");
  assert.equal(analytics.init({ ...options, apiKey: "k2" }), analytics);
  assert.equal(track("x"), false);
  analytics.track("b");
  await analytics.flush();
  await until(() => collector.requests.length == 2);

  assert.equal(analytics.stats().taken, 1);
  assert.deepEqual(
    collector.requests.map(({ headers, batch }) => [headers["x-api-key"], batch[0].name]).sort(),
    [
      ["k", "a"],
      ["k2", "b"],
    ],
  );
});

test("a second project on a page has a client of its own", async (test) => {
  const { analytics, collector, options, createClient } = await fresh(test);
  analytics.init(options);
  const second = createClient({ ...options, apiKey: "k2" });
  analytics.identify("u1");
  second.track("b");
  await Promise.all([analytics.flush(), second.flush()]);

  assert.equal(analytics.track("c"), true);
  assert.deepEqual(
    Object.fromEntries(
      collector.requests.map(({ headers, batch }) => [headers["x-api-key"], batch[0].userId]),
    ),
    { k: "u1", k2: undefined },
  );
});

test("init twice on a server that renders pages does not throw", async (test) => {
  const { analytics } = await fresh(test);
  analytics.init({ apiKey: "k" });

  assert.doesNotThrow(() => analytics.init({ apiKey: "k" }));
});

test("importing the package starts nothing", async (test) => {
  const started = [];
  test.after(setGlobals({ setTimeout: (...all) => started.push(all) }));
  await load("index");

  assert.deepEqual(started, []);
});

// The script tag

const SNIPPET = readFileSync(new URL("../../src/snippet.js", import.meta.url), "utf8");

/** Return a window in which `run()` lets the script build run, as that of *tag*. */
async function page(test, { tag } = {}) {
  const { collector, clock, storage } = await begin(test);
  const window = {
    fetch,
    AbortController,
    URLSearchParams,
    crypto: globalThis.crypto,
    console,
    clearTimeout,
    setTimeout: clock.later,
    localStorage: storage,
    location: new URL("https://shop.example/?utm_source=x"),
    navigator: { language: "en" },
    addEventListener() {},
    removeEventListener() {},
  };
  window.window = window;
  window.document = { title: "t", referrer: "", currentScript: tag?.(collector) ?? null };
  createContext(window);
  const text = await bundle("script", "iife");
  const run = () => runInContext(text, window);
  return { collector, clock, storage, window, run };
}

/** The same with the snippet, which wants the script: it is there after `arrive()`. */
async function snippetPage(test, key = "k") {
  const its = await page(test);
  const { document } = its.window;
  let tag;
  document.createElement = () => (tag = { dataset: {} });
  document.head = { append() {} };
  const snippet = SNIPPET.replace("https://collector.example", its.collector.url);
  runInContext(snippet.replace("ak_live_…", key), its.window);
  const arrive = () => {
    document.currentScript = tag;
    its.run();
    document.currentScript = null;
    tag.onload();
  };
  return { ...its, arrive, early: its.window.analytics };
}

const tagOf =
  (dataset = {}) =>
  ({ url }) => ({ src: `${url}/js/sdk.js`, dataset: { apiKey: "k", ...dataset } });

test("the tag's attributes are the options; the collector is where the script is from", async (test) => {
  const { collector, window, run } = await page(test, {
    tag: tagOf({ batchSize: "2", denyProperties: "email" }),
  });
  run();
  window.analytics.track("a", { email: "x" });
  window.analytics.track("b");
  await until(() => collector.requests.length == 1);

  const [{ headers, url, batch }] = collector.requests;
  assert.equal(headers["x-api-key"], "k");
  assert.equal(url, "/api/v1/events");
  assert.deepEqual(
    batch.map(({ name }) => name),
    ["a", "b"],
  );
  assert.deepEqual(batch[0].properties, {});
  assert.deepEqual(batch[0].context.campaign, { source: "x" });
});

test("data-api-url goes before the script's address", async (test) => {
  const { collector, window, run } = await page(test, {
    tag: ({ url }) => ({
      src: "http://127.0.0.1:9/js/sdk.js",
      dataset: { apiKey: "k", apiUrl: `${url}/there` },
    }),
  });
  run();
  window.analytics.track("a");
  await window.analytics.flush();

  assert.equal(collector.requests[0].url, "/there/api/v1/events");
});

test("data-opt-out=true takes nothing until optIn()", async (test) => {
  const { window, run } = await page(test, { tag: tagOf({ optOut: "true" }) });
  run();
  assert.equal(window.analytics.track("a"), false);
  window.analytics.optIn();

  assert.equal(window.analytics.track("b"), true);
});

test("an attribute without a value is off", async (test) => {
  const { window, run } = await page(test, { tag: tagOf({ optOut: "", batchSize: "" }) });
  run();

  assert.equal(window.analytics.track("a"), true);
});

test("a tag without a key takes nothing, until init", async (test) => {
  const { collector, window, run } = await page(test, {
    tag: ({ url }) => ({ src: `${url}/js/sdk.js`, dataset: {} }),
  });
  run();
  assert.equal(window.analytics.track("a"), false);
  window.analytics.init({ apiKey: "k", apiUrl: collector.url });
  window.analytics.track("b");
  await window.analytics.flush();

  assert.deepEqual(names(collector), ["b"]);
});

test("the script twice on a page, or without a tag, harms nothing", async (test) => {
  const { collector, clock, window, run } = await page(test, { tag: tagOf() });
  run();
  window.analytics.track("a");
  run();
  window.analytics.track("b");
  await window.analytics.flush();
  clock.advance(5000);
  await until(() => collector.taken().length == 2);
  const bare = await page(test);

  assert.doesNotThrow(bare.run);
  assert.deepEqual(names(collector).sort(), ["a", "b"]);
});

// The snippet

test("what the snippet took is done, in order, and before what is called later", async (test) => {
  const { collector, window, arrive, early } = await snippetPage(test);
  const answers = [early.identify("u1"), early.track("a", { b: 1 }), early.page()];
  assert.equal(collector.requests.length, 0);
  arrive();
  assert.equal(window.analytics, early);
  window.analytics.track("c");
  await window.analytics.flush();

  assert.deepEqual(names(collector), ["identify", "a", "page", "c"]);
  assert.deepEqual(collector.taken()[1].properties, { b: 1 });
  assert.equal(collector.taken()[3].userId, "u1");
  assert.deepEqual(await Promise.all(answers), [true, true, true]);
});

test("each promise of the snippet settles with what the method returns", async (test) => {
  const { collector, arrive, early } = await snippetPage(test);
  const [taken, stats, flushed] = [early.track("a"), early.stats(), early.flush()];
  let settled;
  flushed.then(() => (settled = names(collector)));
  await tick();
  assert.equal(settled, undefined);
  arrive();

  assert.equal(await taken, true);
  assert.equal((await stats).taken, 1);
  await flushed;
  assert.deepEqual(settled, ["a"]);
});

test("a method that was taken from the snippet works on, once the script is there", async (test) => {
  const { collector, window, arrive, early } = await snippetPage(test);
  const { track, identify } = early;
  track("a");
  arrive();
  identify("u1");
  assert.equal(await track("b"), true);
  await window.analytics.flush();

  assert.deepEqual(names(collector), ["a", "identify", "b"]);
  assert.equal(collector.taken()[2].userId, "u1");
});

test("an init that the snippet took holds for what was called after it", async (test) => {
  const { collector, window, arrive, early } = await snippetPage(test);
  early.track("a");
  early.init({ apiKey: "k2", apiUrl: collector.url });
  early.track("b");
  arrive();
  await window.analytics.flush();
  await until(() => collector.requests.length == 2);

  const keys = collector.requests.map(({ headers, batch }) => [
    batch[0].name,
    headers["x-api-key"],
  ]);
  assert.deepEqual(keys.sort(), [
    ["a", "k"],
    ["b", "k2"],
  ]);
});

test("the snippet without a key takes what is called after its init, and says so", async (test) => {
  const { collector, window, arrive, early } = await snippetPage(test, "");
  const before = early.track("a");
  early.init({ apiKey: "k", apiUrl: collector.url });
  const after = early.track("b");
  arrive();
  await window.analytics.flush();

  assert.deepEqual(await Promise.all([before, after]), [false, true]);
  assert.deepEqual(names(collector), ["b"]);
});

test("optOut() in the snippet keeps back what was called after it", async (test) => {
  const { collector, storage, window, arrive, early } = await snippetPage(test);
  early.track("a");
  early.optOut();
  const after = early.track("b");
  arrive();
  await window.analytics.flush();

  assert.equal(await after, false);
  assert.equal(collector.requests.length, 0);
  assert.deepEqual([...storage.map], [["analytics:k:out", "1"]]);
});

test("a tag beside the snippet does no call twice", async (test) => {
  const { collector, clock, window, run, arrive, early } = await snippetPage(test);
  early.track("a");
  arrive();
  window.document.currentScript = tagOf()(collector);
  run();
  early.track("b");
  await window.analytics.flush();
  clock.advance(5000);
  await until(() => collector.taken().length == 2);

  assert.equal(window.analytics, early);
  assert.deepEqual(names(collector).sort(), ["a", "b"]);
});

test("a list that a page has put there is no queue: the client takes its place", async (test) => {
  const { collector, window, run } = await page(test, { tag: tagOf() });
  window.analytics = [["track", ["a"]]];
  run();
  window.analytics.track("b");
  await window.analytics.flush();

  assert.deepEqual(names(collector), ["b"]);
});

test("the script leaves no other global", async (test) => {
  const { window, run } = await page(test, { tag: tagOf() });
  const before = Object.keys(window);
  run();

  assert.deepEqual(
    Object.keys(window).filter((name) => !before.includes(name)),
    ["analytics"],
  );
});
