// Says what a page loads with us and with others: the import that a user writes, bundled by the
// same tool with the same options. Installs them, pinned, into a folder of its own; wants npm.

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

import { build } from "esbuild";

const DIST = fileURLToPath(new URL("dist", import.meta.url));
const INSTALLED = {
  "posthog-js": "1.434.18",
  "@segment/analytics-next": "1.84.3",
  "@amplitude/analytics-browser": "2.47.1",
  "mixpanel-browser": "2.83.0",
  "@jitsu/js": "1.11.0",
  "plausible-tracker": "0.3.9",
};
// On npm it is the whole server, with the source of its tracker: unpacked, not installed.
const UMAMI = "umami@2.10.0";

const IMPORTS = [
  [
    "@4onstudios/analytics-js",
    `import { init } from "${DIST}/index.js"; init({ apiKey: "k" }).track("e");`,
  ],
  [UMAMI, `import "./package/src/tracker/index.js";`],
  [
    "plausible-tracker",
    `import Plausible from "plausible-tracker"; Plausible({ domain: "d" }).trackEvent("e");`,
  ],
  [
    "@jitsu/js",
    `import { jitsuAnalytics } from "@jitsu/js"; jitsuAnalytics({ host: "h" }).track("e");`,
  ],
  [
    "@segment/analytics-next",
    `import { AnalyticsBrowser } from "@segment/analytics-next";
     AnalyticsBrowser.load({ writeKey: "k" }).track("e");`,
  ],
  [
    "@amplitude/analytics-browser",
    `import { init, track } from "@amplitude/analytics-browser"; init("k"); track("e");`,
  ],
  ["posthog-js", `import posthog from "posthog-js"; posthog.init("k"); posthog.capture("e");`],
  [
    "posthog-js/dist/module.no-external",
    `import posthog from "posthog-js/dist/module.no-external"; posthog.init("k"); posthog.capture("e");`,
  ],
  [
    "mixpanel-browser",
    `import mixpanel from "mixpanel-browser"; mixpanel.init("k"); mixpanel.track("e");`,
  ],
];

const folder = mkdtempSync(join(tmpdir(), "peers-"));
try {
  install();
  row("", "min", "gzip -9", "with lazy");
  const script = readFileSync(join(DIST, "sdk.js"));
  row("our script, as a page loads it", script.length, gzipSync(script, { level: 9 }).length);
  for (const [name, code] of IMPORTS) {
    const { min, gzip, all } = await weigh(code);
    const version = INSTALLED[name.split("/dist/")[0]];
    row(version ? `${name} ${version}` : name, min, gzip, all > gzip ? all : "");
  }
} finally {
  rmSync(folder, { recursive: true });
}

function row(name, ...figures) {
  console.log(name.padEnd(46) + figures.map((figure) => String(figure).padStart(10)).join(""));
}

function install() {
  const stdio = ["ignore", "pipe", "inherit"];
  const npm = (...words) => execFileSync("npm", words, { cwd: folder, stdio });
  writeFileSync(join(folder, "package.json"), '{"private":true}');
  const wanted = Object.entries(INSTALLED).map(([name, version]) => `${name}@${version}`);
  npm("install", "--ignore-scripts", "--no-audit", "--no-fund", ...wanted);
  npm("pack", "--ignore-scripts", "--silent", UMAMI);
  execFileSync("tar", ["xzf", `${UMAMI.replace("@", "-")}.tgz`, "package/src/tracker"], {
    cwd: folder,
  });
}

/** Return the bytes that *code* makes a page load at once, and with what it may load later. */
async function weigh(code) {
  const { outputFiles, metafile } = await build({
    stdin: { contents: code, resolveDir: folder },
    outdir: join(folder, "out"),
    bundle: true,
    minify: true,
    splitting: true,
    format: "esm",
    target: "es2020",
    platform: "browser",
    define: { "process.env.NODE_ENV": '"production"' },
    metafile: true,
    write: false,
    logLevel: "error",
  });
  // The chunk of what was given, and those that it can't start without.
  const chunks = Object.keys(metafile.outputs);
  const first = new Set(chunks.filter((chunk) => metafile.outputs[chunk].entryPoint === "<stdin>"));
  for (const chunk of first) {
    for (const { kind, path } of metafile.outputs[chunk].imports) {
      if (kind === "import-statement") first.add(path);
    }
  }
  const paths = new Set([...first].map((chunk) => resolve(chunk)));
  let [min, gzip, all] = [0, 0, 0];
  for (const { path, contents } of outputFiles) {
    const bytes = gzipSync(contents, { level: 9 }).length;
    all += bytes;
    if (paths.has(path)) {
      min += contents.length;
      gzip += bytes;
    }
  }
  return { min, gzip, all };
}
