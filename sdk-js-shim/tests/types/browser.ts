// What TypeScript lets users of the browser's modules write, and what it does not.

import {
  analytics,
  init,
  type Analytics,
  type AnalyticsEvent,
  type EventOptions,
  type Options,
  type OutboxStorage,
  type Rejection,
  type Stats,
  type Values,
} from "@4onstudios/analytics-js";
import { autotrack } from "@4onstudios/analytics-js/autotrack";
import { install, segment } from "@4onstudios/analytics-js/compat/segment";

const options: Options = {
  apiKey: "k",
  apiUrl: "https://collector.example",
  batchSize: 20,
  flushInterval: "2000",
  denyProperties: ["password"] as const,
  beforeSend: (event: AnalyticsEvent) => (event.name === "secret" ? null : event),
  onError: ({ code, message, event }: Rejection) => console.warn(code, message, event.messageId),
  storage: localStorage satisfies OutboxStorage,
};
const client: Analytics = init(options);
const same: Analytics = analytics.init({
  projectId: "k",
  endpoint: "/collector",
  batchInterval: 1,
});

const given: EventOptions = { timestamp: new Date(), userId: null };
const values: Values = { price: 9.5, tags: ["a"], when: new Date() };
const taken: boolean = client.track("bought", values, given);
analytics.page() && analytics.screen("Home") && same.page("Shop", { tab: 1 });
analytics.identify(7, { plan: "pro" });
analytics.group("acme");
analytics.alias("before", "after");
const settled: Promise<void> = client.flush();
const { taken: count, queued }: Stats = client.stats();
const end: () => void = autotrack(client, { vitals: false });
segment(client).track("bought");
install();
export { count, end, queued, settled, taken };

// @ts-expect-error an event has a name
client.track();
// @ts-expect-error and that is text
client.track({ name: "bought" });
// @ts-expect-error properties have names
analytics.track("bought", "blue");
// @ts-expect-error there is no such method
analytics.tarck("bought");
// @ts-expect-error who is it
analytics.identify();
// @ts-expect-error an alias has two ids
analytics.alias("before");
// @ts-expect-error there is no such option
init({ apiKey: "k", batchsize: 10 });
// @ts-expect-error it is a number
init({ apiKey: "k", batchSize: [] });
// @ts-expect-error a hook returns the event or nothing
init({ apiKey: "k", beforeSend: () => "no" });
// @ts-expect-error there is no such part of an event
client.track("bought", {}, { user: "7" });
// @ts-expect-error the counters are read only through `stats()`
client.stats.taken++;
// @ts-expect-error there is nothing of that kind to track
autotrack(client, { keystrokes: true });
