// What is published: that it is all there, and that it runs and type-checks where it is installed.

import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";

import { publint } from "publint";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const NAME = "@4onstudios/analytics-js";
const MODULES = ["index", "autotrack", "node", "react", "segment"];
const BUILDS = [...MODULES.flatMap((name) => [`${name}.js`, `${name}.cjs`]), "sdk.js"];
const read = (path) => fs.readFileSync(join(ROOT, path), "utf8");
const manifest = JSON.parse(read("package.json"));

/** A project of a user's, with the package as npm would install it; and what npm packed. */
let project, packed;

before(() => {
  project = fs.mkdtempSync(join(tmpdir(), "analytics-js-"));
  const words = ["pack", "--ignore-scripts", "--json", "--pack-destination", project];
  [packed] = JSON.parse(execFileSync("npm", words, { cwd: ROOT, encoding: "utf8" }));
  const home = join(project, "node_modules", NAME);
  fs.mkdirSync(home, { recursive: true });
  const tarball = fs.readdirSync(project).find((name) => name.endsWith(".tgz"));
  execFileSync("tar", ["xzf", join(project, tarball), "-C", home, "--strip-components=1"]);
  fs.mkdirSync(join(project, "node_modules/@types"));
  for (const name of ["react", "@types/react", "csstype"]) {
    fs.symlinkSync(join(ROOT, "node_modules", name), join(project, "node_modules", name));
  }
});

after(() => fs.rmSync(project, { recursive: true }));

/** Return what a program said and how it ended. */
function end(program, args, cwd) {
  return new Promise((done) =>
    execFile(program, args, { cwd, timeout: 20_000 }, (error, stdout, stderr) =>
      done({ stdout, stderr, status: error ? error.code : 0 }),
    ),
  );
}

/** Run *code* as a file of the user's project, and return what it prints. */
async function run(file, code) {
  fs.writeFileSync(join(project, file), code);
  const { stdout, stderr, status } = await end(process.execPath, [file], project);

  // Without the line of the build that Node shows of a fault, which is all of it.
  assert.deepEqual([stderr.replace(/^.{300,}$/gm, ""), status], ["", 0]);
  return JSON.parse(stdout);
}

// What is in it

test("the package holds the builds, their maps and types, and nothing else", () => {
  const types = [...MODULES, "client", "types"].flatMap((name) => [
    `${name}.d.ts`,
    `${name}.d.cts`,
  ]);
  const dist = [...BUILDS, ...BUILDS.map((name) => `${name}.map`), ...types];

  assert.deepEqual(
    packed.files.map(({ path }) => path).sort(),
    ["LICENSE", "README.md", "package.json", ...dist.map((name) => `dist/${name}`)].sort(),
  );
});

test("what package.json says of the files is so", async () => {
  const { messages } = await publint({ pkgDir: join(project, "node_modules", NAME), strict: true });

  assert.deepEqual(messages, []);
});

test("it needs no other package, and bundlers may leave out what is not used", () => {
  assert.equal(manifest.dependencies, undefined);
  assert.deepEqual(manifest.peerDependenciesMeta, { react: { optional: true } });
  assert.equal(manifest.sideEffects, false);
});

test("the licence is the project's", () => {
  assert.equal(read("LICENSE"), read("../LICENSE"));
});

test("the lock names no registry, and npm keeps it so", () => {
  const { packages } = JSON.parse(read("package-lock.json"));

  assert.match(read(".npmrc"), /^omit-lockfile-registry-resolved=true$/m);
  assert.deepEqual(
    Object.values(packages).filter(({ resolved }) => resolved),
    [],
  );
  const { "": ours, ...others } = packages;
  assert.ok(Object.values(others).every(({ integrity }) => integrity));
});

test("the collector serves the script as it is built here", () => {
  const served = read("../collector/src/analytics_collector/http/sdk.js");

  assert.ok(served === read("dist/sdk.js"), "the script has changed: `npm run copy`");
});

// Where it is installed

const EXPORTS = {
  ".": ["analytics", "createClient", "init"],
  "./autotrack": ["autotrack"],
  "./node": ["init"],
  "./react": ["AnalyticsProvider", "useAnalytics", "usePage"],
  "./compat/segment": ["install", "segment"],
};

describe("where it is installed", { concurrency: 2 }, () => {
  for (const [file, load] of Object.entries({
    "doors.mjs": "await import",
    "doors.cjs": "require",
  })) {
    test(`each module is found where the package is installed: ${file}`, async () => {
      const found = await run(
        file,
        `
      const found = {};
      for (const door of ${JSON.stringify(Object.keys(EXPORTS))}) {
        found[door] = Object.keys(${load}(door.replace(".", "${NAME}"))).sort();
      }
      console.log(JSON.stringify(found));`,
      );

      assert.deepEqual(found, EXPORTS);
    });
  }

  test("there is no door but these", async () => {
    const doors = [...Object.keys(EXPORTS), "./package.json", "./script"];

    assert.deepEqual(Object.keys(manifest.exports).sort(), doors.sort());
  });

  test("the script's file has a name that bundlers and servers can ask for", async () => {
    const path = await run(
      "script.cjs",
      `console.log(JSON.stringify(require.resolve("${NAME}/script")))`,
    );

    assert.equal(fs.readFileSync(path, "utf8"), read("dist/sdk.js"));
    assert.equal(manifest.unpkg, "./dist/sdk.js");
    assert.equal(manifest.jsdelivr, "./dist/sdk.js");
  });

  for (const [file, load] of Object.entries({
    "inert.mjs": "await import",
    "inert.cjs": "require",
  })) {
    test(`where pages are rendered nothing happens: ${file}`, async () => {
      const found = await run(
        file,
        `
      const names = Object.getOwnPropertyNames(globalThis);
      const started = [];
      for (const name of ["fetch", "setTimeout", "setInterval"]) {
        globalThis[name] = () => started.push(name);
      }
      const { analytics, init } = ${load}("${NAME}");
      const { autotrack } = ${load}("${NAME}/autotrack");
      const client = init({ apiKey: "k", apiUrl: "http://127.0.0.1:9" });
      autotrack(client)();
      client.flush();
      const taken = [client.track("a"), analytics.page(), client.identify("u")];
      const more = Object.getOwnPropertyNames(globalThis).filter((name) => !names.includes(name));
      console.log(JSON.stringify({ taken, started, more }));`,
      );

      assert.deepEqual(found, { taken: [false, false, false], started: [], more: [] });
    });
  }

  test("where pages are rendered a client can be stopped, and another made", async () => {
    const code = `init({ apiKey: "k" }).stop(); init({ apiKey: "k" }); console.log(1)`;

    assert.equal(await run("stop.mjs", `import { init } from "${NAME}"; ${code}`), 1);
  });

  test("the other modules use the core that is there, and Node's has one of its own", async () => {
    const withCore = BUILDS.filter((name) => read(`dist/${name}`).includes("x-api-key"));
    const calls = await run(
      "same.mjs",
      `
    import { analytics } from "${NAME}";
    import { segment } from "${NAME}/compat/segment";
    const calls = [];
    analytics.track = (name) => calls.push(name);
    segment().track("bought");
    console.log(JSON.stringify(calls));`,
    );

    assert.deepEqual(withCore, ["index.js", "index.cjs", "node.js", "node.cjs", "sdk.js"]);
    assert.deepEqual(calls, ["bought"]);
  });

  for (const resolution of ["nodenext", "bundler"]) {
    test(`TypeScript finds the types, and mistakes, in ESM and CJS: ${resolution}`, async () => {
      const folder = fs.mkdtempSync(join(project, "types-"));
      const files = ["browser", "server"].flatMap((name) => [`${name}.mts`, `${name}.cts`]);
      for (const file of files) {
        fs.cpSync(join(ROOT, "tests/types", file.replace(/[mc]ts$/, "ts")), join(folder, file));
      }
      const module = resolution === "bundler" ? "preserve" : resolution;
      const { stdout, status } = await end(
        join(ROOT, "node_modules/.bin/tsc"),
        [
          ...["--noEmit", "--strict", "--skipDefaultLibCheck", "--types", ""],
          ...["--target", "es2022", "--module", module, "--moduleResolution", resolution],
          ...files,
        ],
        folder,
      );

      assert.deepEqual([stdout, status], ["", 0]);
    });
  }
});
