"""Look at an installation as an operator would before it goes on the internet."""

from __future__ import annotations

from pathlib import Path

from analytics_collector.doctor.findings import Finding
from analytics_collector.doctor.host import check_data_dir, check_secret, check_spool
from analytics_collector.doctor.services import check_postgres, check_redis
from analytics_collector.settings import Settings


async def examine(settings: Settings, data_dir: Path | None = None) -> list[Finding]:
    """Return what was found, in the order in which it is best mended. Changes nothing.

    *data_dir* is that of an `up`, if there is one. No finding holds a password or a secret.
    """
    redis, published = await check_redis(settings)
    return [
        Finding("settings", "ok", "all are readable"),
        check_secret(settings),
        check_data_dir(data_dir or settings.data_dir),
        *await check_postgres(settings, published),
        *redis,
        check_spool(settings),
    ]


__all__ = ["Finding", "examine"]
