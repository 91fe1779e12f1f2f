// The calls of Segment's analytics.js, for pages that were written for it:
// https://segment.com/docs/connections/sources/catalog/libraries/website/javascript/

import { analytics as standard } from "./index";
import type { Analytics, EventOptions, Values } from "./types";

type Loose = any;

/**
 * Return an object with the methods of analytics.js, which hands all to *client*.
 *
 * What differs: `integrations` and middlewares are ignored, `setAnonymousId` holds for this page; `identify` without a user keeps the traits for the one
 * that names it; a callback is called, and a promise settled, once the event is taken.
 */
export function segment(client: Analytics & { init?: Loose } = standard): Loose {
  let userId: string | undefined;
  // Empty unless the page has chosen one; else the client's own holds.
  let ids: { anonymousId?: string } = {};
  let traits: Values = {};
  const setAnonymousId = (id?: string) => (ids = id ? { anonymousId: id } : ids).anonymousId;
  const isText = (value: Loose) => typeof value == "number" || typeof value == "string";

  /** Hand the texts of *args*, and after them the two objects, to *work*. */
  async function call(
    args: Loose[],
    work: (texts: Loose[], values: Values, given: EventOptions) => unknown,
  ) {
    const texts = args.filter(isText);
    const [values, options] = args.filter((value, index) =>
      // Behind a text null stands for an object. What has `__t` is from Segment's snippet itself.
      value ? typeof value == "object" && !value.__t : texts.length && index >= texts.length,
    );
    const { integrations, messageId, ...given } = { ...ids, ...options };
    work(texts, values, given);
    for (const value of args) if (typeof value == "function") setTimeout(value);
  }

  function seen(method: "page" | "screen", args: Loose[]) {
    return call(args, ([first, second], values, given) => {
      // One text is the name; of two the first is the category.
      client[method](second || first, second ? { category: first, ...values } : values, given);
    });
  }

  /** Track *event* with each of *targets*; it survives where they lead to. */
  function trackAt(type: string, targets: Loose, event: Loose, properties: Loose) {
    const of = (value: Loose, target: Loose) =>
      typeof value == "function" ? value(target) : value;
    for (const target of targets && targets.addEventListener ? [targets] : targets || []) {
      target.addEventListener(type, () => client.track(of(event, target), of(properties, target)));
    }
  }

  const facade: Loose = {
    // What the snippet asks before it hands a call on.
    initialize: true,
    initialized: true,
    load: (apiKey: string, options?: Values) => client.init({ apiKey, ...options }),
    track: (...args: Loose[]) =>
      call(args, ([event], values, given) => client.track(event, values, given)),
    page: (...args: Loose[]) => seen("page", args),
    pageview: () => seen("page", []),
    screen: (...args: Loose[]) => seen("screen", args),
    identify: (...args: Loose[]) =>
      call(args, ([id], values, given) => {
        if (id && userId && id != userId) traits = {};
        traits = { ...traits, ...values };
        userId = id || userId;
        if (userId) client.identify(userId, traits, given);
      }),
    group: (...args: Loose[]) =>
      call(args, ([id], values, given) => isText(id) && client.group(id, values, given)),
    alias: (...args: Loose[]) =>
      // It has no values of its own.
      call([{}, ...args], ([id, previousId = userId || ids.anonymousId], _, given) => {
        userId = id;
        client.alias(previousId, id, given);
      }),
    reset() {
      userId = undefined;
      traits = ids = {};
      client.reset();
    },
    setAnonymousId,
    user: () => ({
      id: () => userId,
      traits: () => traits,
      anonymousId: setAnonymousId,
    }),
    ready: (work: () => void) => setTimeout(work),
  };
  facade.trackLink = facade.trackClick = trackAt.bind(null, "click");
  facade.trackForm = facade.trackSubmit = trackAt.bind(null, "submit");
  // What we have no use for must not fail.
  for (const name of ["on", "once", "off", "debug", "register"]) facade[name] = () => facade;
  for (const what of ["Source", "Integration", "Destination"])
    facade[`add${what}Middleware`] = facade.on;
  return facade;
}

/** Put `segment(client)` in the place of `window.analytics`, and do what its snippet has queued. */
export function install(client?: Analytics): Loose {
  const page: Loose = globalThis;
  const early: Loose = page.analytics;
  const facade = segment(client);
  page.analytics = facade;
  for (const [method, ...args] of Array.isArray(early) ? early : []) {
    if (facade[method]) facade[method](...args);
  }
  return facade;
}
