// The package's door: `init` makes a client, and `analytics` is the one that was made last.

import { createClient } from "./client";
import type { Analytics, Options } from "./types";

export type * from "./types";

let client: any;
const early: [method: string, args: unknown[]][] = [];

/** The default client: its methods may be called before `init`, and are done then. */
export const analytics: Analytics & { init(options: Options): Analytics } = {
  init(options: Options): Analytics {
    if (client) client.stop();
    client = createClient(options);
    early.splice(0).forEach(([method, args]) => client[method](...args));
    return client;
  },
} as any;
for (const method in createClient({})) {
  (analytics as any)[method] = (...args: unknown[]) =>
    client ? client[method](...args) : void early.push([method, args]);
}

export const { init } = analytics;
