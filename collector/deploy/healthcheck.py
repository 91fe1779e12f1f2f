"""Ask a server on this machine how it is: `healthcheck.py PORT PATH`; exit code 0 is well.

For images without curl. It uses no proxy, whatever the environment says.
"""

from __future__ import annotations

import http.client
import sys

TIMEOUT_S = 4


def main(port: str, path: str) -> int:
    """Return 0 if *path* on *port* is answered with 200 in time."""
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as exc:
        print(f"{path}: {exc}", file=sys.stderr)
        return 1
    finally:
        connection.close()
    return 0 if status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
