// The collector is killed in the middle of a request, and started again.

import assert from "node:assert/strict";
import { test } from "node:test";

import { lab } from "../support/lab.mjs";

const MOMENTS = {
  halfway: { sentence: "half of which a collector had when it was killed", duplicates: 0 },
  answered: { sentence: "that was stored when the collector was killed", duplicates: 2 },
};

export function killing() {
  for (const [moment, { sentence, duplicates }] of Object.entries(MOMENTS)) {
    test(`a request ${sentence} is stored once`, async (t) => {
      const visitor = await lab.visitor(t);
      const page = await visitor.open();
      const killed = new Promise((done) => {
        const kill = () => lab.collector.kill().then(done);
        visitor.link.treatments = [{ [moment]: kill }];
      });
      const flushed = page.evaluate(() => track(1) && track(2) && analytics.flush());
      await killed;
      await lab.collector.start();
      await flushed;

      t.diagnostic(`${visitor.link.posts.length} tries`);
      assert.deepEqual(await visitor.stored(), [1, 2]);
      assert.equal(visitor.link.duplicates, duplicates);
    });
  }
}
