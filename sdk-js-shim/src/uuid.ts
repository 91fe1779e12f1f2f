/** Return the digits with which a UUID of version 7 begins that is *ageMs* old, but for the dash. */
export function time(ageMs = 0): string {
  return (Date.now() - ageMs).toString(16).padStart(12, "0");
}

/** Return a UUID of version 7: RFC 9562, section 5.7. */
export function uuid(): string {
  const { crypto }: any = globalThis;
  return (
    time().replace(/.{8}/, "$&-") +
    "-7" +
    // Old and odd runtimes, and pages without encryption, have to do with Math.random.
    (crypto && crypto.randomUUID
      ? crypto.randomUUID().slice(15)
      : "xxx-8xxx-xxxxxxxxxxxx".replace(/x/g, () => ((Math.random() * 16) | 0).toString(16)))
  );
}
