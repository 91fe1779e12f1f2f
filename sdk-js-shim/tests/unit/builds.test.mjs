// The builds: that each keeps to what browsers and strict pages allow, and works on a plain page.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { SourceMap } from "node:module";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import vm from "node:vm";

import { parse } from "acorn";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const BUILDS = readdirSync(join(ROOT, "dist")).filter((name) => /\.c?js$/.test(name));

const read = (path) => readFileSync(join(ROOT, path), "utf8");
const globalsOf = (window) => Object.getOwnPropertyNames(window);

test("each build is ES2019, and nothing in it makes code out of text", () => {
  for (const name of BUILDS) {
    const code = read(`dist/${name}`);
    const sourceType = /^import\b|\bexport\{/m.test(code) ? "module" : "script";

    parse(code, { ecmaVersion: 2019, sourceType });
    assert.doesNotMatch(code, /\beval\b|\bFunction\b|innerHTML|createElement\("script"\)/, name);
  }
});

test("each build with the core tells the version of the package", () => {
  const { version } = JSON.parse(read("package.json"));
  const cores = BUILDS.filter((name) => /^(index|node|sdk)\./.test(name));

  assert.equal(cores.length, 5);
  for (const name of cores) assert.ok(read(`dist/${name}`).includes(`version:"${version}"`), name);
});

// Members of other people's objects are the same on both sides, whatever is renamed around them.
const MEMBERS = /\b(randomUUID|useContext|closest|addEventListener)\b/;

test("each build has a map that leads to the source", () => {
  for (const name of BUILDS) {
    const code = read(`dist/${name}`);
    const map = new SourceMap(JSON.parse(read(`dist/${name}.map`)));
    const { 0: member, index } = code.match(MEMBERS);
    const before = code.slice(0, index).split("\n");
    const { originalSource, originalLine } = map.findEntry(before.length - 1, before.pop().length);
    const source = map.payload.sourcesContent[map.payload.sources.indexOf(originalSource)];

    assert.equal(source, read(`dist/${originalSource}`));
    assert.ok(source.split("\n")[originalLine].includes(member), `${name}: ${member}`);
  }
});

test("the modules name their maps; the two that are weighed to the byte do not", () => {
  for (const name of BUILDS) {
    const [last] = read(`dist/${name}`).match(/\n\/\/# sourceMappingURL=.*$/) || [];
    const weighed = name === "index.js" || name === "sdk.js";

    assert.equal(last, weighed ? undefined : `\n//# sourceMappingURL=${name}.map`);
  }
});

// On a plain page

/** A page in a realm of its own, with what a script needs to begin and a policy against eval. */
function page() {
  const head = [];
  const nothing = () => {};
  const parts = {
    location: { href: "https://shop.example/", pathname: "/", search: "" },
    navigator: { language: "en" },
    document: {
      currentScript: null,
      createElement: () => ({ dataset: {} }),
      head: { append: (element) => head.push(element) },
    },
    ...{ setTimeout: nothing, clearTimeout: nothing, fetch: () => new Promise(nothing) },
    ...{ addEventListener: nothing, removeEventListener: nothing },
    ...{ queueMicrotask, URLSearchParams, TextEncoder, AbortController },
  };
  const window = vm.createContext(parts, { codeGeneration: { strings: false, wasm: false } });
  window.window = window;
  const names = globalsOf(window);
  return {
    window,
    head,
    load: (path) => vm.runInContext(read(path), window),
    newGlobals: () => globalsOf(window).filter((name) => !names.includes(name)),
  };
}

test("the script leaves one global, `analytics`", () => {
  const { load, newGlobals } = page();
  load("dist/sdk.js");
  const { body } = parse(read("dist/sdk.js"), { ecmaVersion: 2019 });

  assert.deepEqual(newGlobals(), ["analytics"]);
  // `let`, `const` and `class` are no members of the window, but in the way of the page's own.
  assert.deepEqual(
    body.map(({ type }) => type),
    ["ExpressionStatement"],
  );
});

test("the script's tag tells it the settings and where the collector is", async () => {
  const src = "https://collector.example/js/sdk.js";
  const { window, load } = page();
  window.document.currentScript = { src, dataset: { apiKey: "k", batchSize: "1" } };
  const sent = new Promise((resolve) => {
    window.fetch = async (url, request) => resolve({ url, key: request.headers["x-api-key"] });
  });
  load("dist/sdk.js");
  window.analytics.track("bought");

  assert.deepEqual(await sent, { url: "https://collector.example/api/v1/events", key: "k" });
});

test("the snippet is at most 400 bytes, and asks for the script without making the page wait", () => {
  const { head, load, newGlobals } = page();
  load("src/snippet.js");

  assert.ok(Buffer.byteLength(`<script>${read("src/snippet.js").trim()}</script>`) <= 400);
  assert.deepEqual(newGlobals(), ["analytics"]);
  // A script that is put in by a script is async by itself.
  const [{ src, dataset }, ...more] = head;
  assert.deepEqual(
    { src, dataset },
    { src: "https://collector.example/js/sdk.js", dataset: { apiKey: "ak_live_…" } },
  );
  assert.deepEqual(more, []);
});

test("the snippet has all methods but `stop`, which a page needs only once it has begun", () => {
  const [withSnippet, withScript] = [page(), page()];
  withSnippet.load("src/snippet.js");
  withScript.load("dist/sdk.js");
  const methods = Object.keys(withScript.window.analytics).filter((name) => name !== "stop");

  assert.equal(methods.length, 12);
  assert.deepEqual(Object.keys(withSnippet.window.analytics).sort(), methods.sort());
});

test("the snippet of the README is this one", () => {
  const [, shown] = /<script>\n(.*)\n/.exec(read("README.md").split("The snippet takes")[1]);
  const ours = read("src/snippet.js").trim();

  assert.equal(
    shown.replace("collector.example.com", "collector.example").replace("ak_live_...", "ak_live_…"),
    ours,
  );
});

test("a second snippet, or one after the script, changes nothing", () => {
  const { window, head, load } = page();
  load("src/snippet.js");
  const first = window.analytics;
  load("src/snippet.js");

  assert.equal(window.analytics, first);
  assert.equal(head.length, 1);
});
