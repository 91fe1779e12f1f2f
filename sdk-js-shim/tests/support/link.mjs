// The network between a page and the collector: TLS, with the time that distance takes. Without
// them a test of closing tabs proves nothing: on plain loopback every request gets through.

import { once } from "node:events";
import http from "node:http";
import https from "node:https";
import net from "node:net";

const ONE_WAY_MS = 50;
const EVENTS_PATH = "/api/v1/events";

/** One way to the collector; each test has its own. */
export class Link {
  /** Requests for the collector's door for events, in the order in which they were complete. */
  requests = [];

  /**
   * What happens to the posts to come, one after the other; those after them pass.
   * `{status, headers, body}` is an answer in the collector's place. `{halfway}` is done when half
   * of the request is passed on. `{answered}` is done when the answer is here, of which then only
   * half gets through: of one that is lost altogether browsers may send the request again unasked.
   */
  treatments = [];

  #collectorUrl;
  #server;
  #front;
  #sockets = new Set();
  #port = 0;

  constructor(certificate, collectorUrl) {
    this.#collectorUrl = collectorUrl;
    this.#server = https.createServer(certificate, (request, response) =>
      this.#serve(request, response).catch(() => request.socket.destroy()),
    );
    this.#front = net.createServer({ allowHalfOpen: true }, (socket) => this.#connect(socket));
  }

  get url() {
    return `https://127.0.0.1:${this.#port}`;
  }

  async open() {
    await once(this.#server.listen(0, "127.0.0.1"), "listening");
    await this.up();
    this.#port = this.#front.address().port;
    return this;
  }

  /** Let connections be made, again. */
  async up() {
    await once(this.#front.listen(this.#port, "127.0.0.1"), "listening");
  }

  /** Break all connections, and refuse new ones. */
  async down() {
    this.#front.close();
    this.breakAll();
    if (this.#front.listening) await once(this.#front, "close");
  }

  async close() {
    if (this.#front.listening) await this.down();
    this.#server.close();
    this.#server.closeAllConnections();
    this.breakAll();
  }

  /** The events of all requests that got here, each as often as it came. */
  get events() {
    return this.posts.flatMap(({ body }) => JSON.parse(body).batch);
  }

  get posts() {
    return this.requests.filter(({ method }) => method === "POST");
  }

  get preflights() {
    return this.requests.filter(({ method }) => method === "OPTIONS");
  }

  /** How many events the collector told us that it had before. */
  get duplicates() {
    const answers = this.posts.filter(({ status }) => status === 202);
    return answers.reduce((sum, { answer }) => sum + JSON.parse(answer).duplicates, 0);
  }

  /**
   * Return when all that was on its way is here: after some new connections, one after the other,
   * each of which takes as long as a preflight.
   */
  async settle() {
    for (let times = 0; times < 4; times++) {
      const options = { rejectUnauthorized: false, agent: false };
      const [response] = await once(https.get(`${this.url}/livez`, options), "response");
      await once(response.resume(), "end");
    }
  }

  /** Carry bytes to the server behind TLS and back, each a little later than it came. */
  #connect(socket) {
    const { port } = this.#server.address();
    const inner = net.connect({ port, host: "127.0.0.1", allowHalfOpen: true });
    const carry = (from, to) => {
      this.#sockets.add(from);
      const later = (work) => setTimeout(() => to.destroyed || work(), ONE_WAY_MS);
      from.on("data", (bytes) => later(() => to.write(bytes)));
      from.on("end", () => later(() => to.end()));
      from.on("error", () => to.destroy());
      from.on("close", (hadError) => {
        this.#sockets.delete(from);
        if (hadError) to.destroy();
      });
    };
    carry(socket, inner);
    carry(inner, socket);
  }

  /** Break all connections; new ones can be made. */
  breakAll() {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  async #serve(request, response) {
    const body = await read(request);
    const { method, headers } = request;
    const record = { method, headers, body, at: Date.now() };
    const isForEvents = request.url === EVENTS_PATH;
    if (isForEvents) this.requests.push(record);
    const treatment = (isForEvents && method === "POST" && this.treatments.shift()) || {};
    const answer = treatment.status ? treatment : await this.#ask(request, body, treatment.halfway);
    Object.assign(record, { status: answer.status, answer: answer.body });
    response.writeHead(answer.status, answer.headers);
    if (!treatment.answered) return response.end(answer.body);
    await treatment.answered();
    const half = answer.body.slice(0, answer.body.length >> 1);
    response.write(half, () => request.socket.destroySoon());
  }

  async #ask({ method, url, headers }, body, halfway) {
    const asked = http.request(this.#collectorUrl + url, { method, headers, agent: false });
    const answered = once(asked, "response");
    const half = halfway ? body.length >> 1 : 0;
    if (half) {
      answered.catch(() => {}); // It may fail before we wait for it.
      await new Promise((sent) => asked.write(body.slice(0, half), sent));
      await halfway();
    }
    asked.end(body.slice(half));
    const [answer] = await answered;
    return { status: answer.statusCode, headers: answer.headers, body: await read(answer) };
  }
}

async function read(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}
