"""Several server processes on one socket, and a parent that keeps them running.

The parent serves nothing. It holds the socket, starts each process again that dies, passes on the
request to stop, and keeps the folder in which the processes add up their metrics. A pipe of which
the parent has the other end tells a process when the parent is gone, however it went.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from prometheus_client.multiprocess import mark_process_dead

from analytics_collector.errors import CollectorError
from analytics_collector.server import listening, serve
from analytics_collector.settings import SHARED_METRICS_DIR, Settings, environment_for_child

logger = logging.getLogger(__name__)

# A process that ends so soon and with an error would do so again.
_TOO_SOON_S: Final = 5.0
_RESTART_S: Final = 0.5
# Beyond what a process itself allows for answering what it took.
_STOP_GRACE_S: Final = 5.0


class WorkerFailed(CollectorError):
    """A server process can't even start; its own last words say why."""


async def run_workers(settings: Settings) -> None:
    """Run `settings.workers` servers until SIGTERM or SIGINT.

    Raises `ConfigurationError` or `WorkerFailed` if they can't be.
    """
    with listening(settings) as listener, tempfile.TemporaryDirectory() as metrics_dir:
        alive, parent_end = os.pipe()
        try:
            await _Workers(settings, listener, alive, Path(metrics_dir)).run()
        finally:
            os.close(alive)
            os.close(parent_end)


async def serve_inherited(settings: Settings, listener_fd: int, alive_fd: int) -> None:
    """Be one of those servers, on the descriptors that the parent handed down."""

    def stop() -> None:
        loop.remove_reader(alive_fd)
        signal.raise_signal(signal.SIGTERM)

    loop = asyncio.get_running_loop()
    loop.add_reader(alive_fd, stop)
    await serve(settings, socket.socket(fileno=listener_fd))


class _Workers:
    def __init__(
        self, settings: Settings, listener: socket.socket, alive: int, metrics_dir: Path
    ) -> None:
        self._settings = settings
        self._fds = (listener.fileno(), alive)
        self._metrics_dir = metrics_dir
        self._child_settings = {SHARED_METRICS_DIR: str(metrics_dir)}
        if settings.tls_cert is not None:
            self._child_settings["ANALYTICS_TLS_CERT"] = str(settings.tls_cert)
            self._child_settings["ANALYTICS_TLS_KEY"] = str(settings.tls_key)
        self._processes: set[asyncio.subprocess.Process] = set()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stopping.set)
        keepers = [asyncio.create_task(self._keep()) for _ in range(self._settings.workers)]
        stop = asyncio.create_task(self._stopping.wait())
        try:
            done, _ = await asyncio.wait([stop, *keepers], return_when=asyncio.FIRST_COMPLETED)
            for keeper in done - {stop}:
                keeper.result()
        finally:
            self._stopping.set()
            await self._stop()
            await asyncio.gather(stop, *keepers, return_exceptions=True)
        logger.info("Stopped")

    async def _keep(self) -> None:
        """Keep one process running until asked to stop."""
        while not self._stopping.is_set():
            started_at = time.monotonic()
            process = await self._start()
            code = await process.wait()
            self._processes.discard(process)
            _forget_gauges(process.pid, self._metrics_dir)
            if self._stopping.is_set():
                return
            if code > 0 and time.monotonic() - started_at < _TOO_SOON_S:
                raise WorkerFailed(f"a server process could not start (exit code {code})")
            logger.error("A server process ended, and is started again", extra={"code": code})
            await asyncio.sleep(_RESTART_S)

    async def _start(self) -> asyncio.subprocess.Process:
        listener, alive = self._fds
        process = await asyncio.create_subprocess_exec(
            # -P: what lies in the current directory is not imported instead of the real thing.
            sys.executable, "-P", "-m", "analytics_collector", "serve",
            "--workers", "1", "--inherited", f"{listener},{alive}",
            pass_fds=self._fds,
            env=environment_for_child(self._child_settings),
        )  # fmt: skip
        self._processes.add(process)
        return process

    async def _stop(self) -> None:
        processes = list(self._processes)
        for process in processes:
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._settings.shutdown_timeout_s + _STOP_GRACE_S):
                await asyncio.gather(*(process.wait() for process in processes))
        except TimeoutError:
            for process in processes:
                if process.returncode is None:
                    process.kill()


def _forget_gauges(pid: int, metrics_dir: Path) -> None:
    """Leave out the present state of a process that is no more; what it counted stays."""
    mark_process_dead(pid, str(metrics_dir))  # type: ignore[no-untyped-call]
