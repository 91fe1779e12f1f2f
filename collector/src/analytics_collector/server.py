"""Run one server process until it is told to stop."""

from __future__ import annotations

import gc
import logging
import math
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import uvicorn

from analytics_collector.app import create_app
from analytics_collector.assemble import build_services
from analytics_collector.errors import ConfigurationError
from analytics_collector.http.protocol import HardenedProtocol
from analytics_collector.http.tracing import traced
from analytics_collector.settings import Settings, is_traced

logger = logging.getLogger(__name__)

# A client that flushes every 5 s keeps its connection.
_KEEP_ALIVE_S = 15
_BACKLOG = 2048
# Containers that must pile up before the collector of cycles looks for some. A request leaves
# none, but Python's own threshold of 700 is passed by every other batch: a tenth of the time.
_GC_THRESHOLD = 50_000


async def serve(settings: Settings, listener: socket.socket | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then answer what was taken and return.

    On *listener* if it is given, else on what *settings* say. Raises `UnsafeStore` or
    `ConfigurationError` if it must not or can't start.
    """
    if listener is not None:
        await _serve_on(listener, settings)
        return
    with listening(settings) as opened:
        await _serve_on(opened, settings)


async def _serve_on(listener: socket.socket, settings: Settings) -> None:
    services = await build_services(settings)
    try:
        app = create_app(services)
        config = uvicorn.Config(
            traced(app) if is_traced() else app,
            http=HardenedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # see http/peer.py
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout_s),
        )
        # Uvicorn raises the signal that stopped it once more when it is done; we are not, yet.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _ignore)
        _settle_heap()
        await _Server(config, services.live.stop).serve(sockets=[listener])
    finally:
        await services.close()
    logger.info("Stopped")


def _settle_heap() -> None:
    """Let the collector of cycles pass over what stays, and come seldom for the rest."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 10, 10)


class _Server(uvicorn.Server):
    """Ends the answers that never end by themselves before it waits for all to be complete."""

    def __init__(self, config: uvicorn.Config, end_streams: Callable[[], None]) -> None:
        super().__init__(config)
        self._end_streams = end_streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more requests, and wait for those at hand."""
        self._end_streams()
        await super().shutdown(sockets)


@contextmanager
def listening(settings: Settings) -> Iterator[socket.socket]:
    """Give a socket that listens where *settings* say; that of a file goes with its file.

    Raises `ConfigurationError` if it can't be had.
    """
    if settings.uds is None:
        with listen(settings.host, settings.port) as listener:
            yield listener
        return
    listener = _listen_at(settings.uds)
    try:
        yield listener
    finally:
        listener.close()
        settings.uds.unlink(missing_ok=True)


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


def _listen_at(path: Path) -> socket.socket:
    """Return a socket that listens at *path*, for its owner and their group."""
    if _is_answered(path):
        raise ConfigurationError(f"can't listen on {path}: another server answers there")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Left behind by a server that was killed; what is no socket stays.
        if path.is_socket():
            path.unlink()
        listener.bind(str(path))
        path.chmod(0o660)
    except OSError as exc:
        listener.close()
        raise ConfigurationError(f"can't listen on {path} ({exc.strerror})") from exc
    listener.listen(_BACKLOG)
    logger.info("Listening", extra={"uds": str(path)})
    return listener


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing: the server is stopping already."""
