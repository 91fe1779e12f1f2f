// Writes dist/: the package's modules (ESM and CJS, with types), and the script for plain pages.

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";
import UglifyJS from "uglify-js";

process.chdir(fileURLToPath(new URL(".", import.meta.url)));

const { version } = JSON.parse(readFileSync("package.json", "utf8"));
// What may be imported beside the core, each with a door of its own in package.json.
const MODULES = ["autotrack", "node", "react", "segment"].filter((name) =>
  existsSync(`src/${name}.ts`),
);
// What is switched off makes our code larger; found by trying each.
const COMPRESS = {
  ...{ comparisons: false, if_return: false, merge_vars: false, negate_iife: false, varify: false },
  // React asks for "use client".
  directives: false,
  passes: 3,
  unsafe: true,
};
const EXTENSIONS = { esm: ".js", cjs: ".cjs" };

rmSync("dist", { recursive: true, force: true });
mkdirSync("dist");
for (const name of ["index", ...MODULES]) {
  await bundle(`src/${name}.ts`, `dist/${name}.js`, "esm");
  await bundle(`src/${name}.ts`, `dist/${name}.cjs`, "cjs");
}
await bundle("src/script.ts", "dist/sdk.js", "iife");
writeTypes();

async function bundle(source, target, format) {
  const [map, code] = (
    await build({
      entryPoints: [source],
      outfile: target,
      bundle: true,
      format,
      target: "es2019",
      // What is not a file of ours is the user's, React for example.
      packages: "external",
      minifySyntax: true,
      define: { VERSION: JSON.stringify(version) },
      // Not ours, which asks for "use strict" where it only costs.
      tsconfigRaw: {},
      plugins: [oneCore(EXTENSIONS[format])],
      sourcemap: "external",
      write: false,
    })
  ).outputFiles;
  const small = UglifyJS.minify(code.text, {
    module: format === "esm",
    // A script of a page has only the function that esbuild wraps it in, and no names outside.
    toplevel: format !== "iife",
    compress: COMPRESS,
    mangle: true,
    sourceMap: {
      content: map.text,
      includeSources: true,
      // Where each byte counts, the map lies beside the file unmentioned.
      url: ["dist/index.js", "dist/sdk.js"].includes(target)
        ? undefined
        : `${basename(target)}.map`,
    },
  });
  if (small.error) throw small.error;
  writeFileSync(target, small.code);
  writeFileSync(`${target}.map`, small.map);
}

/** Let a module use the default client of the core that the page has, not bring another along. */
function oneCore(extension) {
  return {
    name: "one core",
    setup({ onResolve }) {
      onResolve({ filter: /^\.\/index$/ }, ({ path }) => ({
        path: path + extension,
        external: true,
      }));
    },
  };
}

/** Write what TypeScript reads, once for each kind of module: they have to name one another. */
function writeTypes() {
  execFileSync("node_modules/.bin/tsc", ["--emitDeclarationOnly", "--outDir", "dist/types"], {
    stdio: "inherit",
  });
  const names = new Set(["index", ...MODULES]);
  for (const name of names) {
    const text = readFileSync(`dist/types/${name}.d.ts`, "utf8");
    for (const [, other] of text.matchAll(/from "\.\/(\w+)"/g)) names.add(other);
    for (const [kind, extension] of Object.entries({ ts: "js", cts: "cjs" })) {
      const named = text.replace(/from "(\.\/\w+)"/g, `from "$1.${extension}"`);
      writeFileSync(`dist/${name}.d.${kind}`, named);
    }
  }
  rmSync("dist/types", { recursive: true });
}
