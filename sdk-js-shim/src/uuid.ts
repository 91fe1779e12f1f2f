/** Return the digits with which a UUID of version 7 begins that is *ageMs* old, but for the dash. */
export function time(ageMs = 0): string {
  return (Date.now() - ageMs).toString(16).padStart(12, "0");
}

/** Return a UUID of version 7: RFC 9562, section 5.7. */
export function uuid(): string {
  const digits = time();
  const { crypto }: any = globalThis;
  // Old and odd runtimes have to do with Math.random.
  const bytes = crypto && crypto.getRandomValues(new Uint8Array(36));
  return `${digits.slice(0, 8)}-${digits.slice(8)}-7xxx-8xxx-xxxxxxxxxxxx`.replace(
    /x/g,
    (_, place) => ((bytes ? bytes[place] : Math.random() * 16) & 15).toString(16),
  );
}
