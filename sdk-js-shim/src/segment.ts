// The calls of Segment's analytics.js, for pages that were written for it:
// https://segment.com/docs/connections/sources/catalog/libraries/website/javascript/

import { analytics as standard } from "./index";
import type { Analytics, EventOptions, Values } from "./types";

type Loose = any;

/**
 * Return an object with the methods of analytics.js, which hands all to *client*.
 *
 * What differs: `integrations` are ignored; `identify` without a user keeps the traits for the one
 * that names it; a callback is called once the event is taken.
 */
export function segment(client: Analytics & { init?: Loose } = standard): Loose {
  let userId: string | undefined;
  let anonymousId: string | undefined;
  let traits: Values = {};
  const sayDone = (args: Loose[]) => {
    const done = args.find((value) => typeof value == "function");
    if (done) setTimeout(done);
  };
  const isText = (value: Loose) => typeof value == "string" || typeof value == "number";

  /** Hand the texts of *args*, and after them the two objects, to *work*. */
  function call(
    args: Loose[],
    work: (texts: Loose[], values: Values, given: EventOptions) => void,
  ) {
    const [values, options = {}] = args.filter((value) => value && typeof value == "object");
    const { context, timestamp } = options;
    work(args.filter(isText), values, {
      context,
      timestamp,
      anonymousId: options.anonymousId || anonymousId,
      ...(options.userId && { userId: options.userId }),
    });
    sayDone(args);
  }

  function seen(method: "page" | "screen", args: Loose[]) {
    call(args, ([first, second], values, given) => {
      // One text is the name; of two the first is the category.
      if (second == null) client[method](first, values, given);
      else client[method](second, { category: first, ...values }, given);
    });
  }

  /** Track *event* with each of *targets*; it survives where they lead to. */
  function trackAt(type: string, targets: Loose, event: Loose, properties: Loose) {
    const of = (value: Loose, target: Loose) =>
      typeof value == "function" ? value(target) : value;
    for (const target of targets.addEventListener ? [targets] : targets) {
      target.addEventListener(type, () => client.track(of(event, target), of(properties, target)));
    }
  }

  const facade: Loose = {
    initialize: true,
    load: (apiKey: string, options?: Values) => client.init({ apiKey, ...options }),
    track: (...args: Loose[]) =>
      call(args, ([event], values, given) => client.track(event, values, given)),
    page: (...args: Loose[]) => seen("page", args),
    screen: (...args: Loose[]) => seen("screen", args),
    identify: (...args: Loose[]) =>
      call(args, ([id], values, given) => {
        if (id != null && userId != null && id != userId) traits = {};
        traits = { ...traits, ...values };
        userId = id ?? userId;
        if (userId != null) client.identify(userId, traits, given);
      }),
    group: (...args: Loose[]) =>
      call(args, ([id], values, given) => client.group(id, values, given)),
    alias: (...args: Loose[]) =>
      call(args, ([id, previousId = userId ?? anonymousId], _, given) => {
        userId = id;
        client.alias(previousId, id, given);
      }),
    reset() {
      userId = anonymousId = undefined;
      traits = {};
      client.reset();
    },
    setAnonymousId: (id: string) => (anonymousId = id),
    user: () => ({
      id: () => userId,
      traits: () => traits,
      anonymousId: (id?: string) => (anonymousId = id || anonymousId),
    }),
    ready: (work: () => void) => setTimeout(work),
    trackLink: (...args: [Loose, Loose, Loose]) => trackAt("click", ...args),
    trackForm: (...args: [Loose, Loose, Loose]) => trackAt("submit", ...args),
  };
  facade.trackClick = facade.trackLink;
  facade.trackSubmit = facade.trackForm;
  // What we have no use for must not fail.
  for (const name of [
    "on",
    "once",
    "off",
    "debug",
    "timeout",
    "addSourceMiddleware",
    "addIntegrationMiddleware",
  ]) {
    facade[name] = () => facade;
  }
  return facade;
}

/** Put `segment(client)` in the place of `window.analytics`, and do what its snippet has queued. */
export function install(client?: Analytics): Loose {
  const page: Loose = window;
  const early: Loose = page.analytics;
  const facade = segment(client);
  page.analytics = facade;
  for (const [method, ...args] of Array.isArray(early) ? early : []) {
    if (facade[method]) facade[method](...args);
  }
  return facade;
}
