"""Run one server process until it is told to stop."""

from __future__ import annotations

import logging
import math
import signal
import socket
from types import FrameType

import uvicorn

from analytics_collector.app import create_app
from analytics_collector.assemble import build_services
from analytics_collector.errors import ConfigurationError
from analytics_collector.http.protocol import HardenedProtocol
from analytics_collector.settings import Settings

logger = logging.getLogger(__name__)

# A client that flushes every 5 s keeps its connection.
_KEEP_ALIVE_S = 15
_BACKLOG = 2048


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then answer what was taken and return.

    Raises `UnsafeStore` or `ConfigurationError` if it must not or can't start.
    """
    listener = listen(settings.host, settings.port)
    services = await build_services(settings)
    try:
        config = uvicorn.Config(
            create_app(services),
            http=HardenedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nobody asks for the client's address
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout_s),
        )
        # Uvicorn raises the signal that stopped it once more when it is done; we are not, yet.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _ignore)
        await uvicorn.Server(config).serve(sockets=[listener])
    finally:
        await services.close()
    logger.info("Stopped")


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; for port 0 on any that is free.

    Raises `ConfigurationError` if it can't be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as exc:
        listener.close()
        raise ConfigurationError(
            f"can't listen on {host} port {port} ({exc.strerror}): "
            "choose another with --port, or 0 for any that is free"
        ) from exc
    listener.listen(_BACKLOG)
    logger.info("Listening", extra={"host": host, "port": listener.getsockname()[1]})
    return listener


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing: the server is stopping already."""
