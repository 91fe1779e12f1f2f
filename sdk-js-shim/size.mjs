// Says what each build weighs on the way to a browser, and fails if one is above its budget.

import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

// Bytes, `gzip -9`.
const BUDGETS = {
  "index.js": 3072,
  "sdk.js": 3072,
  "autotrack.js": 1536,
  // With a core of its own: a program has many clients, and no default one.
  "node.js": 4608,
  "react.js": 512,
  "segment.js": 896,
};

for (const [name, budget] of Object.entries(BUDGETS)) {
  const file = new URL(`dist/${name}`, import.meta.url);
  if (!existsSync(file)) continue;
  // Whatever bundles a module leaves out the line that names its map.
  const code = readFileSync(file, "utf8").replace(/\n\/\/# sourceMappingURL=.*/, "");
  // The command and zlib differ by some bytes; servers use one or the other.
  const byCommand = spawnSync("gzip", ["-9", "-n"], { input: code }).stdout?.length ?? 0;
  const bytes = Math.max(byCommand, gzipSync(code, { level: 9 }).length);
  const room = budget - bytes;
  const verdict = room < 0 ? `${-room} TOO MANY` : `${room} left`;
  console.log(
    `${name.padEnd(14)}${String(code.length).padStart(7)} B ${String(bytes).padStart(6)} B gzip -9` +
      ` of ${String(budget).padStart(5)}   ${verdict}`,
  );
  if (room < 0) process.exitCode = 1;
}
