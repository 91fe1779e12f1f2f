// What the SDK builds: valid by the specification's schema, and what its vectors say.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import Ajv from "ajv/dist/2020.js";
import { startCollector } from "../support/collector.mjs";
import { stage } from "../support/page.mjs";
import { VERSION } from "../support/source.mjs";

const read = (path) => JSON.parse(readFileSync(new URL(`../../../spec/${path}`, import.meta.url)));
const UUID7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

const ajv = new Ajv({ strict: false });
ajv.addSchema(read("schema/event.json"));
const isBatch = ajv.compile(read("schema/batch.json"));
const begin = stage(startCollector);

/** Call the API so that this event comes out of it. */
function call(client, { type, name, properties, traits, groupId, previousId, userId, ...rest }) {
  if (type == "identify") return client.identify(userId, traits, rest);
  if (type == "alias") return client.alias(previousId, userId, rest);
  if (userId !== undefined) rest.userId = userId;
  if (type == "group") return client.group(groupId, traits, rest);
  return client[type](name, properties, rest);
}

/** Return the bodies of what *work* does with a client. */
async function sent(test, work, options) {
  const { collector, open } = await begin(test);
  const { client } = open({ options });
  work(client);
  await client.flush();
  for (const { body } of collector.requests) {
    assert.ok(isBatch(body), ajv.errorsText(isBatch.errors));
  }
  return collector.requests;
}

test("an event of each type is valid, and a batch of them", async (test) => {
  const [{ headers, body, method, url }] = await sent(test, (client) => {
    assert.ok(client.track("signed_up", { plan: "pro", at: new Date(0), total: 12n }));
    assert.ok(client.identify("u1", { name: "Ada" }));
    assert.ok(client.page());
    assert.ok(client.screen("Home", { tab: 1 }));
    assert.ok(client.group("g1", { seats: 3 }));
    assert.ok(client.alias("old", "u1"));
  });

  assert.equal(`${method} ${url.split("/").slice(2).join("/")}`, "POST api/v1/events");
  assert.equal(headers["content-type"], "application/json");
  assert.equal(headers["x-api-key"], "ak_live_test");
  assert.equal(new Date(body.sentAt).toISOString(), body.sentAt);
  assert.deepEqual(
    body.batch.map(({ type }) => type),
    ["track", "identify", "page", "screen", "group", "alias"],
  );
  const [track, identify, , screen, group, alias] = body.batch;
  assert.equal(track.name, "signed_up");
  assert.deepEqual(track.properties, { plan: "pro", at: "1970-01-01T00:00:00.000Z", total: "12" });
  assert.deepEqual([identify.userId, identify.traits], ["u1", { name: "Ada" }]);
  assert.deepEqual([screen.name, screen.properties], ["Home", { tab: 1 }]);
  assert.deepEqual([group.groupId, group.traits], ["g1", { seats: 3 }]);
  assert.deepEqual([alias.previousId, alias.userId], ["old", "u1"]);
  assert.equal(new Set(body.batch.map(({ messageId }) => messageId)).size, 6);
  for (const event of body.batch) {
    assert.match(event.messageId, UUID7);
    assert.match(event.anonymousId, UUID7);
    assert.match(event.sessionId, UUID7);
    assert.ok(Math.abs(new Date(event.timestamp) - new Date(body.sentAt)) < 5000);
  }
});

test("the context tells of the page, the screen, the language and the library", async (test) => {
  const { collector, open } = await begin(test);
  const { client } = open({ document: { title: "Shoes", referrer: "https://search.example/" } });
  client.page("Shoes", {}, { context: { app: { name: "shop" } } });
  await client.flush();

  const [{ context }] = collector.taken();
  assert.deepEqual(context.library, { name: "analytics-js", version: VERSION });
  assert.deepEqual(context.page, {
    url: "https://shop.example/a?b=1",
    path: "/a",
    search: "?b=1",
    title: "Shoes",
    referrer: "https://search.example/",
  });
  assert.deepEqual(context.screen, { width: 1920, height: 1080 });
  assert.equal(context.locale, "de-DE");
  assert.equal(context.timezone, Intl.DateTimeFormat().resolvedOptions().timeZone);
  assert.deepEqual(context.app, { name: "shop" });
});

// The vectors

const API = [
  "type",
  "name",
  "userId",
  "anonymousId",
  "sessionId",
  "groupId",
  "previousId",
  "timestamp",
  "properties",
  "traits",
  "context",
];
// What of it each method takes beside the options, which take the rest of EventOptions.
const TAKES = {
  track: ["name", "properties", "userId"],
  page: ["name", "properties", "userId"],
  screen: ["name", "properties", "userId"],
  identify: ["userId", "traits"],
  group: ["groupId", "traits", "userId"],
  alias: ["previousId", "userId"],
};
const OPTIONS = ["type", "anonymousId", "sessionId", "timestamp", "context"];

const holds = (value, test) =>
  test(value) ||
  (value && typeof value == "object" && Object.values(value).some((inner) => holds(inner, test)));

/** Return the event of a case, if calls of the API can come to it. */
function expressible({ given, expect }) {
  if (expect.verdict != "accepted") return;
  const event = given.event ?? JSON.parse(given.eventJson);
  const members = Object.keys(event);
  const allowed = [...OPTIONS, ...TAKES[event.type]];
  if (!members.every((member) => allowed.includes(member))) return;
  // JavaScript has no such numbers; the SDK's context takes some of the 100 KiB.
  if (
    holds(
      event,
      (value) => Number.isInteger(value) && !Number.isSafeInteger(value) && value < 1e300,
    )
  )
    return;
  // Nor can an object have a property of that name by assignment.
  if (given.repeat || JSON.stringify(event).includes("__proto__")) return;
  return event;
}

const { cases } = read("vectors/event.json");
const chosen = cases.flatMap((its) =>
  expressible(its) ? [{ ...its, event: expressible(its) }] : [],
);

test("most of the vectors' accepted cases can be said by the API", () => {
  assert.equal(cases.filter(({ expect }) => expect.verdict == "accepted").length, 117);
  assert.equal(chosen.length, 88);
});

/** As the collector stores it: EVT-28. */
const repaired = (value) =>
  typeof value == "string"
    ? value.replace(
        /\0|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g,
        "\ufffd",
      )
    : Array.isArray(value)
      ? value.map(repaired)
      : value && typeof value == "object"
        ? Object.fromEntries(
            Object.entries(value).map(([name, inner]) => [repaired(name), repaired(inner)]),
          )
        : value;

for (const { name, event, expect } of chosen) {
  test(`vector: ${name}`, async (test) => {
    let wire;
    await sent(test, (client) => assert.ok(call(client, event))).then(
      ([{ batch }]) => ([wire] = batch),
    );

    for (const [member, stored] of Object.entries(expect.stored ?? {})) {
      if (member == "name") assert.equal(wire.name || `$${wire.type}`, stored);
      else if (member == "context") {
        for (const part in stored) assert.deepEqual(repaired(wire.context)[part], stored[part]);
      } else if (["properties", "traits"].includes(member)) {
        // deepEqual would not look at a member named __proto__.
        assert.deepEqual(Object.entries(repaired(wire[member] ?? {})), Object.entries(stored));
      } else if (API.includes(member) && member in event && member != "timestamp") {
        assert.equal(wire[member] || null, stored);
      }
    }
    // The correction is the collector's; here nothing may be done to it.
    if (event.timestamp !== undefined) assert.equal(wire.timestamp, event.timestamp);
  });
}

// Limits

test("an event of more than 100 KiB is refused at once, and counted", async (test) => {
  let client;
  const requests = await sent(test, (its) => {
    client = its;
    assert.equal(client.track("big", { text: "x".repeat(102_400) }), false);
    assert.equal(client.track("fits", { text: "x".repeat(101_000) }), true);
  });

  assert.deepEqual(
    requests.flatMap(({ batch }) => batch.map(({ name }) => name)),
    ["fits"],
  );
  assert.equal(client.stats().refused, 1);
  assert.equal(client.stats().taken, 1);
});

test("numbers for ids become texts", async (test) => {
  const [{ batch }] = await sent(test, (client) => {
    client.identify(42, {}, { sessionId: 7 });
    client.group(0);
    client.alias(1, 2);
  });

  assert.deepEqual([batch[0].userId, batch[0].sessionId], ["42", "7"]);
  assert.equal(batch[1].groupId, "0");
  assert.deepEqual([batch[2].previousId, batch[2].userId], ["1", "2"]);
});

test("an id of null in the options is none", async (test) => {
  const [{ batch }] = await sent(test, (client) => {
    client.identify("u1");
    client.track("a", {}, { userId: null });
  });

  assert.equal(batch[1].userId, null);
});

test("an option that is undefined is as one that is absent", async (test) => {
  const [{ batch }] = await sent(test, (client) => {
    client.identify("u1");
    client.track("a", {}, { userId: undefined, timestamp: undefined, anonymousId: undefined });
  });

  assert.equal(batch[1].userId, "u1");
  assert.equal(batch[1].anonymousId, batch[0].anonymousId);
  assert.ok(batch[1].timestamp);
});

for (const nothing of [false, 0, "", null, undefined]) {
  test(`properties that are ${JSON.stringify(nothing) ?? nothing} are none`, async (test) => {
    const [{ batch }] = await sent(test, (client) => client.track("a", nothing));

    assert.deepEqual(batch[0].properties, {});
  });
}

test("options of null are none", async (test) => {
  const [request] = await sent(test, (client) => client.track("a", {}, null));

  assert.equal(request?.batch[0].name, "a");
});

test("a page without screen, title and referrer makes valid events too", async (test) => {
  const { collector, open } = await begin(test);
  const { client } = open({ screen: undefined, navigator: undefined, document: undefined });
  client.page();
  await client.flush();

  assert.ok(isBatch(collector.requests[0].body), ajv.errorsText(isBatch.errors));
});

test("what is changed after the call does not change the event", async (test) => {
  const properties = { items: [1] };
  const [{ batch }] = await sent(test, (client) => {
    client.track("a", properties);
    properties.items.push(2);
  });

  assert.deepEqual(batch[0].properties, { items: [1] });
});
