// A real collector, `analytics-collector up`, with the Postgres and the Valkey that it brings.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { waitFor } from "./waiting.mjs";

const MOST_EVENTS = 1_000; // of one answer

export class Collector {
  url = "";
  #folder = mkdtempSync(join(tmpdir(), "analytics-collector-"));
  #keys = {};
  #process;

  /** Start it, again where it was before. */
  async start() {
    const python = process.env.ANALYTICS_PYTHON;
    if (!python) {
      throw new Error("set ANALYTICS_PYTHON to a Python that has analytics-collector[embedded]");
    }
    const port = this.url ? new URL(this.url).port : "0";
    const options = ["up", "--data-dir", this.#folder, "--port", port, "--json"];
    const started = spawn(python, ["-m", "analytics_collector", ...options], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#process = started;
    let [out, log] = ["", ""];
    started.stdout.on("data", (text) => (out += text));
    started.stderr.on("data", (text) => (log += text));
    await waitFor(() => {
      if (started.exitCode !== null) throw new Error(`the collector ended: ${log}`);
      return out.endsWith("\n");
    }, "the collector is ready");
    const { url, key, admin_key: adminKey } = JSON.parse(out);
    this.url = url;
    this.#keys = { key, adminKey };
    return this;
  }

  /** The key that pages have. */
  get key() {
    return this.#keys.key;
  }

  /** Let it die without a word. */
  async kill() {
    const ended = once(this.#process, "exit");
    this.#process.kill("SIGKILL");
    await ended;
  }

  async stop() {
    if (this.#process && this.#process.exitCode === null && this.#process.signalCode === null) {
      const ended = once(this.#process, "exit");
      this.#process.kill("SIGTERM");
      await ended;
    }
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** End it without waiting, when this program ends early; its servers end with it. */
  abandon() {
    this.#process?.kill("SIGKILL");
    rmSync(this.#folder, { recursive: true, force: true, maxRetries: 10 });
  }

  /** Return the events that are stored of a user, the newest first. */
  async stored(userId) {
    const path = `/api/v1/users/${userId}/events?limit=${MOST_EVENTS}`;
    return (await this.#ask(path, { "x-api-key": this.#keys.key })).events;
  }

  /** Make a key for pages of these origins; returns `{key, keyId, …}`. */
  makeKey(allowedOrigins) {
    return this.#administer("POST", "/keys", { scopes: ["ingest"], allowedOrigins });
  }

  /** Let pages of *origin* use a key, and return when they may: the collector has a cache. */
  async allow({ key, keyId }, origin) {
    await this.#administer("PATCH", `/keys/${keyId}`, { allowedOrigins: [origin] });
    const isAllowed = async () => {
      const headers = { "x-api-key": key, origin, "content-type": "application/json" };
      const options = { method: "POST", headers, body: '{"batch":[]}' };
      return (await fetch(`${this.url}/api/v1/events`, options)).status === 400;
    };
    await waitFor(isAllowed, "the collector knows of the change");
  }

  async #administer(method, path, document) {
    const headers = { "x-api-key": this.#keys.adminKey, "content-type": "application/json" };
    const body = JSON.stringify(document);
    return (await this.#ask(`/api/v1/admin${path}`, headers, { method, body })).data;
  }

  async #ask(path, headers, options) {
    const answer = await fetch(this.url + path, { headers, ...options });
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
    return answer.json();
  }
}
