// What an answer means: spec/vectors/delivery.json, all of it.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { load } from "../support/source.mjs";

const { decide } = await load("verdict");
const { cases } = JSON.parse(
  readFileSync(new URL("../../../spec/vectors/delivery.json", import.meta.url)),
);
const ACTIONS = ["deliver", "reject", "split", "again"];

/** Return what the client makes of a body. */
function parsed(body) {
  try {
    return JSON.parse(body);
  } catch {
    return 0;
  }
}

test("the vectors are all there", () => assert.equal(cases.length, 64));

for (const { name, given, expect } of cases) {
  test(name, () => {
    const [action, refusals, delay, floor] = decide(
      given.status ?? 0,
      parsed(given.body),
      given.retryAfter ?? null,
      Array(given.events).fill("{}"),
      given.attempt,
      given.jitter,
      given.now ? Date.parse(given.now) : Date.now(),
    );

    assert.equal(ACTIONS[action], expect.action);
    if (expect.action == "again") {
      assert.equal(delay / 1000, expect.delayS);
      assert.equal((floor ?? 0) / 1000, expect.floorS);
    }
    const listed = refusals.flatMap((refusal, index) =>
      refusal ? [{ index, code: refusal.code, message: refusal.message }] : [],
    );
    // Where the collector gave no reason, the text for it is each SDK's own.
    const expected = (expect.rejected ?? []).map((refusal, at) => ({
      ...refusal,
      message: given.body?.includes(JSON.stringify(refusal.message))
        ? refusal.message
        : listed[at]?.message,
    }));
    assert.deepEqual(listed, expected);
  });
}
