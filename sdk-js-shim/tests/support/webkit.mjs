// WebKitGTK's browser, driven over WebDriver (W3C) as far as the tests need it. The driver has one
// session and one window that listens at a time, so what pages are asked goes one after the other.

import { spawn } from "node:child_process";
import { once } from "node:events";
import net from "node:net";

import { waitFor } from "./waiting.mjs";

const CAPABILITIES = {
  acceptInsecureCerts: true,
  "webkitgtk:browserOptions": { args: ["--automation"] },
};
// In a page: `arguments` are the text of a function, what it is given, and whom to tell.
const CALL = `
  const [text, given, done] = arguments;
  Promise.resolve((0, eval)("(" + text + ")")(given)).then(
    (value) => done({ value }), (error) => done({ error: String(error) }));`;

/** Return a new browser with one context, which has Playwright's `newPage` and `close`. */
export async function startWebkit(driver) {
  const port = await freePort();
  // Root, as which tests may run, has no other way.
  const env = { ...process.env, WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS: "1" };
  const started = spawn(driver, [`--port=${port}`], { env, stdio: "ignore" });
  const abandon = () => started.kill();
  process.once("exit", abandon);
  const url = `http://127.0.0.1:${port}`;
  const isReady = () => ask("GET", `${url}/status`).catch(() => null);
  await waitFor(isReady, "WebKit's driver is ready");
  const capabilities = { alwaysMatch: CAPABILITIES };
  const { sessionId } = await ask("POST", `${url}/session`, { capabilities });
  const session = `${url}/session/${sessionId}`;
  const firstWindow = await ask("GET", `${session}/window`);
  return {
    async newPage() {
      // The one that listens may have been closed.
      await ask("POST", `${session}/window`, { handle: firstWindow });
      return newPage(session);
    },
    async close() {
      await ask("DELETE", session);
      const ended = once(started, "exit");
      started.kill();
      await ended;
      process.off("exit", abandon);
    },
  };
}

async function newPage(session) {
  const { handle } = await ask("POST", `${session}/window/new`, { type: "tab" });
  const command = async (method, path, body) => {
    await ask("POST", `${session}/window`, { handle });
    return ask(method, `${session}/${path}`, body);
  };
  return {
    goto: (url) => command("POST", "url", { url }),
    reload: () => command("POST", "refresh", {}),
    close: () => command("DELETE", "window"),
    async evaluate(work, given) {
      const call = { script: CALL, args: [String(work), given ?? null] };
      const { value, error } = await command("POST", "execute/async", call);
      if (error) throw new Error(error);
      return value;
    },
  };
}

async function ask(method, url, body) {
  const answer = await fetch(url, { method, body: body && JSON.stringify(body) });
  const { value } = await answer.json();
  if (!answer.ok) throw new Error(`${method} ${url}: ${value.error}: ${value.message}`);
  return value;
}

async function freePort() {
  const server = net.createServer();
  await once(server.listen(0, "127.0.0.1"), "listening");
  const { port } = server.address();
  server.close();
  return port;
}
