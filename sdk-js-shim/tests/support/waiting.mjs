// Tests wait for what they need to see, never for a time.

const PATIENCE_MS = 60_000;
const POLL_MS = 20;

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** Return what *look* returns once that is true; fail with *what* if it does not become so. */
export async function waitFor(look, what, patienceMs = PATIENCE_MS) {
  const end = Date.now() + patienceMs;
  for (;;) {
    const seen = await look();
    if (seen) return seen;
    if (Date.now() > end) throw new Error(`not within ${patienceMs} ms: ${what}`);
    await pause(POLL_MS);
  }
}
