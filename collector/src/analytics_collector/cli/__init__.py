"""The command line. Exit codes: 0 done, 1 it could not be done (the reason is told), 2 misused."""

from __future__ import annotations

import click

from analytics_collector.cli.keys import keys
from analytics_collector.cli.projects import projects
from analytics_collector.cli.run import migrate, serve, up, worker
from analytics_collector.version import __version__


@click.group()
@click.version_option(__version__)
def main() -> None:
    """Take events over HTTP, keep them in Postgres, publish them to Redis, answer questions.

    Settings come from the environment: ANALYTICS_DATABASE_URL, ANALYTICS_REDIS_URL and
    ANALYTICS_SECRET; `up` needs none.
    """


for command in (up, serve, worker, migrate, projects, keys):
    main.add_command(command)
