"""The `up` of these tests: servers and one more child, in a process that can be killed.

Prints one JSON line when all is up, or the error. Not a test.
"""

import json
import sys
from pathlib import Path

from analytics_collector.embedded import ChildSpec, EmbeddedError, Supervisor
from analytics_collector.embedded.postgres import EmbeddedPostgres
from analytics_collector.embedded.valkey import EmbeddedValkey


def main(data_dir: Path) -> int:
    """Run until a signal comes."""
    postgres, valkey = EmbeddedPostgres(data_dir), EmbeddedValkey(data_dir)
    try:
        serve = ChildSpec("serve", ["sleep", "1000"])
        supervisor = Supervisor([postgres.child(), valkey.child(), serve], data_dir=data_dir)
        return supervisor.run_until_signal(lambda: _say(dsn=postgres.dsn, url=valkey.url))
    except EmbeddedError as exc:
        _say(error=str(exc), type=type(exc).__name__)
        return 1


def _say(**facts: str) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
