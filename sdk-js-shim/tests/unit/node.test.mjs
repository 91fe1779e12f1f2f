// The module for Node against a real HTTP server; where it matters, in processes of its own.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";

import { writeModules } from "../support/modules.mjs";
import { startRecorder } from "../support/recorder.mjs";
import { waitFor } from "../support/waiting.mjs";

const KEY = "ak_live_secret";
const SHUTDOWN_MS = 1000;
// How long a connection may take; it keeps a program meanwhile.
const CONNECT_MS = 3000;
const TRACK_TEN = 'for (let count = 0; count < 10; count++) client.track("late");';
// What a busy machine may take to end a process; a request that hangs is given up after 10 s.
const MACHINE_MS = 4000;
// A program that has not ended by then never will.
const STUCK_MS = 60_000;
let programs = 0;
const MODULES = await writeModules(["node"], { platform: "node" });
const { init } = await import(`${MODULES}/node.mjs`);

/** A collector and a folder for the outbox, both of one test. */
async function begin(t, settings) {
  const collector = await startRecorder(settings);
  const folder = mkdtempSync(join(tmpdir(), "analytics-node-"));
  t.after(async () => {
    await collector.stop();
    rmSync(folder, { recursive: true });
  });
  return { collector, outbox: join(folder, "outbox") };
}

/**
 * Start a program that has `client` and `say`; returns what it `said` and how it ended, and the
 * milliseconds that it `waited` at its end, and that it `lingered` until it was gone.
 */
function start(work, options, { flags = [], shell = ":", ...settings } = {}) {
  const program = `
    import { init } from "${MODULES}/node.mjs";
    const say = (value) => process.stdout.write(JSON.stringify(value) + "\\n");
    const client = init(${JSON.stringify({ apiKey: KEY, shutdownTimeout: SHUTDOWN_MS, ...options })});
    ${work}
    say("done");
    const doneAt = performance.now();
    process.on("exit", () => say({ waited: performance.now() - doneAt }));`;
  const file = new URL(`${MODULES}/program-${++programs}.mjs`);
  writeFileSync(file, program);
  const command = [process.execPath, ...flags, fileURLToPath(file)];
  const child = spawn("bash", ["-c", `${shell}; exec "$@"`, "bash", ...command], {
    timeout: STUCK_MS,
    ...settings,
  });
  const seen = { child, said: [], errors: "" };
  let doneAt;
  child.stdout.on("data", (text) => {
    for (const line of String(text).trim().split("\n")) {
      const value = JSON.parse(line);
      if (value?.waited) Object.assign(seen, value);
      else seen.said.push(value);
    }
    if (seen.said.includes("done")) doneAt ??= performance.now();
  });
  child.stderr.on("data", (text) => (seen.errors += text));
  seen.ended = once(child, "close").then(([code, signal]) => {
    return { ...seen, errors: seen.errors, code, signal, lingered: performance.now() - doneAt };
  });
  return seen;
}

async function run(...args) {
  const result = await start(...args).ended;
  assert.equal(result.errors, "");
  assert.equal(result.code, 0);
  return result;
}

/** Let a client work in this process; returns what *work* does once all is delivered. */
async function within(options, work) {
  const client = init({ apiKey: KEY, ...options });
  const result = work?.(client);
  await client.flush();
  client.stop();
  return result;
}

/** Return once the program has said *word*. */
async function hear({ child, said }, word) {
  while (!said.includes(word)) await once(child.stdout, "data");
}

const filesIn = (outbox) =>
  readdirSync(outbox, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());

/** Return the URL of a port where nobody listens. */
async function refusingUrl() {
  const { url, stop } = await startRecorder();
  await stop();
  return url;
}

/** Return the URL of a port where connections are begun and never made: its backlog is full. */
async function deafUrl(t) {
  const listener = `const server = require("net").createServer().listen(
    { port: 0, host: "127.0.0.1", backlog: 1 }, () => console.log(server.address().port));`;
  const deaf = spawn(process.execPath, ["-e", listener]);
  const port = Number(await once(deaf.stdout, "data"));
  deaf.kill("SIGSTOP");
  const fillers = Array.from({ length: 8 }, () => connect(port, "127.0.0.1").on("error", () => {}));
  t.after(() => {
    fillers.forEach((filler) => filler.destroy());
    deaf.kill("SIGKILL");
  });
  // Two connections are made, for the backlog has room for one more than it says.
  await Promise.all(fillers.slice(0, 2).map((filler) => once(filler, "connect")));
  return `http://127.0.0.1:${port}`;
}

describe("in a program", { concurrency: 3 }, () => {
  test("a program that tracks and ends has delivered, and does not stay for it", async (t) => {
    const { collector } = await begin(t);
    const options = { apiUrl: collector.url, shutdownTimeout: 60_000 };
    const { lingered } = await run('client.track("ended", { a: 1 });', options);
    assert.deepEqual(collector.names(), ["ended"]);
    assert.ok(lingered < MACHINE_MS, `${lingered} ms`);
  });

  test("importing it does nothing, and a client alone keeps no program", async (t) => {
    const { collector, outbox } = await begin(t);
    const options = { apiUrl: collector.url, outbox, shutdownTimeout: 60_000 };
    const { lingered } = await run("", options);
    assert.ok(lingered < MACHINE_MS, `${lingered} ms`);
    assert.equal(collector.requests, 0);

    const program = new URL(`${MODULES}/import.mjs`);
    writeFileSync(
      program,
      `const things = () => [process.listenerCount("exit"), process.listenerCount("beforeExit"),
       Object.keys(globalThis), process.getActiveResourcesInfo()].join();
     const before = things();
     const { init } = await import("${MODULES}/node.mjs");
     const imported = things();
     const client = init({ apiKey: "k", apiUrl: "http://127.0.0.1:1" });
     const made = things();
     client.stop();
     client.stop();
     console.log(JSON.stringify([imported == before, made == before, things() == before]));`,
    );
    const said = execFileSync(process.execPath, [fileURLToPath(program)], { encoding: "utf8" });
    assert.deepEqual(JSON.parse(said), [true, false, true]);
  });

  for (const [how, open, mostMs] of [
    ["hangs", async (t) => (await begin(t, { mode: "hang" })).collector.url, 0],
    ["refuses connections", refusingUrl, 0],
    ["answers 503", async (t) => (await begin(t, { mode: 503 })).collector.url, 0],
    ["lets no connection be made", deafUrl, CONNECT_MS],
  ]) {
    for (const [what, work, jitter, underWayMs] of [
      ["an event waits", 'client.track("late");', 0.9, 0],
      ["a retry comes at once", 'client.track("late");', 0, 0],
      ["a batch is under way", TRACK_TEN, 0.9, mostMs],
      ["stop() sends it", 'client.track("late"); client.stop();', 0.9, 0],
    ]) {
      test(`a program ends in time when the collector ${how} and ${what}`, async (t) => {
        const { lingered, waited } = await run(`Math.random = () => ${jitter}; ${work}`, {
          apiUrl: await open(t),
        });
        assert.ok(waited > SHUTDOWN_MS - 50, `gave up after ${waited} ms`);
        assert.ok(lingered < SHUTDOWN_MS + underWayMs + MACHINE_MS, `stayed for ${lingered} ms`);
      });
    }
  }

  test("a program ends in time when only another address of the collector answers, and hangs", async (t) => {
    const { collector } = await begin(t, { mode: "hang" });
    // Nobody listens at the first.
    const lookup = `import dns from "node:dns";
      const found = [["127.0.0.2", 4], ["127.0.0.1", 4]].map(([address, family]) => ({ address, family }));
      dns.lookup = (name, options, done) =>
        options.all ? done(null, found) : done(null, "127.0.0.1", 4);`;
    const { lingered } = await run(
      TRACK_TEN,
      { apiUrl: collector.url.replace("127.0.0.1", "collector.test") },
      { flags: [`--import=data:text/javascript,${encodeURIComponent(lookup)}`] },
    );
    assert.equal(collector.requests, 1);
    assert.ok(lingered < SHUTDOWN_MS + MACHINE_MS, `stayed for ${lingered} ms`);
  });

  test("a program ends in time when the collector hangs on a connection that it had", async (t) => {
    const { collector } = await begin(t);
    const program = start(
      `client.track("first");
       await client.flush();
       say("flushed");
       for await (const line of process.stdin) break;
       process.stdin.destroy();
       ${TRACK_TEN}`,
      { apiUrl: collector.url },
    );
    await hear(program, "flushed");
    collector.mode = "hang";
    program.child.stdin.end("\n");
    const { lingered } = await program.ended;
    assert.equal(collector.requests, 2);
    assert.ok(lingered < SHUTDOWN_MS + MACHINE_MS, `stayed for ${lingered} ms`);
  });

  test("stop() keeps the program until what it sent has its outcome", async (t) => {
    const { collector, outbox } = await begin(t);
    await run('client.track("last"); client.stop();', { apiUrl: collector.url, outbox });
    assert.deepEqual(collector.names(), ["last"]);
    assert.deepEqual(filesIn(outbox), []);
  });

  test("stop() delivers all that waits, and takes no more", async (t) => {
    const { collector } = await begin(t);
    const { said } = await run(
      `for (let count = 0; count < 1000; count++) client.track("many");
       client.stop();
       say(client.track("late"));`,
      { apiUrl: collector.url },
    );
    assert.equal(said[0], false);
    assert.equal(collector.events.length, 1000);
  });

  test("flush() does not wait for a collector that is not there for ever", async (t) => {
    const { code, said } = await start(
      'client.track("lost"); await client.flush(); say(client.stats().queued);',
      { apiUrl: await refusingUrl() },
    ).ended;
    assert.equal(code, 0);
    assert.deepEqual(said, [1, "done"]);
  });

  test("many clients of one program stir no warning, and all deliver", async (t) => {
    const { collector } = await begin(t);
    await run(
      `const others = Array.from({ length: 20 }, () => init(${JSON.stringify({ apiKey: KEY, apiUrl: collector.url })}));
       for (const other of others) other.track("of one of many");`,
      { apiUrl: collector.url },
    );
    assert.equal(collector.names().length, 20);
  });

  test("a refusal is said in debug without what the event holds", async (t) => {
    const { collector } = await begin(t);
    collector.refuse = { code: "INVALID_EVENT", message: "no" };
    const { errors } = await start(
      'client.track("bad", { secret: "4711" }); await client.flush();',
      {
        apiUrl: collector.url,
        debug: true,
      },
    ).ended;
    assert.match(errors, /INVALID_EVENT no/);
    assert.doesNotMatch(errors, /4711/);
  });

  test("a program that waits for flush() is kept until the collector is there", async (t) => {
    const { collector } = await begin(t, { mode: 503 });
    const waiting = start(
      'client.track("awaited"); say("tracked"); await client.flush(); say("flushed");',
      { apiUrl: collector.url, shutdownTimeout: 0 },
    );
    await waitFor(() => collector.requests > 1, "a retry");
    collector.mode = "take";
    const { code, said } = await waiting.ended;
    assert.equal(code, 0);
    assert.deepEqual(said, ["tracked", "flushed", "done"]);
    assert.deepEqual(collector.names(), ["awaited"]);
  });

  test("a program that goes on after its end has come still delivers", async (t) => {
    const { collector } = await begin(t, { mode: "hang" });
    const program = start(
      `client.track("first");
       process.once("beforeExit", () => process.once("beforeExit", () => {
         client.track("second");
         say("goes on");
         process.stdin.once("data", () => client.flush().then(() => process.stdin.destroy()));
       }));`,
      { apiUrl: collector.url, shutdownTimeout: 100 },
    );
    await hear(program, "goes on");
    collector.mode = "take";
    program.child.stdin.write("flush\n");
    assert.equal((await program.ended).code, 0);
    assert.deepEqual(collector.names(), ["first", "second"]);
  });

  test("what could not be delivered is on disk, for its owner alone, and goes with the next program", async (t) => {
    const { collector, outbox } = await begin(t);
    await run('client.track("first"); client.track("second");', {
      apiUrl: await refusingUrl(),
      outbox,
      shutdownTimeout: 100,
    });

    const [file, ...others] = filesIn(outbox);
    assert.equal(others.length, 0);
    assert.equal(statSync(join(file.parentPath ?? file.path, file.name)).mode & 0o777, 0o600);
    for (const folder of [outbox, file.parentPath ?? file.path])
      assert.equal(statSync(folder).mode & 0o777, 0o700);
    assert.ok(!readdirSync(outbox, { recursive: true }).join().includes("secret"));

    // It tracks nothing itself.
    await run("", { apiUrl: collector.url, outbox });
    assert.deepEqual(collector.names(), ["first", "second"]);
    assert.deepEqual(filesIn(outbox), []);
    await within({ apiUrl: collector.url, outbox }, (client) => client.track("third"));
    assert.deepEqual(collector.names(), ["first", "second", "third"]);
  });

  test("the program of another key leaves alone what waits", async (t) => {
    const { collector, outbox } = await begin(t);
    await run('client.track("mine");', {
      apiUrl: await refusingUrl(),
      outbox,
      shutdownTimeout: 100,
    });
    const other = { apiUrl: collector.url, outbox, apiKey: "ak_live_other" };
    await within(other, (client) => client.track("theirs"));
    assert.deepEqual(collector.names(), ["theirs"]);
    assert.equal(filesIn(outbox).length, 1);
  });

  test("kill -9 while a program starts costs nothing that waited before", async (t) => {
    const { collector, outbox } = await begin(t);
    for (const name of ["first", "second"])
      await run(`client.track("${name}");`, {
        apiUrl: await refusingUrl(),
        outbox,
        shutdownTimeout: 100,
      });
    // It has taken over what waits, and not yet come to write it down.
    const { signal } = await start('process.kill(process.pid, "SIGKILL");', {
      apiUrl: collector.url,
      outbox,
    }).ended;
    assert.equal(signal, "SIGKILL");
    await within({ apiUrl: collector.url, outbox });
    assert.deepEqual(collector.names(), ["first", "second"]);
    assert.deepEqual(filesIn(outbox), []);
  });

  test("what can't be read in an outbox keeps nobody from the rest", async (t) => {
    const { collector, outbox } = await begin(t);
    await run('client.track("older");', {
      apiUrl: await refusingUrl(),
      outbox,
      shutdownTimeout: 100,
    });
    const [{ name, parentPath, path }] = filesIn(outbox);
    // A folder in the place of another user's file.
    const odd = join(parentPath ?? path, name.replace(/^\w{8}/, "ffffffff"));
    mkdirSync(odd);
    await within({ apiUrl: collector.url, outbox });
    assert.deepEqual(collector.names(), ["older"]);
    assert.ok(existsSync(odd));
  });

  test("threads of one process keep their events apart", async (t) => {
    const { collector, outbox } = await begin(t, { mode: "hang" });
    const options = { apiKey: KEY, apiUrl: collector.url, outbox, debug: true };
    const thread = new URL(`${MODULES}/thread.mjs`);
    writeFileSync(
      thread,
      `import { init } from "${MODULES}/node.mjs";
       const client = init(${JSON.stringify({ ...options, shutdownTimeout: 0 })});
       for (let count = 0; count < 400; count++) {
         client.track("of a thread");
         await null;
       }`,
    );
    const { errors } = await start(
      `const { Worker } = await import("node:worker_threads");
       const threads = [1, 2].map(() => new Worker(new URL("${thread}")));
       await Promise.all(threads.map((thread) => new Promise((done) => thread.on("exit", done))));`,
      { apiUrl: collector.url },
    ).ended;
    // What could not be written is said.
    assert.doesNotMatch(errors, /ENOENT|rename/);
  });

  test("kill -9 after track() costs nothing", async (t) => {
    const { collector, outbox } = await begin(t);
    const killed = start(
      'client.track("survivor"); await null; say("tracked"); setInterval(() => {}, 1e3); await new Promise(() => {});',
      { apiUrl: collector.url, outbox },
    );
    await hear(killed, "tracked");
    killed.child.kill("SIGKILL");
    assert.equal((await killed.ended).signal, "SIGKILL");
    assert.deepEqual(collector.names(), []);

    await within({ apiUrl: collector.url, outbox });
    assert.deepEqual(collector.names(), ["survivor"]);
  });

  test("process.exit() right after track() loses nothing that has an outbox", async (t) => {
    const { collector, outbox } = await begin(t);
    await run('client.track("hasty"); say("done"); process.exit();', {
      apiUrl: collector.url,
      outbox,
    });
    await within({ apiUrl: collector.url, outbox });
    assert.deepEqual(collector.names(), ["hasty"]);
  });

  test("an exception that nobody catches loses nothing that has an outbox", async (t) => {
    const { collector, outbox } = await begin(t);
    const { code, errors } = await start('client.track("crash"); throw new Error("ours");', {
      apiUrl: collector.url,
      outbox,
    }).ended;
    assert.equal(code, 1);
    assert.match(errors, /Error: ours/);
    await within({ apiUrl: collector.url, outbox });
    assert.deepEqual(collector.names(), ["crash"]);
  });

  test("two processes share an outbox, and neither takes what the other still has", async (t) => {
    const { collector, outbox } = await begin(t);
    const other = start(
      'client.track("of the first"); say("tracked"); for await (const line of process.stdin) break;',
      { apiUrl: collector.url, outbox, flushInterval: 600_000 },
    );
    await hear(other, "tracked");
    await run('client.track("of the second");', { apiUrl: collector.url, outbox });
    assert.deepEqual(collector.names(), ["of the second"]);
    other.child.stdin.end("\n");
    assert.equal((await other.ended).code, 0);
    assert.deepEqual(collector.names(), ["of the second", "of the first"]);
    assert.deepEqual(filesIn(outbox), []);
  });

  test("processes that start together bring home all that is left, under the same message ids", async (t) => {
    const { collector, outbox } = await begin(t);
    const down = await refusingUrl();
    const names = ["a", "b", "c"];
    await Promise.all(
      names.map((name) =>
        run(`client.track("${name}");`, { apiUrl: down, outbox, shutdownTimeout: 100 }),
      ),
    );
    await Promise.all(names.map(() => run("", { apiUrl: collector.url, outbox })));
    const ids = new Map(collector.events.map(({ name, messageId }) => [messageId, name]));
    assert.deepEqual([...ids.values()].sort(), names);
    assert.deepEqual(filesIn(outbox), []);
  });

  test("a folder that can't be written to is an error at once", async (t) => {
    const { outbox } = await begin(t);
    writeFileSync(outbox, "a file");
    assert.throws(
      () => init({ apiKey: KEY, apiUrl: "http://127.0.0.1:1", outbox }),
      /(ENOTDIR|EEXIST)[^\n]*outbox/,
    );
  });

  test("a folder of somebody else is an error at once", async (t) => {
    const { outbox } = await begin(t);
    const folder = join(outbox, "..");
    mkdirSync(outbox);
    chmodSync(outbox, 0o555);
    chmodSync(folder, 0o755);
    // Root may write everywhere.
    const identity = process.getuid() ? {} : { uid: 65534, gid: 65534 };
    chmodSync(new URL(MODULES), 0o755);
    const { code, errors } = await start(
      "",
      { apiUrl: "http://127.0.0.1:1", outbox },
      { ...identity, cwd: "/" },
    ).ended;
    chmodSync(outbox, 0o755);
    assert.equal(code, 1);
    assert.match(errors, /EACCES: permission denied[^\n]*outbox/);
  });

  test("a client must be told its key and its collector", () => {
    for (const options of [{ apiUrl: "http://127.0.0.1:1", apiKey: "" }, { apiKey: KEY }, {}]) {
      assert.throws(() => init(options), /init\(\) needs apiKey and apiUrl/);
    }
  });

  test("on a full disk events go on, from memory", async (t) => {
    const { collector, outbox } = await begin(t);
    // No file may have a byte.
    await run(
      'client.track("no room");',
      { apiUrl: collector.url, outbox },
      { shell: "ulimit -f 0" },
    );
    assert.deepEqual(collector.names(), ["no room"]);
    assert.equal(filesIn(outbox).filter(({ name }) => /^[\da-f]/.test(name)).length, 0);
  });

  test("users do not mix", async (t) => {
    const { collector } = await begin(t);
    await within({ apiUrl: collector.url }, (client) => {
      client.identify("ada", { plan: "pro" }, { anonymousId: "v1", sessionId: "s1" });
      client.track("a", {}, { userId: 7 });
      client.track("b");
      client.identify(undefined, { stray: true });
      client.group("g1");
      client.alias("old", "ada");
      client.page("c", {}, { anonymousId: "v2", context: { locale: "fr-CA", big: 1n } });
    });
    const ids = collector.events.map(({ type, userId, anonymousId, sessionId, groupId }) => ({
      type,
      userId,
      anonymousId,
      sessionId,
      groupId,
    }));
    const none = {
      userId: undefined,
      anonymousId: undefined,
      sessionId: undefined,
      groupId: undefined,
    };
    assert.deepEqual(ids, [
      { ...none, type: "identify", userId: "ada", anonymousId: "v1", sessionId: "s1" },
      { ...none, type: "track", userId: "7" },
      { ...none, type: "track" },
      { ...none, type: "identify" },
      { ...none, type: "group", groupId: "g1" },
      { ...none, type: "alias", userId: "ada" },
      { ...none, type: "page", anonymousId: "v2" },
    ]);
    const library = { name: "analytics-js", version: "0.0.0-test" };
    assert.deepEqual(collector.events[1].context, { library });
    assert.deepEqual(collector.events[6].context, { library, locale: "fr-CA", big: "1" });
  });

  test("beforeSend sees an event as it goes", async (t) => {
    const { collector } = await begin(t);
    const contexts = [];
    const beforeSend = (event) => {
      contexts.push(Object.keys(event.context));
      return event.name != "secret" && { ...event, name: `${event.name}!` };
    };
    const taken = await within({ apiUrl: collector.url, beforeSend }, (client) => [
      client.track("secret"),
      client.track("seen"),
    ]);
    assert.deepEqual(taken, [false, true]);
    assert.deepEqual(contexts, [["library"], ["library"]]);
    assert.deepEqual(collector.names(), ["seen!"]);
  });

  test("it runs where nothing has a global crypto, as in Node 18", async (t) => {
    const { collector, outbox } = await begin(t);
    await run(
      'client.track("old"); say(typeof crypto);',
      { apiUrl: collector.url, outbox },
      { flags: ["--import=data:text/javascript,delete globalThis.crypto"] },
    ).then(({ said }) => assert.equal(said[0], "undefined"));
    assert.match(
      collector.events[0].messageId,
      /^[\da-f]{8}-[\da-f]{4}-7[\da-f]{3}-8[\da-f]{3}-[\da-f]{12}$/,
    );
  });

  test("flush() settles once all is delivered, and stop() ends all", async (t) => {
    const { collector } = await begin(t);
    const client = init({ apiKey: KEY, apiUrl: collector.url });
    for (let count = 0; count < 1200; count++) client.track("many", { count });
    await client.flush();
    assert.equal(client.stats().delivered, 1200);
    assert.equal(client.stats().queued, 0);
    client.stop();
    assert.equal(client.track("more"), false);
    assert.deepEqual(
      collector.events.map(({ properties }) => properties.count),
      [...Array(1200).keys()],
    );
  });
});
