// A real Chromium and a web site of the tests' own, for modules that need a DOM.

import { once } from "node:events";
import { existsSync } from "node:fs";
import { createServer } from "node:http";

import { chromium } from "playwright-core";

const CHROMIUM = process.env.CHROMIUM || "/usr/bin/chromium";
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--no-first-run",
  "--disable-background-networking",
  // Nothing here has any business outside of this machine.
  "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
];

/** Start both; `pages.open(t, html, script)` shows a document whose program is *script*. */
export async function startPages() {
  if (!existsSync(CHROMIUM)) {
    throw new Error(`no ${CHROMIUM}: apt-get install chromium, or name another in CHROMIUM`);
  }
  let document = "";
  const server = createServer((request, response) => {
    response.writeHead(200, { "content-type": "text/html; charset=utf-8" }).end(document);
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const origin = `http://127.0.0.1:${server.address().port}`;
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
  return {
    origin,
    async open(t, html, script, path = "/") {
      document = `<!doctype html><title>Shop</title><body>${html}<script>${script.replaceAll("</script", "<\\/script")}</script>`;
      const context = await browser.newContext({ viewport: { width: 800, height: 600 } });
      t.after(() => context.close());
      const page = await context.newPage();
      page.errors = [];
      page.on("pageerror", (error) => page.errors.push(error.message));
      await page.goto(origin + path);
      return page;
    },
    async stop() {
      await browser.close();
      server.closeAllConnections();
      server.close();
    },
  };
}
