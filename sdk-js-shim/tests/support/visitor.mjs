// Somebody who visits the site: a browser with a memory of its own, a way to the collector of
// their own, and a user id by which their events are found in the store.

import { waitFor } from "./waiting.mjs";

export class Visitor {
  #lab;
  #path;

  /**
   * Settings, all optional: `without`, a mechanism that the SDK lacks; `apiKey`; `before`, what the
   * page does before it loads the SDK; it may change `options`, which are those of `init`.
   */
  constructor(lab, userId, context, link, settings) {
    Object.assign(this, { userId, context, link });
    this.#lab = lab;
    this.#path = `/${userId}`;
    this.change(settings);
  }

  /** Let the page have these settings from its next load on. */
  change({ without, apiKey = this.#lab.collector.key, before = "" }) {
    const options = JSON.stringify({ apiKey, apiUrl: this.link.url });
    const user = JSON.stringify({ userId: this.userId });
    this.#lab.site.put(
      this.#path,
      `<!doctype html><title>Shop</title>
      <script>const options = ${options}; ${before}</script>
      <script src="/sdk${without ? `-without-${without}` : ""}.js"></script>
      <script>
        analytics.init(options);
        const track = (n) => analytics.track("step", {n}, ${user});
      </script>`,
    );
  }

  /** Open a tab on the page. */
  async open(query = "") {
    const page = await this.context.newPage();
    await page.goto(this.#lab.site.origin + this.#path + query);
    return page;
  }

  /** Open a tab on another page of the site, one without the SDK. */
  async openElsewhere() {
    const page = await this.context.newPage();
    await page.goto(this.#lab.site.put("/elsewhere", "<!doctype html>"));
    return page;
  }

  /** What the events that are stored were called, sorted: the `n` of each. */
  async stored() {
    const events = await this.#lab.collector.stored(this.userId);
    return events.map(({ properties }) => properties.n).sort((a, b) => a - b);
  }

  /** Wait until so many events are stored. */
  waitStored(count) {
    const isStored = async () => (await this.stored()).length >= count;
    return waitFor(isStored, `${count} events of ${this.userId} are stored`);
  }
}

/** To be done by a page before it loads the SDK: let go at once of what pages left that ended. */
export const LAPSE = `
  function lapse() {
    for (const name of Object.keys(localStorage)) {
      const [lease, ...events] = localStorage[name].split("\\n");
      if (events.length) localStorage[name] = ["1", ...events].join("\\n");
    }
  }
  lapse();`;
