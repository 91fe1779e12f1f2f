// What TypeScript lets users of the Node and React modules write, and what it does not.

import { init as initPage, type Analytics } from "@4onstudios/analytics-js";
import { init, type NodeOptions } from "@4onstudios/analytics-js/node";
import { AnalyticsProvider, useAnalytics, usePage } from "@4onstudios/analytics-js/react";
import { createElement } from "react";

const options: NodeOptions = { apiKey: "k", outbox: "/var/lib/shop", shutdownTimeout: 500 };
const client: Analytics = init(options);
export const tree = createElement(AnalyticsProvider, { client }, "shop");
export const seen: boolean = useAnalytics().track("seen");
usePage("Shop", { tab: 1 });
init({ apiKey: "k", fetch });
init({ apiKey: "k", fetch: (url, request) => fetch(url, { ...request, keepalive: false }) });

// @ts-expect-error a folder has a path
init({ apiKey: "k", outbox: true });
// @ts-expect-error an answer has a status
init({ apiKey: "k", fetch: async () => ({ text: () => "" }) });
// @ts-expect-error a page has no folder
initPage({ apiKey: "k", outbox: "/var/lib/shop" });
// @ts-expect-error a tree wants a client
createElement(AnalyticsProvider, {});
// @ts-expect-error a page's name is text
usePage(7);
