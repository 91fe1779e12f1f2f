// The optional modules as files, for child processes and for pages: all of them share one core.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

import { build } from "esbuild";

const source = (path) => fileURLToPath(new URL(`../../src/${path}`, import.meta.url));

/** Write the modules of src/ into a folder that goes with this process; returns its URL. */
export async function writeModules(names, settings = {}) {
  const folder = mkdtempSync(join(tmpdir(), "analytics-modules-"));
  process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
  await build({
    entryPoints: names.map((name) => source(`${name}.ts`)),
    outdir: folder,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    splitting: true,
    format: "esm",
    target: "es2019",
    define: { VERSION: '"0.0.0-test"' },
    ...settings,
  });
  return pathToFileURL(folder).href;
}

/** Return the text of a program for a page, which may import `sdk/<module>`; React is in it. */
export async function bundlePage(text, settings = {}) {
  const built = await build({
    stdin: { contents: text, resolveDir: fileURLToPath(new URL("../..", import.meta.url)) },
    alias: Object.fromEntries(
      ["index", "autotrack", "react", "segment"].map((name) => [
        `sdk/${name}`,
        source(`${name}.ts`),
      ]),
    ),
    bundle: true,
    write: false,
    format: "iife",
    define: { VERSION: '"0.0.0-test"', "process.env.NODE_ENV": '"development"' },
    ...settings,
  });
  return built.outputFiles[0].text;
}
