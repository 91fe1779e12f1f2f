// The browsers that the tests can run in. Each starts to an object with Playwright's `newContext`
// and `close`; what the tests use of contexts and pages is the same in all.

import { existsSync } from "node:fs";

const CHROMIUM_FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--ignore-certificate-errors",
  // Nothing here has any business outside of this machine.
  "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
];

const BROWSERS = {
  /** Chromium, or one of its kin that the environment names in CHROMIUM. */
  async chromium() {
    const { chromium } = await import("playwright-core");
    const executablePath = find("chromium", process.env.CHROMIUM || "/usr/bin/chromium");
    return chromium.launch({ executablePath, args: CHROMIUM_FLAGS });
  },

  /** Firefox as it is, over WebDriver BiDi. */
  async firefox() {
    const { default: puppeteer } = await import("puppeteer-core");
    const executablePath = find("firefox-esr", "/usr/bin/firefox-esr");
    const options = { browser: "firefox", executablePath, acceptInsecureCerts: true };
    const browser = await puppeteer.launch(options);
    return { newContext: () => browser.createBrowserContext(), close: () => browser.close() };
  },

  /** The engine of Safari, not Safari; it needs a display, such as that of `xvfb-run`. */
  async webkit() {
    const { startWebkit } = await import("./webkit.mjs");
    const driver = find("webkit2gtk-driver", "/usr/bin/WebKitWebDriver");
    return { newContext: () => startWebkit(driver), close: async () => {} };
  },
};

export const BROWSER = process.env.BROWSER || "chromium";

/** Start the browser that the environment names in BROWSER. */
export async function launch() {
  if (!BROWSERS[BROWSER]) {
    throw new Error(`BROWSER is ${BROWSER}; it may be ${Object.keys(BROWSERS).join(", ")}`);
  }
  return BROWSERS[BROWSER]();
}

function find(debianPackage, path) {
  if (!existsSync(path)) throw new Error(`no ${path}: apt-get install ${debianPackage}`);
  return path;
}
