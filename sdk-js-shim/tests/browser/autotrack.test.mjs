// What autotrack makes of a page, in a real Chromium; what it tracks goes to an array.

import assert from "node:assert/strict";
import { after, test } from "node:test";

import { bundlePage } from "../support/modules.mjs";
import { startPages } from "../support/pages.mjs";

const pages = await startPages();
after(() => pages.stop());
const program = await bundlePage(`
  import { autotrack } from "sdk/autotrack";
  window.seen = [];
  window.titles = [];
  window.push = history.pushState;
  const analytics = {
    track: (name, properties) => seen.push([name, JSON.parse(JSON.stringify(properties))]),
    page() {
      titles.push(document.title);
      seen.push(["page", location.pathname + location.search + location.hash]);
    },
  };
  window.undo = autotrack(analytics, window.options);
`);

/** Open a page that autotrack watches; `seen()` tells what it tracked, once the page is at rest. */
async function open(t, html = "", { options, path } = {}) {
  const text = options === undefined ? "" : `window.options = ${JSON.stringify(options)};`;
  const page = await pages.open(t, html, text + program, path);
  const seen = () =>
    page.evaluate(
      () =>
        new Promise((done) => {
          // Two frames: scroll events come with the first. A timer: routes are looked at in one.
          const rest = () => setTimeout(() => done(seen));
          requestAnimationFrame(() => requestAnimationFrame(rest));
        }),
    );
  return { page, seen };
}

const only = (what) => ({
  pages: false,
  clicks: false,
  forms: false,
  outbound: false,
  scroll: false,
  vitals: false,
  [what]: true,
});
const pathsOf = (seen) => seen.filter(([name]) => name == "page").map(([, path]) => path);

test("each route of an application is one page event", async (t) => {
  const { page, seen } = await open(t, "", { options: only("pages"), path: "/a?x=1" });
  // As routers do: the position of the old entry is noted, then the new one comes; some push twice.
  await page.evaluate(() => {
    history.replaceState({ scroll: 0 }, "", location.href);
    history.pushState({}, "", "/b");
    history.pushState({}, "", "/b");
  });
  assert.deepEqual(pathsOf(await seen()), ["/a?x=1", "/b"]);

  await page.evaluate(() => history.pushState({}, "", "#part"));
  await page.evaluate(() => history.replaceState({}, "", "/b?sorted"));
  assert.deepEqual(pathsOf(await seen()), ["/a?x=1", "/b"]);

  await page.evaluate(() => history.pushState({}, "", "/c"));
  await seen();
  await page.goBack();
  await page.waitForFunction(() => seen.length == 4);
  assert.deepEqual(pathsOf(await seen()).slice(2), ["/c", "/b?sorted"]);
});

test("routes behind a hash count, names of places do not", async (t) => {
  const { page, seen } = await open(t, "<a id=x href='#/cart?x'>x</a><a id=y href='#terms'>y</a>", {
    options: only("pages"),
  });
  await page.click("#x");
  await seen();
  await page.click("#y");
  // Out of the route, back to the page of before; and that is one.
  assert.deepEqual(pathsOf(await seen()), ["/", "/#/cart?x", "/#terms"]);
});

test("a page event has the title of its route", async (t) => {
  const { page, seen } = await open(t, "", { options: only("pages") });
  await page.evaluate(() => {
    history.pushState({}, "", "/cart");
    document.title = "Cart";
  });
  await seen();
  assert.deepEqual(await page.evaluate(() => titles), ["Shop", "Cart"]);
});

test("a click on what is marked is one event, with its properties", async (t) => {
  const { page, seen } = await open(
    t,
    `<div data-track=card><button data-track=cart_added data-track-sku=A7 data-track-unit-price=9.5
       data-other=no><b id=inner>Buy</b></button><i id=card>i</i></div><p id=none>none</p>`,
    { options: only("clicks") },
  );
  await page.click("#inner");
  await page.click("#card");
  await page.click("#none");
  await page.click("#inner", { button: "middle" });
  assert.deepEqual(await seen(), [
    ["cart_added", { sku: "A7", unitPrice: "9.5" }],
    ["card", {}],
  ]);
});

test("a click whose propagation a page stops is seen", async (t) => {
  const { page, seen } = await open(t, "<button data-track=x onclick='event.stopPropagation()'>x", {
    options: only("clicks"),
  });
  await page.click("button");
  assert.deepEqual(await seen(), [["x", {}]]);
});

test("a link that leads away is told without its query", async (t) => {
  const { page, seen } = await open(
    t,
    `<a id=away href="https://else.example/a/b?token=s3cret#part"><b>away</b></a>
     <a id=here href="/here">here</a> <a id=mail href="mailto:a@b.example">mail</a>
     <svg width=9 height=9><a href="https://else.example/"><rect id=svg width=9 height=9 /></a></svg>
     <a id=marked data-track=partner href="https://else.example/">marked</a>`,
    { options: { ...only("outbound"), clicks: true } },
  );
  await page.evaluate(() => document.addEventListener("click", (event) => event.preventDefault()));
  const outbound = [
    "outbound_link_clicked",
    { url: "https://else.example/a/b", host: "else.example" },
  ];
  for (const id of ["away b", "here", "mail", "svg", "marked"]) await page.click(`#${id}`);
  assert.deepEqual(await seen(), [outbound, ["partner", {}]]);
  await page.click("#away", { button: "middle" });
  await page.click("#away", { button: "right" });
  assert.deepEqual(await seen(), [outbound, ["partner", {}], outbound]);
  assert.deepEqual(page.errors, []);
});

test("a form is told without its values, and its fields are no clicks", async (t) => {
  const { page, seen } = await open(
    t,
    `<form id=pay name=payment action="/pay?token=s3cret"><input name=id value=s3cret><button>Pay</button></form>
     <form id=bad action="https://" data-track=signup_sent data-track-plan=pro><input id=field><button>Go</button></form>`,
    { options: { ...only("forms"), clicks: true } },
  );
  await page.evaluate(() => document.addEventListener("submit", (event) => event.preventDefault()));
  await page.click("#pay button");
  await page.click("#field");
  const paid = ["form_submitted", { formId: "pay", formName: "payment", action: "/pay" }];
  assert.deepEqual(await seen(), [paid]);
  await page.evaluate(() => (document.querySelector("#bad").action = "/signup"));
  await page.click("#bad button");
  assert.deepEqual(await seen(), [
    paid,
    ["signup_sent", { plan: "pro", formId: "bad", action: "/signup" }],
  ]);
});

test("markup that makes no sense is no error of the page", async (t) => {
  const { page } = await open(t, `<form action="https://"><button>Go</button></form>`);
  await page.evaluate(() => document.addEventListener("submit", (event) => event.preventDefault()));
  await page.click("button");
  assert.deepEqual(page.errors, []);
});

test("each depth of a page is told once, and anew on the next route", async (t) => {
  const { page, seen } = await open(
    t,
    `<div id=box style="height:90px;overflow:auto"><div style="height:900px"></div></div><div style="height:1900px"></div>`,
    { options: { ...only("scroll"), pages: true } },
  );
  const depths = async () =>
    (await seen()).flatMap(([name, { percent }]) => (name == "page" ? [] : percent));
  const scroll = async (to) => {
    await page.evaluate((y) => scrollTo(0, y), to);
    return depths();
  };
  await page.evaluate(() => document.querySelector("#box").scrollTo(0, 500));
  assert.deepEqual(await depths(), []);
  assert.deepEqual(await scroll(300), [25]);
  assert.deepEqual(await scroll(0), [25]);
  assert.deepEqual(await scroll(9999), [25, 50, 75, 100]);
  assert.deepEqual(await scroll(0), [25, 50, 75, 100]);
  await page.evaluate(() => history.pushState({}, "", "/next"));
  await seen();
  assert.deepEqual(await scroll(1000), [25, 50, 75, 100, 25, 50, 75]);
});

test("web vitals are measured, and reported once", async (t) => {
  const { page, seen } = await open(
    t,
    `<h1>Shop</h1><button onclick="const end = performance.now() + 90; while (performance.now() < end);">slow</button>
     <script>addEventListener("load", () => setTimeout(() => document.querySelector("h1").style.marginTop = "200px", 600))</script>`,
    { options: only("vitals") },
  );
  await page.waitForFunction(() => performance.getEntriesByName("first-contentful-paint").length);
  await page.waitForFunction(() => document.querySelector("h1").style.marginTop);
  await seen();
  await page.click("button");
  await seen();
  const hide = () =>
    page.evaluate(() => {
      Object.defineProperty(document, "hidden", { value: true, configurable: true });
      document.dispatchEvent(new Event("visibilitychange", { bubbles: true }));
    });
  await hide();
  await hide();
  const [[name, vitals], ...more] = await seen();
  assert.equal(name, "web_vitals_measured");
  assert.deepEqual(more, []);
  assert.deepEqual(Object.keys(vitals).sort(), ["cls", "fcp", "inp", "lcp", "ttfb"]);
  const { cls, fcp, inp, lcp, ttfb } = vitals;
  assert.ok(ttfb > 0 && ttfb < fcp && fcp <= lcp && lcp < 20_000, JSON.stringify(vitals));
  assert.ok(cls > 0 && cls < 1, `cls ${cls}`);
  assert.ok(inp >= 80 && inp < 10_000, `inp ${inp}`);
});

test("undo puts everything back", async (t) => {
  const { page, seen } = await open(
    t,
    `<form id=form><button id=x data-track=x>x</button></form><div style="height:3000px"></div>`,
  );
  await page.evaluate(() => {
    document.addEventListener("submit", (event) => event.preventDefault());
    history.pushState({}, "", "/just-before");
    undo();
    undo();
  });
  assert.ok(await page.evaluate(() => history.pushState == push));
  await page.evaluate(() => history.pushState({}, "", "/after"));
  await page.click("#x");
  await page.evaluate(() => scrollTo(0, 9999));
  await page.evaluate(() => {
    Object.defineProperty(document, "hidden", { value: true });
    document.dispatchEvent(new Event("visibilitychange"));
  });
  assert.deepEqual(await seen(), [["page", "/"]]);
});

test("whoever wraps the history after us keeps it", async (t) => {
  const { page, seen } = await open(t, "", { options: only("pages") });
  await page.evaluate(() => {
    window.theirs = [];
    const ours = history.pushState;
    history.pushState = function (...args) {
      theirs.push(args[2]);
      return ours.apply(this, args);
    };
    undo();
    history.pushState({}, "", "/theirs");
  });
  assert.deepEqual(await page.evaluate(() => [theirs, location.pathname]), [
    ["/theirs"],
    "/theirs",
  ]);
  assert.deepEqual(await seen(), [["page", "/"]]);
});

test("without a DOM nothing happens", async () => {
  const text = await bundlePage('export { autotrack } from "sdk/autotrack";', { format: "esm" });
  const { autotrack } = await import(`data:text/javascript,${encodeURIComponent(text)}`);
  autotrack({})();
});
