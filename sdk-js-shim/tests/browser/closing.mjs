// A tab is closed a moment after something happened in it.

import assert from "node:assert/strict";
import { test } from "node:test";

import { BROWSER } from "../support/browsers.mjs";
import { lab } from "../support/lab.mjs";
import { pause } from "../support/waiting.mjs";

const TRIES = 5;
const MOMENT_MS = 10;

export function closing() {
  test("an event tracked 10 ms before its tab is closed is delivered", async (t) => {
    const visitors = await closeTabs(t, {}, () => track(1));
    await Promise.all(visitors.map((visitor) => visitor.waitStored(1)));
    const stored = await Promise.all(visitors.map((visitor) => visitor.stored()));

    t.diagnostic(`delivered ${stored.flat().length} of ${TRIES}`);
    assert.deepEqual(stored, Array(TRIES).fill([1]));
  });

  test("control: without keepalive it is not", async (t) => {
    const visitors = await closeTabs(t, { without: "keepalive" }, () => track(1));

    assert.equal(await countPosts(t, visitors), 0);
  });

  test("control: a plain fetch by the page itself does not get through", async (t) => {
    const visitors = await closeTabs(t, {}, () =>
      addEventListener("pagehide", () =>
        fetch(`${options.apiUrl}/api/v1/events`, {
          method: "POST",
          headers: { "content-type": "application/json", "x-api-key": options.apiKey },
          body: '{"batch":[]}',
        }),
      ),
    );

    assert.equal(await countPosts(t, visitors), 0);
  });
}

/** Do *work* in a tab and close it, some times; return the visitors. */
async function closeTabs(t, settings, work) {
  const closeOne = async () => {
    const visitor = await lab.visitor(t, settings);
    const page = await visitor.open();
    await page.evaluate(work);
    await pause(MOMENT_MS);
    await page.close();
    return visitor;
  };
  const visitors = [];
  for (let count = 0; count < TRIES; count++) {
    visitors.push(closeOne());
    // Firefox loses some when its driver closes several windows at the same time.
    if (BROWSER !== "chromium") await visitors.at(-1);
  }
  return Promise.all(visitors);
}

async function countPosts(t, visitors) {
  await Promise.all(visitors.map(({ link }) => link.settle()));
  const posts = visitors.flatMap(({ link }) => link.posts).length;
  t.diagnostic(`arrived ${posts} of ${TRIES}`);
  return posts;
}
