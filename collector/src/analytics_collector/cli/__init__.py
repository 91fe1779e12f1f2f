"""The command line. Exit codes: 0 done, 1 it could not be done (the reason is told), 2 misused."""

from __future__ import annotations

import click

from analytics_collector.cli.dead_letters import dlq
from analytics_collector.cli.doctor import doctor
from analytics_collector.cli.keys import keys
from analytics_collector.cli.projects import projects
from analytics_collector.cli.run import migrate, serve, up, worker
from analytics_collector.cli.schemas import schemas
from analytics_collector.cli.spool import spool
from analytics_collector.cli.tail import tail
from analytics_collector.version import __version__


@click.group()
@click.version_option(__version__)
def main() -> None:
    """Take events over HTTP, keep them in Postgres, publish them to Redis, answer questions.

    Settings come from the environment: ANALYTICS_DATABASE_URL, ANALYTICS_REDIS_URL and
    ANALYTICS_SECRET; `up` needs none.
    """


for command in (up, serve, worker, migrate, projects, keys, tail, spool, dlq, schemas, doctor):
    main.add_command(command)
