// The SDK's modules, bundled in memory, so that tests see src and no older build.

import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const SOURCE = new URL("../../src/", import.meta.url);
export const VERSION = "0.0.0-test";

const texts = new Map();
let loads = 0;

/** Return the text of src/<name>.ts and of what it imports, as one file. */
export async function bundle(name, format = "esm") {
  const key = `${name} ${format}`;
  if (!texts.has(key)) {
    const built = await build({
      entryPoints: [fileURLToPath(new URL(`${name}.ts`, SOURCE))],
      bundle: true,
      write: false,
      format,
      target: "es2019",
      external: ["node:*"],
      define: { VERSION: JSON.stringify(VERSION) },
    });
    texts.set(key, built.outputFiles[0].text);
  }
  return texts.get(key);
}

/** Return what src/<name>.ts exports; a fresh instance each time, as on a page of its own. */
export async function load(name) {
  const text = `${await bundle(name)}//${++loads}`;
  return import(`data:text/javascript;base64,${Buffer.from(text).toString("base64")}`);
}
