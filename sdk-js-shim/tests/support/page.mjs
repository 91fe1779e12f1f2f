// What a browser is to the SDK: storage, a clock, events of the page. Nothing of our own is replaced.

import { load } from "./source.mjs";

const { createClient } = await load("client");
const GLOBALS = [
  "location",
  "document",
  "navigator",
  "screen",
  "localStorage",
  "addEventListener",
  "removeEventListener",
];
const realNow = Date.now;
const realClear = globalThis.clearTimeout;

export const KEY = "ak_live_test";

/** The part of `Storage` that is used, over a Map. */
export class MemoryStorage {
  constructor(entries = []) {
    this.map = new Map(entries);
  }
  get length() {
    return this.map.size;
  }
  key(index) {
    return [...this.map.keys()][index] ?? null;
  }
  getItem(key) {
    return this.map.get(key) ?? null;
  }
  setItem(key, value) {
    this.map.set(key, `${value}`);
  }
  removeItem(key) {
    this.map.delete(key);
  }
  /** Return the outboxes of a key: each a lease and lines of JSON. */
  boxes(key = KEY) {
    const prefix = `analytics:${key}:`;
    return [...this.map].filter(([name]) => name.startsWith(prefix) && name[prefix.length] < "a");
  }
  /** Return the events that wait in them. */
  events(key) {
    return this.boxes(key)
      .flatMap(([, box]) => box.split("\n").slice(1))
      .map((line) => JSON.parse(line));
  }
}

class Timer {
  constructor(at, work) {
    Object.assign(this, { at, work });
  }
}

/** A clock that stands until the test moves it, for `Date.now` and for timers. */
export class Clock {
  constructor(now = Date.UTC(2026, 10, 20, 10)) {
    this.now = now;
    this.timers = new Set();
    Date.now = () => this.now;
    globalThis.clearTimeout = (timer) =>
      timer instanceof Timer ? this.timers.delete(timer) : realClear(timer);
  }
  later = (work, ms) => {
    // A text is a number too, as for setTimeout.
    const timer = new Timer(this.now + +ms, work);
    this.timers.add(timer);
    return timer;
  };
  /** Let *ms* go by, and what is due happen. */
  advance(ms) {
    const end = this.now + ms;
    for (;;) {
      const due = [...this.timers].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0];
      if (!due) break;
      this.timers.delete(due);
      this.now = Math.max(this.now, Math.ceil(due.at));
      due.work();
    }
    this.now = end;
  }
  /** Return how long until each timer, in ms, the nearest first. */
  waits() {
    return [...this.timers].map(({ at }) => at - this.now).sort((a, b) => a - b);
  }
  close() {
    Date.now = realNow;
    globalThis.clearTimeout = realClear;
  }
}

let pages = 0;

/** Set these globals, undefined takes one away; return how to undo it. */
export function setGlobals(globals) {
  const before = Object.keys(globals).map((name) => [
    name,
    Object.getOwnPropertyDescriptor(globalThis, name),
  ]);
  for (const [name, value] of Object.entries(globals)) {
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  }
  return () =>
    before.forEach(([name, descriptor]) =>
      descriptor ? Object.defineProperty(globalThis, name, descriptor) : delete globalThis[name],
    );
}

function withGlobals(globals, work) {
  const restore = setGlobals(globals);
  try {
    return work();
  } finally {
    restore();
  }
}

/** Open a page with a client on it: `{client, fire, die, location, document, ...}`. */
export function openPage({
  collector,
  clock,
  storage,
  url,
  options,
  make = createClient,
  ...globals
} = {}) {
  const name = `page${++pages}`;
  const listeners = [];
  const page = {
    name,
    dead: false,
    document: { hidden: false, title: "Shop", referrer: "", cookie: "" },
  };
  page.location = url
    ? new URL(url)
    : { href: "https://shop.example/a?b=1", pathname: "/a", search: "?b=1" };
  Object.assign(page.document, globals.document);
  const own =
    storage &&
    new Proxy(storage, {
      get(target, member) {
        if (page.dead) throw new Error("The page is gone.");
        const value = target[member];
        return typeof value == "function" ? value.bind(target) : value;
      },
    });
  const faked = {
    navigator: { language: "de-DE" },
    screen: { width: 1920, height: 1080 },
    localStorage: own,
    addEventListener: (type, listener) => listeners.push([type, listener]),
    removeEventListener: (type, listener) => {
      const index = listeners.findIndex(([its, other]) => its == type && other == listener);
      if (index >= 0) listeners.splice(index, 1);
    },
    ...globals,
    location: page.location,
    document: page.document,
  };
  page.globals = Object.fromEntries(GLOBALS.map((name) => [name, faked[name]]));
  page.listeners = listeners;
  page.client = withGlobals(page.globals, () =>
    make({
      apiKey: KEY,
      apiUrl: collector && `${collector.url}/${name}`,
      later: clock && ((work, ms) => clock.later(() => page.dead || work(), ms)),
      ...options,
    }),
  );
  page.fire = (type, hidden = page.document.hidden) => {
    page.document.hidden = hidden;
    withGlobals(page.globals, () =>
      [...listeners].forEach(([its, listener]) => its == type && listener({ type })),
    );
  };
  /** End as a crash does: nothing more is said, written or timed. */
  page.die = () => {
    page.dead = true;
    collector?.bury(name);
  };
  return page;
}

/** Let all happen that is due at this moment. */
export const tick = () => new Promise((done) => setImmediate(done));

/** Wait for a condition. */
export async function until(condition, what = condition.toString()) {
  const end = performance.now() + 3000;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`It did not come to pass: ${what}`);
    await tick();
  }
}

/** Return what holds of a client at every moment, as the two sides of an equation. */
export function balance({ taken, adopted, delivered, queued, rejected, expired, dropped }) {
  return [taken + adopted, delivered + queued + rejected + expired + dropped];
}

/** Return the same numbers in [0, 1) for the same seed. */
export function seeded(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Return how a test of the whole client begins: a collector, a clock, a storage; all end with the test. */
export function stage(collectors) {
  return async (test) => {
    const collector = await collectors();
    const clock = new Clock();
    const storage = new MemoryStorage();
    // fetch() is called before a request is on its way, so that one which must not be is seen at once.
    const fetches = [];
    const { fetch } = globalThis;
    const restore = setGlobals({ fetch: (url, init) => (fetches.push(init), fetch(url, init)) });
    test.after(async () => {
      restore();
      clock.close();
      await collector.close();
    });
    const open = (given = {}) => openPage({ collector, clock, storage, ...given });
    return { collector, clock, storage, open, fetches };
  };
}
