// One client: takes events, keeps them in the outbox, and delivers them. All of it is one closure,
// since names of locals cost nothing in a minified file and names of members do.

import type { Analytics, EventOptions, Options, Values } from "./types";
import { time, uuid } from "./uuid";
import { Action, decide, type Refusal } from "./verdict";

declare const VERSION: string;

const MAX_EVENT_CHARS = 102_400;
const MAX_OUTBOX_CHARS = 5e5;
// Browsers give all keepalive requests together 64 KiB; a character takes up to 3 bytes. So many
// characters hold fewer events than the 500 that a batch may have.
const KEEPALIVE_CHARS = 2e4;
const REQUEST_TIMEOUT_MS = 1e4;
const SESSION_IDLE_MS = 18e5;
const SESSION_MAX_MS = 864e5;
const EXPIRY_MS = 2592e6;
// A page says so often that it lives, and looks after others.
const ROUND_MS = 15e3;
// How long after its last word others leave alone what it keeps: timers of hidden tabs run once a
// minute.
const LEASE_MS = 15e4;
// The same once it has gone with a request under way.
const PARTING_LEASE_MS = 1e4;
// A tab sees what another wrote only a moment after it got the lock.
const LOCK_MS = 1e3;
// What of the address tells of a campaign.
const CAMPAIGN = /^utm_|(clk?id|braid|li_fat_id)$/;

/** What is remembered of the visitor. */
interface Visitor {
  anonymousId: string;
  userId?: string | number;
  sessionId?: string;
  /** When the last event was: ms since 1970. */
  last?: number;
  /** What brought the visitor last, and what the first time. */
  campaign?: Values;
  firstTouch: Values;
}

/** Make a client. */
export function createClient(options: Options = {}): Analytics {
  const {
    document = {},
    navigator = {},
    location = {},
    screen: { width, height } = {} as any,
  }: any = globalThis;
  const key: any = options.apiKey || options.projectId;
  const url = `${options.apiUrl || options.endpoint || ""}`.replace(/\/+$/, "") + "/api/v1/events";
  const flushInterval = options.flushInterval || options.batchInterval || 5000;
  const batchSize: any = options.batchSize || 10;
  const denied = ("" + options.denyProperties).split(/, */);
  const prefix = `analytics:${key}:`;
  const ownName = uuid();
  const timezone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const later: any = options.later || setTimeout;
  const stats = {
    taken: 0,
    delivered: 0,
    dropped: 0,
    expired: 0,
    refused: 0,
    rejected: 0,
    adopted: 0,
  };
  const storage: any = safely(() => key && (options.storage || localStorage));

  let visitor: unknown;
  let campaign: Values | undefined;
  // The JSON of each event that waits, and of those under way.
  let queue: string[] = [];
  let away: string[] = [];
  let waiters: [events: string[], settle: () => void][] = [];
  let limit = KEEPALIVE_CHARS;
  let attempt = 0;
  let hurry: unknown;
  let held: unknown;
  let leaving: unknown;
  let keeping: any;
  let timer: any;
  // On a server that renders pages there is nobody to watch.
  let stopped: unknown = !key || !(location.href || options.storage);
  let out =
    options.optOut ||
    (options.doNotTrack && (navigator.globalPrivacyControl || navigator.doNotTrack == 1))
      ? "1"
      : "0";

  /** Return what *work* does; nothing if it fails, for it may and nobody must notice. */
  function safely(work: () => unknown): unknown {
    try {
      return work();
    } catch (error) {
      say(error);
    }
  }

  function say(...words: unknown[]) {
    if (options.debug) console.warn(...words);
  }

  const all = () => away.concat(queue);
  const isOut = () => (get("out") || out) > 0;

  // What the browser keeps

  const get = (name: string): any => safely(() => storage.getItem(prefix + name));
  const set = (name: string, value?: unknown): any =>
    safely(() => storage[value ? "setItem" : "removeItem"](prefix + name, value));

  // Who it is

  for (let [name, value] of new URLSearchParams(location.search)) {
    if (CAMPAIGN.test(name)) {
      name = name.replace("utm_campaign", "name").replace("utm_", "");
      campaign = { ...campaign, [name]: value };
    }
  }

  function see(userId?: string | number): Visitor {
    const now = Date.now();
    const before = get("id");
    const seen: Visitor = {
      firstTouch: { ...campaign, referrer: document.referrer },
      ...((visitor || safely(() => JSON.parse(before))) as any),
    };
    seen.anonymousId ||= uuid();
    if (
      // An id tells when the session began.
      !(now - seen.last! < SESSION_IDLE_MS && seen.sessionId! > time(SESSION_MAX_MS)) ||
      (campaign && JSON.stringify(campaign) != JSON.stringify(seen.campaign))
    ) {
      seen.sessionId = uuid();
    }
    // Once a task is enough, for writing costs more than all else.
    seen.last = (keeping && seen.last) || now;
    seen.campaign = campaign || seen.campaign;
    // It counts once: other tabs have others.
    campaign = undefined;
    if (userId! > "") seen.userId = userId;
    const json = JSON.stringify(seen);
    if (json != before) {
      set("id", json);
      // What could not be written down is known until it can.
      visitor = get("id") != json && seen;
      setCookies(seen);
    }
    return seen;
  }

  function setCookies(seen: any) {
    safely(
      () =>
        options.cookies &&
        ["anonymous", "session"].map((kind, index) => {
          const id = seen[kind + "Id"];
          document.cookie = `analytics_${kind}_id=${id};path=/;samesite=lax;max-age=${id ? (index ? SESSION_IDLE_MS / 1e3 : 34560000) : 0}`;
        }),
    );
  }

  function reset() {
    visitor = 0;
    set("id");
    setCookies({});
  }

  // What happened

  function take(members: any, given?: EventOptions): boolean {
    const isTaken = safely(() => {
      if (stopped || isOut()) return;
      const seen = see(members.userId);
      const own = copy(given);
      let event: any = {
        sessionId: seen.sessionId,
        userId: seen.userId,
        anonymousId: seen.anonymousId,
        timestamp: new Date(),
        ...members,
        ...own,
        context: {
          timezone,
          campaign: seen.campaign,
          firstTouch: seen.firstTouch,
          library: { name: "analytics-js", version: VERSION },
          locale: navigator.language,
          page: {
            title: document.title,
            url: location.href,
            path: location.pathname,
            search: location.search,
            referrer: document.referrer,
          },
          screen: { width, height },
          ...own.context,
        },
      };
      for (const name in event) {
        if (/Id$/.test(name) && event[name] != null) event[name] += "";
      }
      if (options.beforeSend) event = options.beforeSend(event);
      const json = `{"messageId":"${uuid()}",${JSON.stringify(event).slice(1)}`;
      if (event && json.length <= MAX_EVENT_CHARS) {
        stats.taken++;
        queue.push(json);
        keep();
        return 1;
      }
      say("refused", members.type);
    });
    return !!isTaken || !++stats.refused;
  }

  const named = (type: string) => (name?: string, properties?: Values, given?: EventOptions) =>
    take({ type, name, properties: copy(properties) }, given);

  /** Return what of *values* may go; one that JSON can't hold costs nothing but itself. */
  function copy(values: any): any {
    const found: Values = {};
    safely(() => {
      for (const name in values) {
        safely(() => {
          if (!denied.includes(name)) {
            found[name] = JSON.parse(
              JSON.stringify(values[name], (_, value) =>
                typeof value == "bigint" ? "" + value : value,
              ),
            );
          }
        });
      }
    });
    return found;
  }

  // What waits

  /** Go on once the caller is done, so that a burst of events is written down at once. */
  function keep() {
    keeping = keeping || Promise.resolve().then(goOn);
  }

  /** Write down what waits, tell those whose events do no more, and send if there is reason to. */
  function goOn() {
    keeping = 0;
    let chars = all().join().length;
    queue = queue.filter(
      (json) => chars <= MAX_OUTBOX_CHARS || ((chars -= json.length), !++stats.dropped),
    );
    const events = all();
    const lease = leaving ? away.length && PARTING_LEASE_MS : LEASE_MS;
    set(ownName, events.length && [Date.now() + lease, ...events].join("\n"));
    waiters = waiters.filter(
      ([own, done]) => (!stopped && events.some((event) => own.includes(event))) || done(),
    );
    if (!attempt && !stopped) {
      if (leaving || hurry || queue.length >= batchSize) send(leaving);
      else if (!timer && !away[0]) timer = later(send, flushInterval);
    }
  }

  /** Say that this page lives, and take over what those have left that do not. */
  function round() {
    if (stopped) return;
    later(round, ROUND_MS);
    const adopt = (lock?: unknown) => {
      keep();
      // null: another page is at it. undefined: this browser knows no locks.
      if (lock !== null) {
        safely(() => {
          // All names first, for removing one stirs the others.
          for (const key of Array.from(storage, (_, index) => storage.key(index)).reverse()) {
            const [before, name] = key.split(prefix);
            // The other names are words.
            if (!before && name < "a" && name != ownName) {
              const [lease, ...left] = get(name).split("\n");
              // What does not fit is left to a later round.
              if (
                !(lease > Date.now() && lease <= Date.now() + LEASE_MS) &&
                `${left}${queue}`.length <= MAX_OUTBOX_CHARS
              ) {
                set(name);
                stats.adopted += left.length;
                queue.unshift(...left);
                hurry = 1;
              }
            }
          }
        });
        return new Promise<void>((done) => later(done, LOCK_MS));
      }
    };
    if (navigator.locks) navigator.locks.request(prefix, { ifAvailable: true }, adopt).catch(say);
    else adopt();
  }

  // How it goes

  async function send(isForced?: unknown) {
    if (stopped || held || (away[0] && !isForced)) return;
    clearTimeout(timer);
    timer = 0;
    // An event begins with its message id, and that with the time.
    const oldest = `{"messageId":"${time(EXPIRY_MS)}`;
    queue = queue.filter((json) => json > oldest || !++stats.expired);
    let count = Math.min(queue.length, limit);
    if (!count) return (hurry = attempt = 0);
    if (isOut()) return forget();
    let batch: string[];
    do batch = queue.slice(0, count);
    while (`${batch}${away}`.length > KEEPALIVE_CHARS && (count >>= 1));
    queue.splice(0, batch.length);
    away.push(...batch);
    let status: any;
    let text: any;
    let retryAfter: any;
    const abort = new AbortController();
    try {
      later(() => abort.abort(), REQUEST_TIMEOUT_MS);
      const answer = await (options.fetch || fetch)(url, {
        method: "POST",
        headers: { "content-type": "application/json", "x-api-key": key },
        body: `{"batch":[${batch}],"sentAt":${JSON.stringify(new Date())}}`,
        keepalive: ("" + away).length <= KEEPALIVE_CHARS,
        redirect: "manual",
        signal: abort.signal,
      });
      // Unread, it would count against the 64 KiB.
      text = await answer.text();
      status = answer.status;
      retryAfter = answer.headers.get("retry-after");
    } catch {
      // No answer, or half of one.
    }
    if (status != 202) say(status, text);
    const [action, refusals, delay, floor] = decide(
      status,
      safely(() => JSON.parse(text)) || 0,
      retryAfter,
      batch,
      ++attempt,
    );
    batch.map((json, index) => {
      const refusal = refusals[index];
      const place = away.indexOf(json);
      // Else it was dropped meanwhile.
      if (place >= 0 && (refusal || !action)) {
        away.splice(place, 1);
        stats[refusal ? "rejected" : "delivered"]++;
        if (refusal) {
          safely(() => (options.onError || say)({ ...refusal, event: JSON.parse(json) }));
        }
      }
    });
    queue.unshift(...batch.filter((json) => away.includes(json)));
    away = away.filter((json) => !batch.includes(json));
    hurry = hurry || action;
    limit = action == Action.Split ? batch.length >> 1 : KEEPALIVE_CHARS;
    if (action == Action.Again) {
      held = 1;
      later(() => (held = 0), floor);
      timer = later(send, delay);
    } else {
      attempt = 0;
    }
    goOn();
  }

  function forget() {
    stats.dropped += all().length;
    queue = [];
    away = [];
    attempt = 0;
    reset();
    goOn();
  }

  /** Another tab, another page, or the network is back. */
  function turn({ type }: { type: string }) {
    if (stopped) return removeEventListener(type, turn as any);
    leaving = type == "pagehide" || (document.hidden && leaving);
    send(leaving || document.hidden);
    goOn();
  }

  if (!stopped) {
    later(round, 1e3);
    safely(() =>
      ["visibilitychange", "pagehide", "online"].map((type: any) => addEventListener(type, turn)),
    );
  }

  return {
    screen: named("screen"),
    track: named("track"),
    page: named("page"),
    identify: (userId, traits, given) =>
      take({ type: "identify", userId, traits: copy(traits) }, given),
    group: (groupId, traits, given) =>
      take({ type: "group", groupId, traits: copy(traits) }, given),
    alias: (previousId, userId, given) => take({ type: "alias", previousId, userId }, given),
    reset,
    flush: () =>
      new Promise((done) => {
        waiters.push([all(), done]);
        hurry = 1;
        send();
        goOn();
      }),
    optOut() {
      set("out", (out = "1"));
      forget();
    },
    optIn: () => set("out", (out = "0")) as any,
    stop() {
      leaving = 1;
      send(1);
      stopped = 1;
      goOn();
    },
    stats: () => ({ ...stats, queued: all().length }),
  };
}
