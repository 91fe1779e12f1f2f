// The browser has no room left for the outbox, or gives none.

import assert from "node:assert/strict";
import { test } from "node:test";

import { lab } from "../support/lab.mjs";

const FILL = `
  for (let chars = 1 << 20; chars; chars >>= 1) {
    try {
      for (let n = 0; ; n++) localStorage.setItem("page " + chars + " " + n, "x".repeat(chars));
    } catch {}
  }`;
const DENY = `
  Object.defineProperty(window, "localStorage", {
    get() { throw new DOMException("denied", "SecurityError"); },
  });`;

export function storage() {
  for (const [trouble, before] of Object.entries({ full: FILL, denied: DENY })) {
    test(`with storage that is ${trouble} events are delivered from memory`, async (t) => {
      const visitor = await lab.visitor(t, { before });
      const page = await visitor.open();
      const isRefused = await page.evaluate(() => {
        try {
          localStorage.setItem("one more", "x".repeat(100));
        } catch {
          return true;
        }
      });
      await page.evaluate(() => track(1) && track(2) && analytics.flush());

      assert.ok(isRefused);
      assert.deepEqual(await visitor.stored(), [1, 2]);
    });
  }
}
