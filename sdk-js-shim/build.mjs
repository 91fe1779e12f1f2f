// Writes dist/: the package's modules (ESM and CJS, with types), and the script for plain pages.

import { execFileSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";
import UglifyJS from "uglify-js";

process.chdir(fileURLToPath(new URL(".", import.meta.url)));

const { version } = JSON.parse(readFileSync("package.json", "utf8"));
// What may be imported beside the core, each with a door of its own in package.json.
const MODULES = ["autotrack", "node", "react", "segment"].filter((name) =>
  existsSync(`src/${name}.ts`),
);
const EXTENSIONS = { esm: ".js", cjs: ".cjs" };
// The collector is installed where there is no Node, so it has the script among its own files.
const COLLECTORS_COPY = "../collector/src/analytics_collector/http/sdk.js";

rmSync("dist", { recursive: true, force: true });
mkdirSync("dist");
for (const name of ["index", ...MODULES]) {
  await bundle(`src/${name}.ts`, `dist/${name}.js`, "esm");
  await bundle(`src/${name}.ts`, `dist/${name}.cjs`, "cjs");
}
await bundle("src/script.ts", "dist/sdk.js", "iife");
if (existsSync("../collector")) copyFileSync("dist/sdk.js", COLLECTORS_COPY);
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
      plugins: [oneCore(source, EXTENSIONS[format])],
      sourcemap: "external",
      write: false,
    })
  ).outputFiles;
  const small = UglifyJS.minify(code.text, {
    module: format === "esm",
    // A script of a page has only the function that esbuild wraps it in, and no names outside.
    toplevel: format !== "iife",
    compress: { passes: 3, unsafe: true, varify: false, negate_iife: false },
    mangle: true,
    sourceMap: { content: map.text },
  });
  if (small.error) throw small.error;
  writeFileSync(target, small.code);
  writeFileSync(`${target}.map`, small.map);
}

/** Let the other modules use the core that the page has, instead of bringing another along. */
function oneCore(source, extension) {
  return {
    name: "one core",
    setup({ onResolve }) {
      onResolve({ filter: /^\.\/(index|client)$/ }, ({ path, importer }) => {
        if (["index", "script"].some((core) => source === `src/${core}.ts`)) return;
        if (path === "./index") return { path: path + extension, external: true };
        const text = `${importer} imports ${path}, and would have a core of its own: use "./index"`;
        return { errors: [{ text }] };
      });
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
