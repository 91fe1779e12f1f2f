// Node: no page, no visitor of its own, and nothing that keeps a program alive.

import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createClient } from "./client";
import type { Analytics, AnalyticsEvent, Options, OutboxStorage, Values } from "./types";

export type * from "./types";

export interface NodeOptions extends Options {
  /** A folder where events wait over restarts; default: they wait in memory. */
  outbox?: string;
  /** How long the end of the program may wait for delivery, in ms; default 2,000. */
  shutdownTimeout?: number;
}

/**
 * Make a client for a program.
 *
 * It remembers no user, for a server has many: an event has the ids that are given with it. What
 * waits when the program has nothing else to do is sent, for `shutdownTimeout` at most; what waits
 * still is in *outbox* for the next one. That folder is made for its owner alone; this throws if
 * it can't be.
 */
export function init(options: NodeOptions): Analytics {
  // What the caller gave with the event that is being taken.
  let given: Values | undefined;
  const client = createClient({
    ...options,
    storage: options.storage || openStorage(options),
    later: (work, ms) => setTimeout(work, ms).unref(),
    beforeSend: (event) => {
      const own = asOfProgram(event, given || {});
      return options.beforeSend ? options.beforeSend(own) : own;
    },
  });
  for (const name of ["track", "page", "screen", "identify", "group", "alias"] as const) {
    const method = client[name] as (...args: unknown[]) => boolean;
    client[name] = (...args: unknown[]) => {
      given = args[2] as Values | undefined;
      return method(...args);
    };
  }
  deliverAtEnd(client, options.shutdownTimeout ?? 2000);
  return client;
}

/** Return *event* without what only a page and its visitor have. */
function asOfProgram(event: AnalyticsEvent, given: Values): AnalyticsEvent {
  const namesUser = event.type == "identify" || event.type == "alias" || given.userId != null;
  return {
    ...event,
    userId: namesUser ? event.userId : undefined,
    anonymousId: given.anonymousId as string | undefined,
    sessionId: given.sessionId as string | undefined,
    context: { library: event.context.library, ...(given.context as Values) },
  };
}

function deliverAtEnd(client: Analytics, timeoutMs: number) {
  let ends: number | undefined;
  // It comes again after whatever we had to wait for.
  const drain = () => {
    ends ??= Date.now() + timeoutMs;
    const left = ends - Date.now();
    if (!client.stats().queued || left <= 0) return;
    const patience = setTimeout(() => {}, left);
    client.flush().then(() => clearTimeout(patience));
  };
  const { stop } = client;
  client.stop = () => {
    process.off("beforeExit", drain).off("exit", client.stop);
    stop();
  };
  // Once it has stopped, others need not wait for what it keeps.
  process.on("beforeExit", drain).on("exit", client.stop);
}

/** Keep things in memory, but events in *outbox* if there is one: a file for each client. */
function openStorage({ outbox, apiKey, projectId }: NodeOptions): OutboxStorage {
  const memory = new Map<string, string>();
  let names: string[] = [];
  if (!outbox) {
    return {
      get length() {
        names = [...memory.keys()];
        return names.length;
      },
      key: (index) => names[index],
      getItem: (name) => memory.get(name) ?? null,
      setItem: (name, value) => memory.set(name, value),
      removeItem: (name) => memory.delete(name),
    };
  }
  const key = apiKey || projectId || "";
  const prefix = `analytics:${key}:`;
  // A folder for each key, whose name does not tell it.
  const folder = join(outbox, createHash("sha256").update(key).digest("hex").slice(0, 16));
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const fileOf = (name: string) => join(folder, name.slice(prefix.length));
  const isOutbox = (name: string) => /^[-0-9a-f]{36}$/.test(name.slice(prefix.length));
  return {
    get length() {
      names = readdirSync(folder)
        .map((file) => prefix + file)
        .filter(isOutbox);
      return names.length;
    },
    key: (index) => names[index],
    getItem: (name) =>
      isOutbox(name) ? readFileSync(fileOf(name), "utf8") : (memory.get(name) ?? null),
    setItem(name, value) {
      if (!isOutbox(name)) return memory.set(name, value);
      // Another process never sees half of it.
      const part = fileOf(name) + ".part";
      writeFileSync(part, value, { mode: 0o600 });
      renameSync(part, fileOf(name));
    },
    removeItem(name) {
      if (isOutbox(name)) rmSync(fileOf(name), { force: true });
      else memory.delete(name);
    },
  };
}
