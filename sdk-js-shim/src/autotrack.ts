// What a page does by itself: routes, marked clicks, forms, links that lead away, scrolling, vitals.

import type { Analytics, Values } from "./types";

export interface AutotrackOptions {
  /** A `page` event now and for each route after it; default true. */
  pages?: boolean;
  /** An event for each click on an element with `data-track="name"`; default true. */
  clicks?: boolean;
  /** `form_submitted`, without what stands in it; default true. */
  forms?: boolean;
  /** `outbound_link_clicked`; default true. */
  outbound?: boolean;
  /** `scroll_depth_reached` at 25, 50, 75 and 100 % of a page; default true. */
  scroll?: boolean;
  /** `web_vitals_measured` when the page is hidden for the first time; default true. */
  vitals?: boolean;
}

const DEPTHS = [25, 50, 75, 100];

/**
 * Track what the page does by itself, until the function that is returned is called.
 *
 * Without a DOM nothing happens.
 */
export function autotrack(
  analytics: Pick<Analytics, "track" | "page">,
  options: AutotrackOptions = {},
): () => void {
  if (typeof document == "undefined") return () => {};
  const undo: (() => void)[] = [];
  const wants = (what: keyof AutotrackOptions) => options[what] !== false;

  function listen(target: EventTarget, type: string, work: (event: any) => unknown) {
    const options = { capture: true, passive: true };
    const listener = (event: Event) => {
      try {
        work(event);
      } catch {
        // Odd markup is no reason for an error of the page.
      }
    };
    target.addEventListener(type, listener, options);
    undo.push(() => target.removeEventListener(type, listener, options));
  }

  let depth = 0;
  if (wants("pages")) {
    let seen: string;
    let isOver = false;
    const look = () => {
      // Some routers have their routes behind the hash; else it names a place of the same page.
      const [hash = ""] = /^#!?\/.*/.exec(location.hash) || [];
      const route = location.pathname + location.search + hash;
      // Routers replace and push in one go, and some push twice. What a browser renders ahead may
      // never be seen.
      if (route == seen || isOver || (document as any).prerendering) return;
      seen = route;
      depth = 0;
      analytics.page();
    };
    // The title is changed after the route.
    const lookSoon = () => setTimeout(look);
    // Not at once: React's strict mode begins twice, and ends what it began first.
    lookSoon();
    listen(document, "prerenderingchange", look);
    listen(window, "popstate", lookSoon);
    undo.push(follow(lookSoon), () => (isOver = true));
  }

  if (wants("clicks") || wants("outbound")) {
    const click = ({ target }: { target: Element }) => {
      // What a form has is for when it is submitted.
      const marked: HTMLElement | null =
        wants("clicks") && closest(target, "[data-track]:not(form)");
      const link: HTMLAnchorElement | null = closest(target, "a[href]");
      if (marked) analytics.track(marked.dataset.track!, propertiesOf(marked));
      else if (link && wants("outbound") && /^http/.test(link.href) && link.host != location.host) {
        // Without its query, which may hold what is nobody's business.
        analytics.track("outbound_link_clicked", {
          url: link.origin + link.pathname,
          host: link.host,
        });
      }
    };
    listen(document, "click", click);
    // The middle button opens links, and does nothing else.
    listen(
      document,
      "auxclick",
      (event) => event.button == 1 && closest(event.target, "a[href]") && click(event),
    );
  }

  if (wants("forms")) {
    listen(document, "submit", ({ target }: { target: HTMLFormElement }) => {
      const get = (name: string) => target.getAttribute(name) || undefined;
      analytics.track(get("data-track") || "form_submitted", {
        ...propertiesOf(target),
        formId: get("id"),
        formName: get("name"),
        action: get("action") && new URL(get("action")!, location.href).pathname,
      });
    });
  }

  if (wants("scroll")) {
    listen(document, "scroll", ({ target }: { target: Node }) => {
      // Boxes within the page scroll, too.
      if (target != document) return;
      const { scrollHeight } = document.documentElement;
      const percent = Math.ceil(((scrollY + innerHeight) / scrollHeight) * 100);
      for (const mark of DEPTHS) {
        if (mark > depth && mark <= percent) {
          depth = mark;
          analytics.track("scroll_depth_reached", { percent: mark });
        }
      }
    });
  }

  if (wants("vitals"))
    undo.push(measureVitals(listen, (found) => analytics.track("web_vitals_measured", found)));

  return () => undo.splice(0).forEach((work) => work());
}

/** Call *work* after each new route of the history; return what ends that. */
function follow(work: () => void): () => void {
  const push = history.pushState;
  let ended = false;
  const ours: typeof push = function (this: History, ...args) {
    push.apply(this, args);
    if (!ended) work();
  };
  history.pushState = ours;
  return () => {
    ended = true;
    // Whoever has wrapped ours meanwhile keeps it, at rest.
    if (history.pushState == ours) history.pushState = push;
  };
}

function closest(target: Element, selector: string): any {
  return target.closest ? target.closest(selector) : null;
}

/** Return what `data-track-order-id="7"` and the like say: `{orderId: "7"}`. */
function propertiesOf({ dataset }: HTMLElement): Values {
  const found: Values = {};
  for (const name in dataset) {
    const [, first, rest] = /^track([A-Z])(.*)/.exec(name) || [];
    if (first) found[first.toLowerCase() + rest] = dataset[name];
  }
  return found;
}

/**
 * Measure the Core Web Vitals and two more, as https://web.dev/articles/vitals defines them, in ms
 * (`cls` has no unit; `inp` is the slowest), and report them once, when the page is hidden.
 */
function measureVitals(
  listen: (target: EventTarget, type: string, work: () => void) => void,
  report: (found: Values) => void,
): () => void {
  const found: Record<string, number> = {};
  const ends: ((isReading?: boolean) => void)[] = [];
  let shift = 0;
  let began = 0;
  let last = 0;

  function observe(type: string, read: (entry: any) => void) {
    const { supportedEntryTypes = [] }: any = globalThis.PerformanceObserver || {};
    // Nothing is drawn, and so nothing is slow, before somebody looks.
    if (!supportedEntryTypes.includes(type) || document.hidden) return false;
    const observer = new PerformanceObserver((list) => list.getEntries().forEach(read));
    observer.observe({ type, buffered: true, durationThreshold: 40 } as any);
    ends.push((isReading) => {
      if (isReading) observer.takeRecords().forEach(read);
      observer.disconnect();
    });
    return true;
  }

  observe("navigation", (entry) => (found.ttfb = entry.responseStart));
  observe("paint", (entry) => {
    if (entry.name == "first-contentful-paint") found.fcp = entry.startTime;
  });
  observe("largest-contentful-paint", (entry) => (found.lcp = entry.startTime));
  observe("event", (entry) => {
    if (entry.interactionId) found.inp = Math.max(found.inp || 0, entry.duration);
  });
  const readsShifts = observe("layout-shift", (entry) => {
    if (entry.hadRecentInput) return;
    // Shifts belong to one window if less than 1 s apart, of 5 s at most; the worst window counts.
    if (entry.startTime - last > 1000 || entry.startTime - began > 5000) {
      shift = 0;
      began = entry.startTime;
    }
    last = entry.startTime;
    shift += entry.value;
    found.cls = Math.max(found.cls, shift);
  });
  if (readsShifts) found.cls = 0;

  const end = (isReading?: boolean) => ends.splice(0).forEach((work) => work(isReading));
  listen(document, "visibilitychange", () => {
    if (!ends.length || !document.hidden) return;
    end(true);
    report(found);
  });
  return end;
}
