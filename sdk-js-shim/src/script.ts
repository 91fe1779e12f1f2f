// The script build: `window.analytics`, with settings from the `data-` attributes of its tag.

import { serve } from "./serve";

const page: any = window;
const tag: any = document.currentScript;
// What the snippet has put there stays the same object, for somebody may hold it.
const analytics = (page.analytics = serve(page.analytics || {}));
// Without a key it is inert, until somebody calls `init`.
if (tag) analytics.init({ apiUrl: tag.src.split("/js/")[0], ...tag.dataset });
