// The web site whose pages use the SDK; of another origin than the collector.

import { once } from "node:events";
import http from "node:http";

export class Site {
  #pages = new Map();
  #server = http.createServer((request, response) => {
    const { pathname } = new URL(request.url, "http://site");
    const page = this.#pages.get(pathname);
    const type = pathname.endsWith(".js") ? "text/javascript" : "text/html; charset=utf-8";
    response.writeHead(page === undefined ? 404 : 200, { "content-type": type }).end(page);
  });

  async open() {
    await once(this.#server.listen(0, "127.0.0.1"), "listening");
    return this;
  }

  get origin() {
    return `http://127.0.0.1:${this.#server.address().port}`;
  }

  /** Have *text* at *path*; returns its URL. */
  put(path, text) {
    this.#pages.set(path, text);
    return this.origin + path;
  }

  close() {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}
