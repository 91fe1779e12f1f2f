// Tabs take over, all at the same moment, what a tab has left that ended.

import assert from "node:assert/strict";
import { test } from "node:test";

import { lab } from "../support/lab.mjs";
import { waitFor } from "../support/waiting.mjs";

const TABS = 6;
const ROUNDS = 5;
const EVENTS = 10;
const AHEAD_MS = 150;
const SPIN_MS = 4;

// The page's round, which looks for what others have left, waits until it is told to go.
const HOLD = `
  let round;
  options.later = (work, ms) => (work.name === "round" ? (round = work) : setTimeout(work, ms));`;

export function takeover() {
  test("6 tabs at the same millisecond take over each event once", async (t) => {
    const { sent, different } = await takeOver(t, {});

    assert.equal(different, ROUNDS * EVENTS);
    assert.equal(sent, different);
  });

  test("control: without the lock events are sent more than once", async (t) => {
    const { sent, different } = await takeOver(t, { without: "lock" });

    assert.equal(different, ROUNDS * EVENTS);
    assert.ok(sent > different);
  });
}
