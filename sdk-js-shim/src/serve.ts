// The client that everybody on a page shares.

import { createClient } from "./client";
import type { Options } from "./types";

/**
 * Make *analytics* a client that takes nothing, and says so by `false`, until its `init` is called;
 * the one that it was before stops then.
 */
export function serve(analytics: any): any {
  analytics.init = (options?: Options) => {
    if (analytics.stop) analytics.stop();
    return Object.assign(analytics, createClient(options));
  };
  return analytics.init();
}
