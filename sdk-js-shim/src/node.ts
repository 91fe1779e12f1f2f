// Node: no page, no visitor of its own, and nothing that keeps a program alive.

import { createHash } from "node:crypto";
import * as fs from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { createClient } from "./client";
import { createRequests, type Requests } from "./requests";
import type { Analytics, AnalyticsEvent, EventOptions, Options, OutboxStorage } from "./types";

export type * from "./types";

export interface NodeOptions extends Options {
  /** A folder where events wait over restarts; default: they wait in memory. */
  outbox?: string;
  /** How long the end of the program may wait for delivery, in ms; default 2,000. */
  shutdownTimeout?: number;
}

// What `access(2)` calls write permission.
const W_OK = 2;
// How long a `flush()` of the program's own waits for the next delivery.
const FLUSH_MS = 1e4;

/** What the end of the program asks of a client. */
interface Living {
  drain(): void;
  end(): void;
}

// All of them have one listener for each end of the program: Node warns of many.
const living = new Set<Living>();
const drainAll = () => living.forEach(({ drain }) => drain());
const endAll = () => living.forEach(({ end }) => end());

/**
 * Make a client for a program.
 *
 * It remembers no user, for a server has many: an event has the ids that are given with it. What
 * waits when the program has nothing else to do is sent, for `shutdownTimeout` at most; what waits
 * still is in *outbox* for the next one. That folder is made for its owner alone. This throws if
 * events can't be kept there, and without the two things that it must be told.
 */
export function init(options: NodeOptions): Analytics {
  const { apiKey = options.projectId, apiUrl = options.endpoint, outbox } = options;
  if (!apiKey || !apiUrl) throw new Error("init() needs apiKey and apiUrl");
  // What the caller gave with the event that is being taken.
  let given: EventOptions;
  let hasLooked = false;
  let isStopped = false;
  const requests = createRequests(options.fetch);
  const client = createClient({
    ...options,
    storage: options.storage || openStorage(apiKey, outbox),
    fetch: requests.fetch,
    later(work, ms) {
      if (!hasLooked) {
        // What processes before us have left is taken over now: we may soon be gone.
        hasLooked = true;
        work();
      } else return setTimeout(work, ms).unref();
    },
    beforeSend(event) {
      if (isStopped) return;
      const own = asOfProgram(event, given);
      return options.beforeSend ? options.beforeSend(own) : own;
    },
    onError(rejection) {
      if (options.onError) options.onError(rejection);
      // What is in the event is not for a log.
      else if (options.debug) console.warn(rejection.code, rejection.message);
    },
  });
  keepForDelivery(client, requests, options.shutdownTimeout ?? 2000, () => (isStopped = true));
  // Whatever is called, the core knows nobody from the call before.
  const { reset } = client;
  const methods: Record<string, any> = client;
  for (const name in methods) {
    const method = methods[name];
    methods[name] = (...args: unknown[]) => {
      reset();
      given = Object(args[2]);
      return method(...args);
    };
  }
  return client;
}

/** Return *event* without what only a page and its visitor have. */
function asOfProgram(event: AnalyticsEvent, given: EventOptions): AnalyticsEvent {
  const names = ["library", ...Object.keys(Object(given.context))];
  return {
    ...event,
    anonymousId: given.anonymousId ? event.anonymousId : undefined,
    sessionId: given.sessionId ? event.sessionId : undefined,
    // By names, for the core has seen to it that the values can be written.
    context: Object.fromEntries(names.map((name) => [name, event.context[name]])),
  };
}

/**
 * Let *client* keep the program for what it has to deliver: for *timeoutMs* in all once there is
 * nothing else to do, as long after `stop()`, and for a `flush()` while there is progress. Its timers
 * and requests keep nothing. *takeNoMore*: from `stop()` on.
 */
function keepForDelivery(
  client: Analytics,
  requests: Requests,
  timeoutMs: number,
  takeNoMore: () => void,
) {
  const { flush, stats, stop } = client;
  let left = timeoutMs;

  /** Deliver what waits, for *ms* at most; return the time that took. */
  async function deliver(ms: number) {
    const began = performance.now();
    if (!(await keepUntil(flush(), ms))) requests.giveUp();
    return performance.now() - began;
  }

  const own: Living = {
    // It comes again after whatever we, and others, had to wait for.
    async drain() {
      if (stats().queued && left > 0) left -= await deliver(left);
    },
    end() {
      living.delete(own);
      if (!living.size) process.off("beforeExit", drainAll).off("exit", endAll);
      stop();
    },
  };
  if (!living.size) process.on("beforeExit", drainAll).on("exit", endAll);
  living.add(own);

  client.flush = async () => {
    const settled = flush();
    let before;
    do {
      before = stats().delivered;
      await keepUntil(settled, FLUSH_MS);
    } while (stats().delivered > before);
  };
  client.stop = async () => {
    takeNoMore();
    if (stats().queued) await deliver(timeoutMs);
    own.end();
  };
}

/** Keep the program until *settled* is, for *ms* at most; return whether it is. */
async function keepUntil(settled: Promise<unknown>, ms: number) {
  let timer: any;
  const isLate = new Promise((done) => (timer = setTimeout(done, ms, true)));
  const isSettled = !(await Promise.race([settled, isLate]));
  clearTimeout(timer);
  return isSettled;
}

/** Keep what waits in *outbox* if there is one, a file for each client; all else is forgotten. */
function openStorage(key: string, outbox?: string): OutboxStorage {
  // A folder for each key, whose name does not tell it.
  const folder = join(outbox || "", createHash("sha256").update(key).digest("hex"));
  if (outbox) {
    fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
    fs.accessSync(folder, W_OK);
  }
  const prefix = `analytics:${key}:`;
  // A file says whose it is; the core knows ours without that.
  const owner = `@${hostname()}@${process.pid}`;
  const fileOf = (name: string) => {
    const file = name.slice(prefix.length);
    const isOutbox = outbox && /^[-\da-f]{36}/.test(file);
    return isOutbox ? join(folder, file[36] ? file : file + owner) : "";
  };
  let names: string[] = [];
  let own: string;
  // Whose events are ours now, and on disk once ours are written: we may die at any time.
  const adopted = new Set<string>();
  const forget = () => {
    for (const file of adopted) fs.rmSync(file, { force: true });
    adopted.clear();
  };
  return {
    get length() {
      names = outbox ? fs.readdirSync(folder).map((file) => prefix + file) : [];
      names = names.filter((name) => fileOf(name) != own && !adopted.has(fileOf(name)));
      return names.length;
    },
    key: (index) => names[index],
    getItem(name) {
      const file = fileOf(name);
      if (!file) return null;
      try {
        const text = fs.readFileSync(file, "utf8");
        return isOrphan(file) ? text.replace(/\d+/, "0") : text;
      } catch {
        // Another user's, or gone meanwhile: leave it alone, as if its owner lived.
        return `${Date.now() + 6e4}`;
      }
    },
    setItem(name, value) {
      const file = fileOf(name);
      if (!file) return;
      own = file;
      // Another process never sees half of it, and another thread writes its own.
      const draft = join(folder, owner + name.slice(-36));
      fs.writeFileSync(draft, value, { mode: 0o600 });
      fs.renameSync(draft, own);
      forget();
    },
    removeItem(name) {
      const file = fileOf(name);
      if (file) adopted.add(file);
      if (file == own) forget();
    },
  };
}

/** Tell whether the process that wrote *file* was one of this machine, and is no more. */
function isOrphan(file: string): boolean {
  const [pid, host] = file.split("@").reverse();
  try {
    if (host == hostname()) process.kill(+pid, 0);
    return false;
  } catch (error: any) {
    // Another error means that it lives, and is another user's.
    return error.code == "ESRCH";
  }
}
