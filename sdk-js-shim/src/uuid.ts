/** Return a UUID of version 7 (RFC 9562, section 5.7), as it was *ageMs* ago. */
export function uuid(ageMs = 0): string {
  const time = (Date.now() - ageMs).toString(16).padStart(12, "0");
  return `${time.slice(0, 8)}-${time.slice(8)}-7xxx-8xxx-xxxxxxxxxxxx`.replace(/x/g, () =>
    // Old and odd runtimes have to do with Math.random.
    (
      ((globalThis as any).crypto
        ? crypto.getRandomValues(new Uint8Array(1))[0]
        : Math.random() * 16) & 15
    ).toString(16),
  );
}
