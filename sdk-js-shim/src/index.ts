// The package's door: a default client for most, `createClient` for a second project on a page.

import { createClient } from "./client";
import { serve } from "./serve";
import type { Analytics, Options } from "./types";

export type * from "./types";
export { createClient };

/** The default client. */
export const analytics: Analytics & { init(options: Options): Analytics } = serve({});

/** Make `analytics` a client with these options. */
export const init = analytics.init;
