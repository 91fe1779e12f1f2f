// The script build as pages get it, made from src/ in memory; also with one of its mechanisms
// taken out, to see what that mechanism is for.

import { fileURLToPath } from "node:url";

import { build } from "esbuild";
import UglifyJS from "uglify-js";

const SOURCE = fileURLToPath(new URL("../../src/script.ts", import.meta.url));

// What to find in the built text, and what to put there. Names in it are short and change.
const REMOVALS = {
  keepalive: [/keepalive:[^,}]+/g, "keepalive:false"],
  storage: [/\blocalStorage\b/g, "noStorage"],
  lock: [/\.locks\b/g, ".noLocks"],
};
export const MECHANISMS = Object.keys(REMOVALS);

/** Return the text of the script build. */
export async function buildScript() {
  const { outputFiles } = await build({
    entryPoints: [SOURCE],
    bundle: true,
    format: "iife",
    target: "es2019",
    minifySyntax: true,
    tsconfigRaw: {},
    define: { VERSION: '"0.0.0"' },
    write: false,
  });
  const { code, error } = UglifyJS.minify(outputFiles[0].text, {
    compress: { passes: 3, unsafe: true, varify: false, negate_iife: false },
    mangle: true,
  });
  if (error) throw error;
  return code;
}

/** Return *script* without one of `MECHANISMS`. */
export function without(mechanism, script) {
  const [pattern, replacement] = REMOVALS[mechanism];
  const changed = script.replace(pattern, replacement);
  if (changed === script) throw new Error(`the script has no ${pattern}: is ${mechanism} gone?`);
  return changed;
}
