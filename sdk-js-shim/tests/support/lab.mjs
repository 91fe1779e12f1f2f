// All that the browser tests share: one collector, one browser, one web site.

import { launch } from "./browsers.mjs";
import { makeCertificate } from "./certificate.mjs";
import { Collector } from "./installation.mjs";
import { Link } from "./link.mjs";
import { buildScript, MECHANISMS, without } from "./script.mjs";
import { Site } from "./site.mjs";
import { Visitor } from "./visitor.mjs";

class Lab {
  collector = new Collector();
  site = new Site();
  #certificate = makeCertificate();
  #visitors = 0;

  async start() {
    process.once("exit", () => this.collector.abandon());
    // Without these a program that is told to end leaves out what is to be done at its exit.
    for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));
    [this.browser] = await Promise.all([
      launch(),
      this.collector.start(),
      this.site.open().then(() => this.#putScripts()),
    ]);
    return this;
  }

  async stop() {
    await Promise.all([this.browser.close(), this.collector.stop(), this.site.close()]);
  }

  /** Return somebody with a browser of their own; see `Visitor` for the settings. */
  async visitor(t, settings = {}) {
    const link = await new Link(this.#certificate, this.collector.url).open();
    const context = await this.browser.newContext();
    const visitor = new Visitor(this, `visitor-${++this.#visitors}`, context, link, settings);
    t.after(() => Promise.all([context.close(), link.close()]));
    return visitor;
  }

  async #putScripts() {
    const script = await buildScript();
    this.site.put("/sdk.js", script);
    for (const mechanism of MECHANISMS) {
      this.site.put(`/sdk-without-${mechanism}.js`, without(mechanism, script));
    }
  }
}

export const lab = await new Lab().start();
