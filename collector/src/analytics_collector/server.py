"""Run one server process until it is told to stop."""

from __future__ import annotations

import logging
import signal
from types import FrameType

import uvicorn

from analytics_collector.app import create_app
from analytics_collector.assemble import build_services
from analytics_collector.http.protocol import HardenedProtocol
from analytics_collector.settings import Settings

logger = logging.getLogger(__name__)

# A client that flushes every 5 s keeps its connection.
_KEEP_ALIVE_S = 15


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then answer what was taken and return.

    Raises `UnsafeStore` or `ConfigurationError` before it listens, if it must not start.
    """
    services = await build_services(settings)
    try:
        config = uvicorn.Config(
            create_app(services),
            host=settings.host,
            port=settings.port,
            http=HardenedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=settings.trusted_proxies or None,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(settings.shutdown_timeout_s),
            backlog=2048,
        )
        # Uvicorn raises the signal that stopped it once more when it is done; we are not, yet.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _ignore)
        await uvicorn.Server(config).serve()
    finally:
        await services.close()
    logger.info("Stopped")


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing: the server is stopping already."""
