/** JSON, or what becomes JSON: dates, big integers, objects with `toJSON`. */
export type Values = Record<string, unknown>;

/** What stands in one event beside what its method takes. */
export interface EventOptions {
  userId?: string | number | null;
  anonymousId?: string | null;
  sessionId?: string | null;
  timestamp?: string | Date;
  context?: Values;
}

/** One event as it goes over the wire. */
export interface AnalyticsEvent {
  /** Given once the event is taken: `beforeSend` does not see it. */
  messageId?: string;
  type: "track" | "identify" | "page" | "screen" | "group" | "alias";
  name?: string;
  userId?: string;
  anonymousId?: string;
  sessionId?: string;
  groupId?: string;
  previousId?: string;
  timestamp?: string | Date;
  properties?: Values;
  traits?: Values;
  context: Values;
  [member: string]: unknown;
}

/** An event that the collector refused for good, and why. */
export interface Rejection {
  code: string;
  message: string;
  event: AnalyticsEvent;
}

/** Where events wait over reloads: what of `localStorage` is used. */
export interface OutboxStorage {
  readonly length: number;
  key(index: number): string | null;
  getItem(key: string): string | null;
  setItem(key: string, value: string): unknown;
  removeItem(key: string): unknown;
}

/** What `fetch` is told beside the URL. */
export interface BatchRequest {
  method: string;
  headers: Record<string, string>;
  body: string;
  keepalive: boolean;
  redirect: "manual";
  /** Gives the request up after 10 s. */
  signal: AbortSignal;
}

/** What of the answer of `fetch` is used. */
export interface BatchAnswer {
  status: number;
  headers: { get(name: string): string | null };
  text(): string | Promise<string>;
}

export interface Options {
  /** The project's key, with the scope `ingest`. */
  apiKey?: string;
  /** Where the collector is; default: where the page is from. */
  apiUrl?: string;
  /** Send when so many events wait; default 10. */
  batchSize?: number | string;
  /** Send when an event has waited so long, in ms; default 5,000. */
  flushInterval?: number | string;
  /** Say on the console what is refused, and why. */
  debug?: boolean | string;
  /** Take nothing until `optIn()`, which is remembered. */
  optOut?: boolean | string;
  /** Take nothing from browsers that ask not to be tracked (Do Not Track, Global Privacy Control). */
  doNotTrack?: boolean | string;
  /** Tell the page's server who the visitor is, by two cookies of this host. */
  cookies?: boolean | string;
  /** Properties and traits that must not go; a text has them with commas between. */
  denyProperties?: readonly string[] | string;
  /** Change an event, or keep it back by returning nothing. */
  beforeSend?: (event: AnalyticsEvent) => AnalyticsEvent | null | undefined | void | false;
  /** Hear of each event that the collector refused for good. */
  onError?: (rejection: Rejection) => void;
  /** Where events wait; default: `localStorage`, else memory. */
  storage?: OutboxStorage;
  /** How to wait; default: `setTimeout`. */
  later?: (work: () => void, ms: number) => unknown;
  /** How to send a batch, obeying `signal`; default: the global `fetch`. */
  fetch?: (url: string, request: BatchRequest) => Promise<BatchAnswer>;
  /** Another name of `apiUrl`. */
  endpoint?: string;
  /** Another name of `apiKey`. */
  projectId?: string;
  /** Another name of `flushInterval`. */
  batchInterval?: number | string;
}

/** What became of the events of this page: taken + adopted = all the others but `refused`. */
export interface Stats {
  taken: number;
  /** Taken over from pages that ended. */
  adopted: number;
  delivered: number;
  queued: number;
  rejected: number;
  expired: number;
  /** Gone because too much waited, or by `optOut()`. */
  dropped: number;
  /** Never taken: opted out, too large, or kept back by `beforeSend`. */
  refused: number;
}

/** Each method that takes an event returns whether it was taken, and never throws. */
export interface Analytics {
  track(name: string, properties?: Values, options?: EventOptions): boolean;
  page(name?: string, properties?: Values, options?: EventOptions): boolean;
  screen(name?: string, properties?: Values, options?: EventOptions): boolean;
  /** Tell who the visitor is; later events have this `userId`. */
  identify(userId: string | number, traits?: Values, options?: EventOptions): boolean;
  group(groupId: string | number, traits?: Values, options?: EventOptions): boolean;
  /** Tell that *userId* was known as *previousId* before. */
  alias(previousId: string | number, userId: string | number, options?: EventOptions): boolean;
  /** Forget the visitor, after a log-out: another `anonymousId`, another session. */
  reset(): void;
  /**
   * Send now; settles when every event taken before has its outcome. In Node also after 10 s
   * without a delivery: `stats().queued` tells what still waits.
   */
  flush(): Promise<void>;
  /** Take no more events, forget the visitor and what waits; remembered. */
  optOut(): void;
  /** Take events again; remembered. */
  optIn(): void;
  /** Take nothing more, send what one request holds (in Node: all), end timers and listeners. */
  stop(): void;
  stats(): Stats;
}
