// A certificate for 127.0.0.1 that nobody has signed, made anew for each run.

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Return `{key, cert}` as PEM. */
export function makeCertificate() {
  const folder = mkdtempSync(join(tmpdir(), "analytics-certificate-"));
  const [keyFile, certFile] = ["key.pem", "cert.pem"].map((name) => join(folder, name));
  const kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  const content = ["-days", "2", "-subj", "/CN=127.0.0.1", "-keyout", keyFile, "-out", certFile];
  try {
    execFileSync("openssl", ["req", "-x509", ...kind, ...content], { stdio: "pipe" });
    return { key: readFileSync(keyFile), cert: readFileSync(certFile) };
  } catch (error) {
    throw new Error("these tests need the program openssl: apt-get install openssl", {
      cause: error,
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
}
