// Batches, retries and order, against a real server: nothing lost, nothing twice without need.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { accepted, startCollector } from "../support/collector.mjs";
import { balance, setGlobals, stage, tick, until } from "../support/page.mjs";

const { wire, delivery } = JSON.parse(
  readFileSync(new URL("../../../spec/limits.json", import.meta.url)),
);
const begin = stage(startCollector);
// Three bytes each at most: together less than the 64 KiB of keepalive.
const KEEPALIVE_CHARS = 20_000;
// By so much may the age be wrong that is read from a message id.
const EXPIRY_STEP_MS = 2 ** 16;
// What stands in a body beside its events.
const ENVELOPE_CHARS = 60;

const names = (collector) => collector.taken().map(({ name }) => name);
const batches = (collector) =>
  collector.requests.map(({ batch }) => batch.map(({ name }) => name).join(""));
const idle = (client) => until(() => client.stats().queued == 0, "the queue is empty");
const track = (client, text) => [...text].forEach((name) => assert.ok(client.track(name)));

/** Let Math.random give *value*: the jitter is exact then. */
function withRandom(test, value) {
  const real = Math.random;
  Math.random = () => value;
  test.after(() => (Math.random = real));
}

test("a batch goes when ten events wait", async (test) => {
  const { collector, open, fetches } = await begin(test);
  const { client } = open();
  track(client, "123456789");
  await tick();
  assert.equal(fetches.length, 0);
  track(client, "0");
  await idle(client);

  assert.equal(delivery.batch_size, 10);
  assert.deepEqual(batches(collector), ["1234567890"]);
});

test("fewer go after five seconds", async (test) => {
  const { collector, clock, open, fetches } = await begin(test);
  const { client } = open();
  track(client, "a");
  await tick();
  clock.advance(2000);
  track(client, "b");
  await tick();
  clock.advance(delivery.flush_interval_s * 1000 - 2001);
  await tick();
  assert.equal(fetches.length, 0);
  clock.advance(1);
  await idle(client);

  assert.deepEqual(batches(collector), ["ab"]);
});

test("both can be set, as numbers and as texts", async (test) => {
  const { collector, clock, open } = await begin(test);
  const { client } = open({ options: { batchSize: "3", batchInterval: "100" } });
  track(client, "abc");
  await idle(client);
  track(client, "d");
  await tick();
  clock.advance(100);
  await idle(client);

  assert.deepEqual(batches(collector), ["abc", "d"]);
});

test("the names of other SDKs' options do", async (test) => {
  const { collector, open } = await begin(test);
  const { client } = open({
    options: {
      apiKey: undefined,
      apiUrl: undefined,
      projectId: "p1",
      endpoint: `${collector.url}/x/`,
    },
  });
  track(client, "a");
  await client.flush();

  assert.equal(collector.requests[0].url, "/x/api/v1/events");
  assert.equal(collector.requests[0].headers["x-api-key"], "p1");
});

test("one request at a time, and a backlog goes in bigger batches", async (test) => {
  const { collector, open, fetches } = await begin(test);
  const { client } = open({ options: { batchSize: 2 } });
  collector.next("hang");
  track(client, "ab");
  await until(() => collector.requests.length == 1);
  track(client, "cdefghijklmnopqrstuvwxyz");
  await tick();
  assert.equal(fetches.length, 1);
  collector.requests[0].release();
  await idle(client);

  assert.deepEqual(batches(collector), ["ab", "cdefghijklmnopqrstuvwxyz"]);
});

test("a batch has at most 20,000 characters, so that keepalive takes it, and never 500 events", async (test) => {
  const { collector, open } = await begin(test);
  const { client } = open({
    options: { batchSize: 2000, beforeSend: ({ type, name }) => ({ type, name }) },
  });
  for (let index = 0; index < 700; index++) client.track(`${index}`);
  await client.flush();

  assert.deepEqual(
    names(collector),
    Array.from({ length: 700 }, (_, index) => `${index}`),
  );
  for (const { batch, text } of collector.requests) {
    assert.ok(batch.length <= wire.max_batch_events);
    assert.ok(text.length <= KEEPALIVE_CHARS + ENVELOPE_CHARS, `${text.length} characters`);
  }
  assert.ok(collector.requests.length < 8);
});

test("an event that is larger than keepalive takes goes alone", async (test) => {
  const { collector, open } = await begin(test);
  const { client } = open();
  client.track("a");
  client.track("large", { text: "€".repeat(90_000) });
  client.track("b");
  await client.flush();

  assert.deepEqual(names(collector), ["a", "large", "b"]);
  assert.ok(collector.requests.some(({ batch }) => batch.length == 1 && batch[0].name == "large"));
});

// Answers

const AGAIN = {
  503: { status: 503, body: { error: "x", code: "STORE_UNAVAILABLE" } },
  408: { status: 408 },
  500: { status: 500, body: "<html>" },
  404: { status: 404 },
  415: { status: 415 },
  429: { status: 429 },
  301: { status: 301, headers: { location: "/elsewhere" } },
  307: { status: 307, headers: { location: "/elsewhere" } },
  "a captive portal's 200": { status: 200, body: "<html>Log in</html>" },
  "200 with the right words": { status: 200, body: accepted(2).body },
  "202 with a page": { status: 202, body: "<html>" },
  "202 without eventCount": { status: 202, body: { status: "accepted" } },
  204: { status: 204 },
  "a connection that breaks": "reset",
  "half an answer": "half",
};
for (const [name, answer] of Object.entries(AGAIN)) {
  test(`${name}: the same events go again, with the same ids and before later ones`, async (test) => {
    const { collector, clock, storage, open, fetches } = await begin(test);
    withRandom(test, 0.5);
    const { client } = open();
    collector.next(answer);
    track(client, "ab");
    const flushed = client.flush();
    await until(() => collector.requests.length == 1 && clock.waits().includes(250));
    assert.equal(client.stats().delivered, 0);
    track(client, "c");
    await tick();
    assert.deepEqual(
      storage.events().map(({ name }) => name),
      ["a", "b", "c"],
    );
    clock.advance(249);
    await tick();
    assert.equal(fetches.length, 1);
    clock.advance(1);
    await flushed;
    await idle(client);

    const [first, second] = collector.requests;
    assert.ok(!collector.requests.some(({ url }) => url == "/elsewhere"));
    assert.deepEqual(second.batch.slice(0, 2), first.batch);
    assert.deepEqual(names(collector), ["a", "b", "c"]);
    assert.deepEqual(client.stats(), {
      taken: 3,
      adopted: 0,
      delivered: 3,
      queued: 0,
      rejected: 0,
      expired: 0,
      dropped: 0,
      refused: 0,
    });
    assert.deepEqual(storage.events(), []);
  });
}

test("the pauses double up to a minute, and there is no last try", async (test) => {
  const { collector, clock, open } = await begin(test);
  withRandom(test, 1 - 2 ** -20);
  const { client } = open();
  const pauses = [];
  // No other timer ends between two milliseconds.
  const retry = () => clock.waits().find((ms) => ms % 1);
  collector.next(...Array(12).fill({ status: 503 }));
  track(client, "a");
  client.flush();
  for (let attempt = 1; attempt <= 12; attempt++) {
    await until(retry, `retry ${attempt} is planned`);
    pauses.push(Math.ceil(retry()));
    clock.advance(Math.ceil(retry()));
  }
  await idle(client);

  const { first_retry_delay_s, max_retry_delay_s } = delivery;
  const expected = Array.from(
    { length: 12 },
    (_, index) => Math.min(first_retry_delay_s * 2 ** index, max_retry_delay_s) * 1000,
  );
  assert.deepEqual(pauses, expected);
});

test("Retry-After is a minimum that flush() and the network's return can't cut short, of at most 300 s", async (test) => {
  const { collector, clock, open, fetches } = await begin(test);
  withRandom(test, 0.5);
  const page = open();
  collector.next(
    { status: 503, headers: { "retry-after": "7" } },
    { status: 429, headers: { "retry-after": "99999" } },
  );
  track(page.client, "a");
  page.client.flush();
  await until(() => clock.waits().includes(7250));
  page.client.flush();
  page.fire("online");
  page.fire("visibilitychange", true);
  clock.advance(6999);
  await tick();
  assert.equal(fetches.length, 1);
  clock.advance(251);
  await until(
    () => collector.requests.length == 2 && clock.waits().includes(300_500),
    "300 s are the most",
  );
  clock.advance(299_999);
  await tick();
  assert.equal(fetches.length, 2);
  clock.advance(501);
  await idle(page.client);

  assert.equal(delivery.max_retry_after_s, 300);
  assert.equal(collector.requests.length, 3);
});

test("a clock that is set back does not make a pause longer than 300 s", async (test) => {
  const { collector, clock, open } = await begin(test);
  const { client } = open();
  collector.next({ status: 503, headers: { "retry-after": "5" } });
  track(client, "a");
  client.flush();
  await until(() => clock.waits().some((ms) => ms >= 5000 && ms < 6000));
  clock.now -= 864e5;
  clock.timers.forEach((timer) => (timer.at -= 864e5));
  clock.advance(6000);
  await idle(client);

  assert.deepEqual(names(collector), ["a"]);
});

for (const status of [401, 402, 403]) {
  test(`${status}: the events are held, and one request a minute asks`, async (test) => {
    const { collector, clock, open, fetches } = await begin(test);
    const { client } = open({ options: { batchSize: 2 } });
    collector.next({ status, body: { error: "x", code: "AUTH_FAILED" } });
    track(client, "ab");
    await until(
      () =>
        collector.requests.length == 1 && clock.waits().filter((ms) => ms == 60_000).length == 1,
    );
    track(client, "cdef");
    await tick();
    clock.advance(59_999);
    await tick();
    assert.equal(fetches.length, 1);
    assert.equal(client.stats().queued, 6);
    clock.advance(1);
    await idle(client);

    assert.equal(delivery.auth_probe_interval_s, 60);
    assert.deepEqual(batches(collector), ["ab", "abcdef"]);
  });
}

test("a refused key with Retry-After is asked again after both", async (test) => {
  const { collector, clock, open } = await begin(test);
  const { client } = open();
  collector.next({ status: 403, headers: { "retry-after": "120" } });
  track(client, "a");
  client.flush();
  await until(() => clock.waits().includes(180_000));
  clock.advance(180_000);
  await idle(client);

  assert.deepEqual(names(collector), ["a"]);
});

test("opting out and in again elsewhere during a pause does not end delivery", async (test) => {
  const { collector, clock, storage, open } = await begin(test);
  withRandom(test, 0.5);
  const { client } = open();
  collector.next({ status: 503 });
  track(client, "a");
  client.flush();
  await until(() => clock.waits().includes(250));
  const other = open();
  other.client.optOut();
  clock.advance(250);
  await tick();
  assert.equal(client.stats().dropped, 1);
  other.client.optIn();
  track(client, "b");
  await tick();
  clock.advance(5000);
  await idle(client);

  assert.deepEqual(names(collector), ["b"]);
  assert.deepEqual(storage.boxes(), []);
});

test("413 halves the batch until it passes, at once and in order", async (test) => {
  const { collector, open } = await begin(test);
  const errors = [];
  const { client } = open({ options: { batchSize: 8, onError: (error) => errors.push(error) } });
  const most = ({ batch }) =>
    batch.length > 2 ? { status: 413, body: { code: "BODY_TOO_LARGE" } } : accepted(batch.length);
  collector.next(...Array(20).fill(most));
  track(client, "abcdefgh");
  await idle(client);

  assert.deepEqual(names(collector), [..."abcdefgh"]);
  assert.ok(collector.requests.length < 12);
  assert.deepEqual(errors, []);
});

test("a single event that is too large is rejected, and the application hears why", async (test) => {
  const { collector, open } = await begin(test);
  const errors = [];
  const { client } = open({ options: { onError: (error) => errors.push(error) } });
  collector.next({ status: 413, body: { error: "Too large.", code: "BODY_TOO_LARGE" } });
  track(client, "a");
  await client.flush();

  assert.equal(client.stats().rejected, 1);
  assert.deepEqual(
    [errors[0].code, errors[0].message, errors[0].event.name],
    ["BODY_TOO_LARGE", "Too large.", "a"],
  );
});

test("400 without verdicts: the bad event ends up alone, the others arrive in order", async (test) => {
  const { collector, open } = await begin(test);
  const errors = [];
  const { client } = open({ options: { onError: (error) => errors.push(error) } });
  const judge = ({ batch }) =>
    batch.some(({ name }) => name == "f")
      ? { status: 400, body: { error: "Bad.", code: "INVALID_JSON" } }
      : accepted(batch.length);
  collector.next(...Array(20).fill(judge));
  track(client, "abcdefghij");
  await client.flush();

  assert.deepEqual(names(collector), [..."abcdeghij"]);
  assert.deepEqual(
    errors.map(({ code, event }) => [code, event.name]),
    [["INVALID_JSON", "f"]],
  );
  assert.equal(client.stats().rejected, 1);
});

test("400 with verdicts: those are rejected, the others go again at once", async (test) => {
  const { collector, open } = await begin(test);
  const errors = [];
  const { client } = open({ options: { onError: (error) => errors.push(error) } });
  collector.next({
    status: 400,
    body: {
      code: "ALL_EVENTS_REJECTED",
      rejected: [{ index: 1, code: "MISSING_NAME", message: "m" }],
    },
  });
  track(client, "abc");
  await client.flush();

  assert.deepEqual(batches(collector), ["abc", "ac"]);
  assert.deepEqual(
    errors.map(({ code, message, event }) => [code, message, event.name]),
    [["MISSING_NAME", "m", "b"]],
  );
});

test("202 with verdicts: those are rejected, the others are delivered, nothing goes again", async (test) => {
  const { collector, open } = await begin(test);
  const errors = [];
  const { client } = open({ options: { onError: (error) => errors.push(error) } });
  collector.next(accepted(2, [{ index: 0, code: "INVALID_NAME", message: "m" }]));
  track(client, "abc");
  await client.flush();

  assert.deepEqual(batches(collector), ["abc"]);
  assert.deepEqual(
    errors.map(({ event }) => event.name),
    ["a"],
  );
  assert.equal(client.stats().delivered, 2);
});

for (const [what, mode] of [
  ["no answer", "hang"],
  ["an answer without end", "endless"],
]) {
  test(`after ten seconds of ${what} the request is given up, and the events go again`, async (test) => {
    const { collector, clock, open } = await begin(test);
    withRandom(test, 0);
    const { client } = open();
    collector.next(mode);
    track(client, "a");
    const flushed = client.flush();
    await until(() => collector.requests.length == 1);
    clock.advance(delivery.request_timeout_s * 1000 - 1);
    await tick();
    assert.equal(client.stats().queued, 1);
    clock.advance(1);
    await until(() => clock.waits()[0] == 0, "a retry is planned");
    clock.advance(0);
    await flushed;

    assert.deepEqual(batches(collector), ["a", "a"]);
    assert.equal(client.stats().delivered, 1);
  });
}

test("an answer is read whole, however long: what is unread counts against keepalive", async (test) => {
  const { collector, open } = await begin(test);
  const answers = [];
  const { fetch } = globalThis;
  const remember = async (...all) => (answers.push(await fetch(...all)), answers.at(-1));
  test.after(setGlobals({ fetch: remember }));
  const { client } = open();
  const long = { ...accepted(1).body, more: "x".repeat(1e6) };
  collector.next({ status: 202, body: long }, { status: 400, body: "x".repeat(1e6) });
  track(client, "a");
  await client.flush();
  track(client, "b");
  await client.flush();

  assert.deepEqual([client.stats().delivered, client.stats().rejected], [1, 1]);
  assert.deepEqual(
    answers.map(({ bodyUsed }) => bodyUsed),
    [true, true],
  );
});

test("an event that waited for 30 days is given up, and counted", async (test) => {
  const { collector, clock, open } = await begin(test);
  withRandom(test, 0.5);
  const { client } = open();
  collector.next({ status: 503 });
  track(client, "a");
  client.flush();
  await until(() => clock.waits().includes(250));
  // Asleep: time passes, and no timer comes.
  clock.now += delivery.spool_expiry_days * 864e5 + EXPIRY_STEP_MS;
  track(client, "b");
  const flushed = client.flush();
  clock.advance(0);
  await flushed;

  assert.deepEqual(names(collector), ["b"]);
  assert.equal(client.stats().expired, 1);
  assert.equal(client.stats().queued, 0);
});

test("an event whose beforeSend names another message id is not old for that", async (test) => {
  const { collector, open } = await begin(test);
  const { client } = open({
    options: {
      beforeSend: (event) => ({ ...event, messageId: "00000000-1111-4222-8333-444444444444" }),
    },
  });
  track(client, "a");
  await client.flush();

  assert.equal(collector.taken()[0].messageId, "00000000-1111-4222-8333-444444444444");
  assert.equal(client.stats().expired, 0);
});

// Leaving, and coming back

test("what waits goes when the page is hidden, and when it goes", async (test) => {
  for (const [type, hidden] of [
    ["visibilitychange", true],
    ["pagehide", false],
  ]) {
    const { collector, open } = await begin(test);
    const page = open();
    track(page.client, "ab");
    page.fire(type, hidden);
    await idle(page.client);

    assert.deepEqual(batches(collector), ["ab"]);
  }
});

test("what is tracked while the page goes goes too, beside a request that is under way", async (test) => {
  const { collector, open } = await begin(test);
  const page = open();
  collector.next("hang");
  page.fire("pagehide");
  track(page.client, "a");
  await until(() => collector.requests.length == 1);
  track(page.client, "b");
  await until(() => collector.requests.length == 2);
  collector.requests[0].release();
  await idle(page.client);

  assert.deepEqual(batches(collector), ["a", "b"]);
});

test("requests outlive the page while all of them have at most 20,000 characters, which browsers allow", async (test) => {
  const { collector, open, fetches } = await begin(test);
  const page = open();
  collector.next("hang");
  page.client.track("a", { text: "x".repeat(12_000) });
  page.fire("pagehide");
  page.client.track("b", { text: "x".repeat(12_000) });
  await until(() => collector.requests.length == 2);
  collector.requests[0].release();
  await idle(page.client);

  assert.deepEqual(
    fetches.map(({ keepalive }) => keepalive),
    [true, false],
  );
});

test("when the network is back it does not wait for the retry", async (test) => {
  const { collector, clock, open } = await begin(test);
  withRandom(test, 0.5);
  const page = open();
  collector.next("reset");
  track(page.client, "a");
  page.client.flush();
  await until(() => clock.waits().includes(250));
  clock.advance(0);
  page.fire("online");
  await idle(page.client);

  assert.deepEqual(names(collector), ["a"]);
});

test("a hidden page sends although a request is under way", async (test) => {
  const { collector, open } = await begin(test);
  const page = open({ options: { batchSize: 1 } });
  collector.next("hang");
  track(page.client, "a");
  await until(() => collector.requests.length == 1);
  track(page.client, "b");
  page.fire("visibilitychange", true);
  await until(() => collector.requests.length == 2);
  collector.requests[0].release();
  await idle(page.client);

  assert.deepEqual(batches(collector), ["a", "b"]);
});

for (const [type, hidden] of [
  ["visibilitychange", false],
  ["online", false],
]) {
  test(`a page that stays keeps the order: no second request at once after ${type}`, async (test) => {
    const { collector, open, fetches } = await begin(test);
    const page = open({ options: { batchSize: 1 } });
    test.after(() => page.die());
    collector.next("hang");
    track(page.client, "a");
    await until(() => collector.requests.length == 1);
    track(page.client, "b");
    page.fire(type, hidden);
    for (let turn = 0; turn < 50; turn++) await tick();

    assert.equal(fetches.length, 1);
  });
}

// flush() and stop()

test("flush() settles when all that was taken before has its outcome, and not for what came later", async (test) => {
  const { collector, clock, open } = await begin(test);
  withRandom(test, 0.5);
  const { client } = open();
  collector.next("hang", { status: 503 });
  track(client, "ab");
  let settled = 0;
  const first = client.flush().then(() => settled++);
  await until(() => collector.requests.length == 1);
  track(client, "c");
  const second = client.flush().then(() => settled++);
  collector.requests[0].release(accepted(1, [{ index: 0, code: "INVALID_NAME", message: "m" }]));
  await first;
  assert.equal(settled, 1);
  assert.deepEqual([client.stats().delivered, client.stats().rejected], [1, 1]);
  await until(() => clock.waits().includes(250), "the second is refused for now");
  assert.equal(settled, 1);
  clock.advance(250);
  await second;

  assert.equal(client.stats().queued, 0);
});

test("flush() with nothing waiting settles at once", async (test) => {
  const { collector, open } = await begin(test);
  await open().client.flush();

  assert.equal(collector.requests.length, 0);
});

test("flush() sends even when nothing is full", async (test) => {
  const { collector, open } = await begin(test);
  const { client } = open();
  track(client, "a");
  await client.flush();
  track(client, "b");
  await tick();

  assert.deepEqual(batches(collector), ["a"]);
});

test("stop() sends what waits, takes no more, and leaves no timer and no listener", async (test) => {
  const { collector, clock, open } = await begin(test);
  const page = open();
  track(page.client, "a");
  page.client.stop();
  assert.equal(page.client.track("b"), false);
  await idle(page.client);
  clock.advance(120_000);
  page.fire("visibilitychange");
  page.fire("pagehide");
  page.fire("online");

  assert.deepEqual(batches(collector), ["a"]);
  assert.deepEqual(clock.waits(), []);
  assert.deepEqual(page.listeners, []);
  assert.equal(page.client.stats().refused, 1);
});

test("stop() twice does no harm, nor where there is no page", async (test) => {
  const { open } = await begin(test);
  for (const given of [{}, { storage: undefined, url: "data:," }]) {
    const page = open({ ...given, addEventListener: undefined, removeEventListener: undefined });
    page.client.stop();
    assert.doesNotThrow(() => page.client.stop());
  }
});

test("a fetch that is given sends, and no other", async (test) => {
  const { collector, open } = await begin(test);
  const { fetch } = globalThis;
  const asked = [];
  const by = (name) => (url, request) => (asked.push(name), fetch(url, request));
  test.after(setGlobals({ fetch: by("the page's") }));
  const { client } = open({ options: { fetch: by("the one given") } });
  track(client, "a");
  await client.flush();
  assert.deepEqual(asked, ["the one given"]);
  assert.deepEqual(names(collector), ["a"]);
});

test("flush() after stop() settles", async (test) => {
  const { collector, clock, open } = await begin(test);
  withRandom(test, 0.5);
  const { client } = open();
  collector.next({ status: 503 });
  track(client, "a");
  client.stop();
  await until(() => clock.waits().includes(250));
  let settled;
  client.flush().then(() => (settled = true));
  clock.advance(1000);
  await tick();

  assert.ok(settled);
});

test("the sum holds inside onError", async (test) => {
  const { collector, open } = await begin(test);
  let sums;
  const { client } = open({ options: { onError: () => (sums = balance(client.stats())) } });
  collector.next({ status: 400, body: { rejected: [{ index: 0, code: "X", message: "m" }] } });
  track(client, "abc");
  await client.flush();

  assert.equal(sums[0], sums[1]);
});

test("flush() in onError loses nothing", async (test) => {
  const { collector, open } = await begin(test);
  const { client } = open({ options: { onError: () => client.flush() } });
  collector.next({ status: 400, body: { rejected: [{ index: 0, code: "X", message: "m" }] } });
  track(client, "abc");
  await client.flush();
  await tick();

  assert.deepEqual(names(collector), ["b", "c"]);
  assert.deepEqual(...balance(client.stats()).map((sum) => [sum]));
});

test("stop() in onError leaves the rest of the batch to the next page", async (test) => {
  const { collector, clock, open } = await begin(test);
  const { client } = open({ options: { onError: () => client.stop() } });
  const rejected = [{ index: 0, code: "X", message: "m" }];
  collector.next("hang");
  track(client, "abc");
  client.flush();
  await until(() => collector.requests.length == 1);
  track(client, "d");
  collector.requests[0].release({ status: 400, body: { rejected } });
  await until(() => client.stats().delivered == 1);
  await tick();
  assert.equal(client.stats().queued, 2);
  assert.deepEqual(...balance(client.stats()).map((sum) => [sum]));
  const next = open();
  clock.advance(1000);
  await idle(next.client);

  assert.deepEqual(names(collector), ["d", "b", "c"]);
});
