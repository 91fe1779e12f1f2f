// The calls of analytics.js, in all the forms that Segment's own library takes, by a real client.

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { writeModules } from "../support/modules.mjs";

const MODULES = await writeModules(["index", "segment"]);
const { init, analytics: standard } = await import(`${MODULES}/index.mjs`);
const { install, segment } = await import(`${MODULES}/segment.mjs`);

const nothing = { length: 0, key: () => null, getItem: () => null, setItem() {}, removeItem() {} };
// A timer that nobody waits for.
const later = (work, ms) => setTimeout(work, ms).unref();
const MEMBERS = [
  "type",
  "name",
  "userId",
  "groupId",
  "previousId",
  "properties",
  "traits",
  "timestamp",
  "integrations",
  "messageId",
];

// The last event of all, whole.
let last;

/** Return `analytics` and what it made: of each event the members that were given. */
function begin() {
  const events = [];
  const client = init({
    apiKey: "ak_live_test",
    storage: nothing,
    later,
    // It keeps all back, so nothing is sent.
    beforeSend(event) {
      const at = event.timestamp instanceof Date ? undefined : event.timestamp;
      const found = MEMBERS.map((name) => [name, name == "timestamp" ? at : event[name]]);
      events.push(Object.fromEntries(found.filter(([, value]) => value != null)));
      last = event;
    },
  });
  return { analytics: segment(client), client, events };
}

/** Return the events that *work* made. */
function made(work) {
  const { analytics, events } = begin();
  work(analytics);
  return events;
}

const OPTIONS = {
  context: { ip: "1.2.3.4" },
  timestamp: "2026-01-02T03:04:05Z",
  integrations: { All: false },
  messageId: "ajs-1",
};
const at = OPTIONS.timestamp;

test("track takes a name, and then what it is given", () => {
  const called = [];
  const events = made((analytics) => {
    analytics.track("a");
    analytics.track("a", { b: 1 });
    analytics.track("a", { b: 1 }, OPTIONS);
    analytics.track("a", null, OPTIONS);
    analytics.track("a", undefined, OPTIONS, () => called.push(1));
    analytics.track("a", {}, { userId: "u9", anonymousId: "v9" });
  });
  const a = { type: "track", name: "a", properties: {} };
  assert.deepEqual(events, [
    a,
    { ...a, properties: { b: 1 } },
    { ...a, properties: { b: 1 }, timestamp: at },
    { ...a, timestamp: at },
    { ...a, timestamp: at },
    { ...a, userId: "u9" },
  ]);
  assert.equal(last.anonymousId, "v9");
  made((analytics) => analytics.track("a", {}, OPTIONS));
  assert.match(last.anonymousId, /^[\da-f-]{36}$/);
});

test("the context of the options is added to ours", () => {
  made((analytics) => analytics.track("a", {}, OPTIONS));
  const { context } = last;
  assert.equal(context.ip, "1.2.3.4");
  assert.equal(context.library.name, "analytics-js");
});

for (const method of ["page", "screen"]) {
  test(`${method} takes a category and a name, each or none`, () => {
    const events = made((analytics) => {
      analytics[method]();
      analytics[method]("Home");
      analytics[method]("Docs", "Index");
      analytics[method]({ a: 1 });
      analytics[method]("Home", { a: 1 }, OPTIONS);
      analytics[method]("Docs", "Index", { a: 1 }, OPTIONS);
      analytics[method](null, "Home", { a: 1 });
      analytics[method](null, null, { a: 1 });
    });
    const one = { type: method, properties: {} };
    assert.deepEqual(events, [
      one,
      { ...one, name: "Home" },
      { ...one, name: "Index", properties: { category: "Docs" } },
      { ...one, properties: { a: 1 } },
      { ...one, name: "Home", properties: { a: 1 }, timestamp: at },
      { ...one, name: "Index", properties: { category: "Docs", a: 1 }, timestamp: at },
      { ...one, name: "Home", properties: { a: 1 } },
      { ...one, properties: { a: 1 } },
    ]);
  });
}

test("identify keeps traits until there is a user, and adds to those of the same one", () => {
  const events = made((analytics) => {
    analytics.identify({ plan: "pro" });
    analytics.identify(null, { seats: 2 });
    analytics.identify("u1");
    analytics.identify("u1", { name: "Ada" }, OPTIONS);
    analytics.identify({ name: "Ada L." });
    analytics.identify(7, { name: "Bob" });
    analytics.identify(8);
    assert.deepEqual(analytics.user().traits(), {});
  });
  const traits = { plan: "pro", seats: 2 };
  assert.deepEqual(events, [
    { type: "identify", userId: "u1", traits },
    { type: "identify", userId: "u1", traits: { ...traits, name: "Ada" }, timestamp: at },
    { type: "identify", userId: "u1", traits: { ...traits, name: "Ada L." } },
    { type: "identify", userId: "7", traits: { name: "Bob" } },
    { type: "identify", userId: "8", traits: {} },
  ]);
});

test("group takes a group and its traits", () => {
  const events = made((analytics) => {
    analytics.group("g1", { seats: 3 }, OPTIONS);
    analytics.group("g2");
  });
  assert.deepEqual(events, [
    { type: "group", groupId: "g1", traits: { seats: 3 }, timestamp: at },
    { type: "group", groupId: "g2", traits: {} },
  ]);
});

test("group without a group is no event", () => {
  assert.deepEqual(
    made((analytics) => analytics.group()),
    [],
  );
});

test("alias takes the new id first", () => {
  const events = made((analytics) => {
    analytics.alias("new", "old");
    analytics.alias("newer");
    analytics.alias("newest", "newer", OPTIONS);
    analytics.alias("last", OPTIONS);
  });
  const pairs = events.map(({ userId, previousId, timestamp }) => [userId, previousId, timestamp]);
  assert.deepEqual(pairs, [
    ["new", "old", undefined],
    ["newer", "new", undefined],
    ["newest", "newer", at],
    ["last", "newest", at],
  ]);
});

test("user() and setAnonymousId() tell who it is, until reset()", () => {
  const { analytics, events } = begin();
  assert.equal(analytics.user().id(), undefined);
  analytics.setAnonymousId("visitor");
  analytics.identify("u1", { a: 1 });
  assert.deepEqual(
    [analytics.user().id(), analytics.user().anonymousId(), analytics.user().traits()],
    ["u1", "visitor", { a: 1 }],
  );
  analytics.track("seen");
  assert.deepEqual([last.userId, last.anonymousId], ["u1", "visitor"]);

  analytics.reset();
  analytics.track("after");
  assert.equal(last.userId, undefined);
  assert.match(last.anonymousId, /^[\da-f-]{36}$/);
  assert.deepEqual(
    [analytics.user().id(), analytics.user().anonymousId(), analytics.user().traits()],
    [undefined, undefined, {}],
  );
});

test("ready, callbacks and promises come to pass", async () => {
  const { analytics } = begin();
  await new Promise((done) => analytics.ready(done));
  for (const call of [
    (done) => analytics.track("a", done),
    (done) => analytics.page("a", "b", {}, {}, done),
    (done) => analytics.identify("u", done),
    (done) => analytics.group("g", {}, done),
    (done) => analytics.alias("a", "b", done),
  ]) {
    await new Promise(call);
    assert.ok(call() instanceof Promise);
  }
});

test("links and forms are tracked, one, several or none of them", () => {
  const { analytics, events } = begin();
  const [link, other, form] = [new EventTarget(), new EventTarget(), new EventTarget()];
  link.href = "/a";
  analytics.trackLink(link, "link", (target) => ({ href: target.href }));
  analytics.trackClick([link, other], () => "click", { a: 1 });
  analytics.trackForm(form, "form");
  analytics.trackSubmit(form, "submit");
  analytics.trackLink(null, "none");
  for (const target of [link, other]) target.dispatchEvent(new Event("click"));
  form.dispatchEvent(new Event("submit"));
  assert.deepEqual(
    events.map(({ name, properties }) => [name, properties]),
    [
      ["link", { href: "/a" }],
      ["click", { a: 1 }],
      ["click", { a: 1 }],
      ["form", {}],
      ["submit", {}],
    ],
  );
});

test("what only Segment has a use for does not fail", () => {
  const { analytics } = begin();
  for (const name of [
    ...["on", "once", "off", "debug", "register"],
    ...["addSourceMiddleware", "addIntegrationMiddleware", "addDestinationMiddleware"],
  ]) {
    assert.equal(
      analytics[name](() => {}),
      analytics,
    );
  }
});

test("load() makes the default client", () => {
  const seen = [];
  segment().load("ak_live_x", {
    apiUrl: "http://127.0.0.1:1",
    storage: nothing,
    later,
    beforeSend: ({ name }) => void seen.push(name),
  });
  segment().track("a");
  standard.track("b");
  assert.deepEqual(seen, ["a", "b"]);
});

afterEach(() => delete globalThis.analytics);

test("install() does what the snippet has queued, in its order, and then what is called", () => {
  const { client, events } = begin();
  const page = { __t: "bpc", p: "/", u: "https://shop.example/" };
  globalThis.analytics = [
    ["identify", "u1", page],
    ["track", "a", { b: 1 }, page],
    ["register", "x"],
    ["page", page],
  ];
  const analytics = install(client);
  assert.equal(globalThis.analytics, analytics);
  globalThis.analytics.track("later");
  assert.deepEqual(events, [
    { type: "identify", userId: "u1", traits: {} },
    { type: "track", name: "a", userId: "u1", properties: { b: 1 } },
    { type: "page", userId: "u1", properties: {} },
    { type: "track", name: "later", userId: "u1", properties: {} },
  ]);
  assert.ok(analytics.initialized && analytics.initialize);
});

test("install() on a page without the snippet just puts it there", () => {
  const { client, events } = begin();
  install(client);
  globalThis.analytics.track("a");
  assert.equal(events.length, 1);
});
