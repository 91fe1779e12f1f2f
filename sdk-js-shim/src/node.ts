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
// How long a `flush()` of the program's own keeps it.
const FLUSH_MS = 1e4;

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
      const own = asOfProgram(event, given);
      return options.beforeSend ? options.beforeSend(own) : own;
    },
  });
  keepForDelivery(client, requests, options.shutdownTimeout ?? 2000);
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
  return {
    ...event,
    anonymousId: given.anonymousId ? event.anonymousId : undefined,
    sessionId: given.sessionId ? event.sessionId : undefined,
    context: { library: event.context.library, ...given.context },
  };
}

/**
 * Let *client* keep the program for what it has to deliver: for *timeoutMs* in all once there is
 * nothing else to do, and as long after `stop()`. Its timers and requests keep nothing.
 */
function keepForDelivery(client: Analytics, requests: Requests, timeoutMs: number) {
  const { flush, stats, stop } = client;
  let left = timeoutMs;
  // It comes again after whatever we, and others, had to wait for.
  const drain = async () => {
    // If the program lives on, so does delivery.
    requests.resume();
    if (!stats().queued || left <= 0) return;
    const began = performance.now();
    await keepUntil(flush(), left);
    left -= performance.now() - began;
    if (stats().queued) requests.giveUp();
  };
  const end = () => {
    process.off("beforeExit", drain).off("exit", end);
    stop();
  };
  process.on("beforeExit", drain).on("exit", end);
  client.flush = () => {
    const settled = flush();
    keepUntil(settled, FLUSH_MS);
    return settled;
  };
  client.stop = () => {
    end();
    if (stats().queued) keepUntil(requests.settled(), timeoutMs);
  };
}

/** Keep the program until *settled* is, for *ms* at most. */
async function keepUntil(settled: Promise<unknown>, ms: number) {
  let timer: any;
  await Promise.race([settled, new Promise((done) => (timer = setTimeout(done, ms)))]);
  clearTimeout(timer);
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
  return {
    get length() {
      names = outbox ? fs.readdirSync(folder).map((file) => prefix + file) : [];
      names = names.filter((name) => fileOf(name) != own);
      return names.length;
    },
    key: (index) => names[index],
    getItem(name) {
      const file = fileOf(name);
      const text = file ? fs.readFileSync(file, "utf8") : null;
      return text && isOrphan(file) ? text.replace(/\d+/, "0") : text;
    },
    setItem(name, value) {
      const file = fileOf(name);
      if (!file) return;
      own = file;
      // Another process never sees half of it.
      fs.writeFileSync(join(folder, owner), value, { mode: 0o600 });
      fs.renameSync(join(folder, owner), own);
    },
    removeItem(name) {
      const file = fileOf(name);
      if (file) fs.rmSync(file, { force: true });
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
