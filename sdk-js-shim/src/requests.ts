// HTTP requests from Node that keep no program alive, as those of `fetch` would.

import dns from "node:dns";
import * as http from "node:http";
import * as https from "node:https";
import type { BatchAnswer, BatchRequest, Options } from "./types";

// A connection that is being made keeps the program, whatever one does.
const CONNECT_MS = 3e3;
// A program that ends is gone by then.
const END_MS = 100;
const MAX_ANSWER_CHARS = 65_536;

export type Requests = ReturnType<typeof createRequests>;

/** Return what sends by *send*, and can let go of it. */
export function createRequests(send: Options["fetch"] = request) {
  let isOver = false;
  const underWay = new Set<AbortController>();
  return {
    fetch(url: string, details: BatchRequest): Promise<BatchAnswer> {
      if (isOver) throw new Error("the program ends");
      const own = new AbortController();
      underWay.add(own);
      details.signal.onabort = () => own.abort();
      return Promise.race([
        send(url, { ...details, signal: own.signal }),
        // Not everything that sends obeys the signal.
        new Promise<never>((_, reject) => (own.signal.onabort = reject)),
      ]).finally(() => underWay.delete(own));
    },
    /** Abort what is under way, and begin nothing until it is clear that the program lives on. */
    giveUp() {
      isOver = true;
      setTimeout(() => (isOver = false), END_MS).unref();
      underWay.forEach((own) => own.abort());
    },
  };
}

/** Send *body* to *url*; returns the whole answer, and throws if there is none. */
function request(
  url: string,
  { method, headers, body, signal }: BatchRequest,
): Promise<BatchAnswer> {
  return new Promise((resolve, reject) => {
    (/^https:/.test(url) ? https : http)
      .request(url, { method, headers, signal, lookup }, (answer) => {
        let text = "";
        answer
          .setEncoding("utf8")
          .on("data", (part) => {
            text += part;
            if (text.length > MAX_ANSWER_CHARS) answer.destroy(new Error("the answer is too long"));
          })
          .on("error", reject)
          .on("end", () =>
            resolve({
              status: answer.statusCode!,
              headers: { get: (name) => answer.headers[name] as string },
              text: () => text,
            }),
          );
      })
      .on("socket", (socket) => {
        socket.unref();
        if (socket.connecting) {
          const timer = setTimeout(() => socket.destroy(new Error("no connection")), CONNECT_MS);
          timer.unref();
          socket.once("connect", () => {
            clearTimeout(timer);
            // It may have been made on another try, for another address.
            socket.unref();
          });
        }
      })
      .on("error", reject)
      .end(body);
  });
}

const lookups = new Map<string, ((...found: any[]) => void)[]>();

/** Look *host* up, once for all who ask meanwhile: it keeps the program, and nothing ends it early. */
function lookup(host: string, options: dns.LookupOptions, done: (...found: any[]) => void) {
  const key = host + JSON.stringify(options);
  const waiting = lookups.get(key);
  if (waiting) return void waiting.push(done);
  lookups.set(key, [done]);
  dns.lookup(host, options, (...found: any[]) => {
    const all = lookups.get(key)!;
    lookups.delete(key);
    for (const tell of all) tell(...found);
  });
}
