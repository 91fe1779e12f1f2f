// HTTP requests from Node that keep no program alive, as those of `fetch` would.

import * as http from "node:http";
import * as https from "node:https";
import { text } from "node:stream/consumers";
import type { BatchAnswer, BatchRequest, Options } from "./types";

// A connection that is being made keeps the program, whatever one does.
const CONNECT_MS = 3e3;

export type Requests = ReturnType<typeof createRequests>;

/** Return what sends by *send*, and can let go of it. */
export function createRequests(send: Options["fetch"] = request) {
  let isOver = false;
  let abort: AbortController;
  let underWay: Promise<unknown> = Promise.resolve();
  return {
    fetch(url: string, details: BatchRequest) {
      if (isOver) throw new Error("the program ends");
      abort = new AbortController();
      details.signal.onabort = () => abort.abort();
      const answer = send(url, { ...details, signal: abort.signal });
      underWay = Promise.allSettled([underWay, answer]).then(() => {});
      return answer;
    },
    /** Settles once there is no request under way. */
    settled: () => underWay,
    /** Abort the request, and begin none before `resume()`. */
    giveUp() {
      isOver = true;
      abort?.abort();
    },
    resume() {
      isOver = false;
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
      .request(url, { method, headers, signal }, (answer) =>
        text(answer).then(
          (said) =>
            resolve({
              status: answer.statusCode!,
              headers: { get: (name) => answer.headers[name] as string },
              text: () => said,
            }),
          reject,
        ),
      )
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
