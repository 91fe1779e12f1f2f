// What an answer means for the events of a batch: chapter 5 of the specification. Pure.

/** What becomes of a batch. The numbers are those of the tuple that `decide` returns. */
export const enum Action {
  /** All events are safe but those that are listed. */
  Deliver,
  /** The listed events are refused for good; the others go again. */
  Reject,
  /** Two halves go again. */
  Split,
  /** The same events go again, later. */
  Again,
}

/** What the collector says against one event. */
export interface Refusal {
  code: string;
  message: string;
}

/** The action, the refusals by the index of their event, the pause in ms and what of it is fixed. */
export type Verdict = [
  action: Action,
  refusals: (Refusal | undefined)[],
  delay?: number,
  floor?: number,
];

const PROBE_MS = 6e4;
const FIRST_RETRY_DELAY_MS = 500;
const MAX_RETRY_DELAY_MS = 6e4;
const MAX_RETRY_AFTER_MS = 3e5;

/**
 * Tell what to do after an answer.
 *
 * @param status - of the answer; 0 if no complete one came
 * @param answer - its body, parsed, or 0 if that is no JSON
 * @param retryAfter - its header
 * @param batch - its events
 * @param attempt - 1 for the first
 * @param jitter - drawn from [0, 1)
 * @param now - milliseconds since 1970
 */
export function decide(
  status: number,
  answer: any,
  retryAfter: string | null,
  batch: readonly unknown[],
  attempt: number,
  jitter = Math.random(),
  now = Date.now(),
): Verdict {
  const listed: any[] = [].concat(answer.rejected || []);
  const refusals: (Refusal | undefined)[] = batch.map((_, index) =>
    listed.find((refusal) => refusal && refusal.index === index),
  );
  if (status == 202 && answer.eventCount === answer.eventCount >> 0)
    return [Action.Deliver, refusals];
  if (status == 400 || status == 413) {
    if (refusals.some((refusal) => refusal)) return [Action.Reject, refusals];
    if (batch.length > 1) return [Action.Split, []];
    const code = answer.code || (status == 400 ? "INVALID_REQUEST" : "BODY_TOO_LARGE");
    return [Action.Reject, [{ code, message: answer.error }]];
  }
  const asked = /^\d+$/.test(retryAfter!) ? +retryAfter! * 1e3 : Date.parse(retryAfter!) - now;
  const floor = Math.min(asked > 0 ? asked : 0, MAX_RETRY_AFTER_MS);
  const most = Math.min(FIRST_RETRY_DELAY_MS * 2 ** (attempt - 1), MAX_RETRY_DELAY_MS);
  const delay = floor + (status > 400 && status < 404 ? PROBE_MS : jitter * most);
  return [Action.Again, [], delay, floor];
}
