// What sends from Node, beside the `fetch` that it stands for, against a real server.

import assert from "node:assert/strict";
import dns from "node:dns";
import { once } from "node:events";
import { createServer, globalAgent } from "node:https";
import { test } from "node:test";
import { makeCertificate } from "../support/certificate.mjs";
import { startCollector } from "../support/collector.mjs";
import { tick } from "../support/page.mjs";
import { load } from "../support/source.mjs";
import { waitFor } from "../support/waiting.mjs";

const { createRequests } = await load("requests");

/** Send *body* by *send*; returns all that the core sees of the answer, or that there is none. */
async function outcome(send, url, { body = "{}", signal = new AbortController().signal } = {}) {
  const headers = { "content-type": "application/json", "x-api-key": "k" };
  const details = { method: "POST", headers, body, keepalive: true, redirect: "manual", signal };
  try {
    const answer = await send(url, details);
    const retryAfter = answer.headers.get("retry-after") ?? undefined;
    return { status: answer.status, retryAfter, text: await answer.text() };
  } catch {
    return "no answer";
  }
}

async function begin(t) {
  const collector = await startCollector();
  t.after(collector.close);
  return { collector, url: `${collector.url}/api/v1/events` };
}

for (const [what, answer, expected] of [
  ["a verdict", { status: 202, body: { eventCount: 1 } }, { status: 202 }],
  ["a refusal", { status: 400, body: { error: "é😀" } }, { status: 400 }],
  ["a wait", { status: 429, headers: { "retry-after": "7" } }, { status: 429, retryAfter: "7" }],
  ["a redirect", { status: 307, headers: { location: "/elsewhere" } }, { status: 307 }],
  ["half an answer", "half", "no answer"],
  ["a connection that breaks", "reset", "no answer"],
]) {
  test(`${what} is what it is by fetch`, async (t) => {
    const { collector, url } = await begin(t);
    collector.next(answer, answer);
    const byFetch = await outcome(fetch, url);
    const ours = await outcome(createRequests().fetch, url);
    assert.deepEqual(ours, byFetch);
    if (expected == "no answer") assert.equal(ours, expected);
    else assert.deepEqual({ ...ours, ...expected }, ours);
    assert.equal(collector.requests.length, 2);
  });
}

test("what arrives is what fetch sends: each character, even half of one", async (t) => {
  const { collector, url } = await begin(t);
  const body = JSON.stringify({ batch: [], text: "ä😀\u2028" }) + "\ud800";
  await outcome(fetch, url, { body });
  await outcome(createRequests().fetch, url, { body });
  const [byFetch, ours] = collector.requests;
  for (const part of ["method", "url", "text"]) assert.equal(ours[part], byFetch[part]);
  for (const name of ["content-type", "x-api-key", "content-length"])
    assert.equal(ours.headers[name], byFetch.headers[name]);
});

test("where nobody listens there is no answer, nor for an address that is none", async (t) => {
  const { collector, url } = await begin(t);
  await collector.close();
  for (const address of [url, "nonsense", "ftp://127.0.0.1/"])
    assert.equal(await outcome(createRequests().fetch, address), "no answer");
});

for (const answer of ["hang", "endless"]) {
  for (const how of ["its signal", "giveUp()"]) {
    test(`a request whose answer is ${answer} ends by ${how}`, async (t) => {
      const { collector, url } = await begin(t);
      collector.next(answer);
      const abort = new AbortController();
      const requests = createRequests();
      const ended = outcome(requests.fetch, url, abort);
      while (!collector.requests.length) await tick();
      if (how == "giveUp()") requests.giveUp();
      else abort.abort();
      assert.equal(await ended, "no answer");
    });
  }
}

test("after giveUp() nothing is sent until the program would have ended", async (t) => {
  const { collector, url } = await begin(t);
  const requests = createRequests();
  requests.giveUp();
  assert.equal(await outcome(requests.fetch, url), "no answer");
  assert.equal(collector.requests.length, 0);
  await waitFor(async () => (await outcome(requests.fetch, url)).status == 202, "it sends again");
});

test("a request is aborted by its own signal alone", async (t) => {
  const { collector, url } = await begin(t);
  const requests = createRequests();
  const first = new AbortController();
  await outcome(requests.fetch, url, first);
  collector.next("hang");
  const second = outcome(requests.fetch, url);
  while (collector.requests.length < 2) await tick();
  // The deadline of the first comes long after its answer.
  first.abort();
  collector.requests[1].release();
  assert.equal((await second).status, 202);
});

test("what does not obey the signal is given up all the same", async () => {
  const abort = new AbortController();
  const requests = createRequests(() => new Promise(() => {}));
  const ended = outcome(requests.fetch, "http://127.0.0.1:1", abort);
  abort.abort();
  assert.equal(await ended, "no answer");
});

test("an answer that goes on and on is none, and ends the connection", async (t) => {
  const { collector, url } = await begin(t);
  collector.next({ status: 202, body: "x".repeat(65_600) });
  assert.equal(await outcome(createRequests().fetch, url), "no answer");
  collector.next({ status: 202, body: "x".repeat(65_000) });
  assert.equal((await outcome(createRequests().fetch, url)).status, 202);
});

test("one lookup of a name serves all who ask meanwhile", async (t) => {
  const { collector, url } = await begin(t);
  const { lookup } = dns;
  t.after(() => (dns.lookup = lookup));
  const asked = [];
  dns.lookup = (host, options, done) => asked.push([host, options, done]);
  const requests = createRequests();
  const named = url.replace("127.0.0.1", "collector.test");
  const [first, second] = [outcome(requests.fetch, named), outcome(requests.fetch, named)];
  await tick();
  assert.deepEqual(
    asked.map(([host]) => host),
    ["collector.test"],
  );
  const [[, options, done]] = asked;
  const found = [{ address: "127.0.0.1", family: 4 }];
  options.all ? done(null, found) : done(null, "127.0.0.1", 4);
  assert.equal((await first).status, 202);
  assert.equal((await second).status, 202);
  assert.equal(collector.requests.length, 2);
  const third = outcome(requests.fetch, url.replace("127.0.0.1", "other.test"));
  await tick();
  asked[1][2](new Error("no such host"));
  assert.equal(await third, "no answer");
});

test("connections are used again, and that stirs no warning", async (t) => {
  const { url } = await begin(t);
  const warnings = [];
  const remember = (warning) => warnings.push(warning);
  process.on("warning", remember);
  const requests = createRequests();
  for (let count = 0; count < 30; count++)
    assert.equal((await outcome(requests.fetch, url)).status, 202);
  await tick();
  process.off("warning", remember);
  assert.deepEqual(warnings, []);
});

test("an https address is asked over TLS", async (t) => {
  const server = createServer(makeCertificate(), (request, response) => {
    request.resume().on("end", () => response.writeHead(202).end("{}"));
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  t.after(() => {
    globalAgent.options.rejectUnauthorized = undefined;
    server.closeAllConnections();
    server.close();
  });
  const url = `https://127.0.0.1:${server.address().port}/api/v1/events`;
  assert.equal(await outcome(createRequests().fetch, url), "no answer");
  // Nobody has signed its certificate.
  globalAgent.options.rejectUnauthorized = false;
  assert.equal((await outcome(createRequests().fetch, url)).status, 202);
});
