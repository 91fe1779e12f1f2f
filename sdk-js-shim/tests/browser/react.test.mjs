// The hooks, in React itself: rendered by a server, and in Chromium.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { after, test } from "node:test";

import { bundlePage } from "../support/modules.mjs";
import { startPages } from "../support/pages.mjs";

const pages = await startPages();
after(() => pages.stop());

const APP = `
  import { createElement as h, StrictMode, useState } from "react";
  import { AnalyticsProvider, useAnalytics, usePage } from "sdk/react";
  import { analytics } from "sdk/index";
  const seen = [];
  const client = (whose) => ({
    page: (name, properties) => seen.push([whose, name, properties]),
    track: (name) => seen.push([whose, name]),
  });
  const first = client("first");
  function Page({ name }) {
    usePage(name, { of: "shop" });
    const own = useAnalytics();
    return h("button", { onClick: () => own.track("clicked") }, own == analytics ? "default" : "given");
  }`;

/** Show `App`, whose state is \`{name, provided}\`; \`set\` changes it. */
async function open(t, provided) {
  const text = await bundlePage(`${APP}
    import { createRoot } from "react-dom/client";
    import { flushSync } from "react-dom";
    Object.assign(window, { seen, first, second: client("second"), h, Page, AnalyticsProvider, analytics });
    function App() {
      const [state, set] = useState({ name: "Home", client: ${provided} });
      window.set = (change) => flushSync(() => set({ ...state, ...change }));
      const page = state.name && h(Page, { name: state.name });
      return state.client ? h(AnalyticsProvider, { client: state.client }, page) : page;
    }
    flushSync(() => createRoot(document.querySelector("#root")).render(h(StrictMode, null, h(App))));`);
  const page = await pages.open(t, "<div id=root></div>", text);
  await page.waitForSelector("button");
  return page;
}
const settled = (page) =>
  page.evaluate(() => new Promise((done) => setTimeout(() => done(seen), 0)));

test("a page is one event in strict mode, and another one when its name changes", async (t) => {
  const page = await open(t, "first");
  const home = ["first", "Home", { of: "shop" }];
  assert.deepEqual(await settled(page), [home]);
  await page.evaluate(() => set({}));
  assert.deepEqual(await settled(page), [home]);
  await page.evaluate(() => set({ name: "Cart" }));
  assert.deepEqual(await settled(page), [home, ["first", "Cart", { of: "shop" }]]);
});

test("a page that is left and comes again is another event", async (t) => {
  const page = await open(t, "first");
  await page.evaluate(() => set({ name: "" }));
  await page.evaluate(() => set({ name: "Home" }));
  assert.deepEqual(
    (await settled(page)).map(([, name]) => name),
    ["Home", "Home"],
  );
});

test("a provider's client is that of the components below", async (t) => {
  const page = await open(t, "first");
  await page.click("button");
  await page.evaluate(() => set({ client: second }));
  await page.click("button");
  assert.equal(await page.textContent("button"), "given");
  const whose = (await settled(page)).map(([client, name]) => [client, name]);
  assert.deepEqual(whose, [
    ["first", "Home"],
    ["first", "clicked"],
    ["second", "Home"],
    ["second", "clicked"],
  ]);
});

test("without a provider it is the default client", async (t) => {
  const page = await open(t, "null");
  assert.equal(await page.textContent("button"), "default");
  await page.evaluate(() => {
    const beforeSend = ({ type, name, properties }) => void seen.push([type, name, properties]);
    analytics.init({ apiKey: "k", beforeSend });
    set({ name: "Cart" });
  });
  await page.click("button");
  assert.deepEqual(await settled(page), [
    ["page", "Cart", { of: "shop" }],
    ["track", "clicked", {}],
  ]);
  assert.deepEqual(page.errors, []);
});

test("a server renders it, and sends nothing", async () => {
  const text = await bundlePage(
    `${APP}
    import { renderToString } from "react-dom/server";
    const html = renderToString(h(StrictMode, null, h(AnalyticsProvider, { client: first }, h(Page, { name: "Home" }))));
    console.log(JSON.stringify([html, renderToString(h(Page, {})), seen]));`,
    { platform: "node", format: "cjs" },
  );
  const said = execFileSync(process.execPath, ["-"], { input: text, encoding: "utf8" });
  assert.deepEqual(JSON.parse(said), ["<button>given</button>", "<button>default</button>", []]);
});
