"""A TCP proxy that does to a connection what networks do, in the worst moment.

One request of a client is one connection here, if the client breaks off after a failure; each
connection has one fault for its life.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import struct
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to a connection.

    pass: nothing. ack_lost: the request arrives, its answer does not. request_cut and answer_cut:
    the connection breaks after so many bytes of that. With `piece_bytes` they go in small pieces.
    """

    kind: str = "pass"
    after_bytes: int = 0
    piece_bytes: int = 65_536


PASS = Fault()
ACK_LOST = Fault("ack_lost")


class FaultProxy:
    """Listens on a port of its own, for one server at an http URL or the path of a Unix socket.

    Set `fault` for the connections to come, or let `dice` choose. While `loses_answers` is set,
    what the server says next on any connection is swallowed, and the connection ends.
    """

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self.fault = PASS
        self.dice: random.Random | None = None
        self.share_of_faults = 1.0
        """How many of the connections `dice` chooses a fault for."""
        self.faults_done = 0
        self.loses_answers = False
        self._server: tuple[str, int] | str = url
        if address.scheme:
            assert address.hostname is not None
            assert address.port is not None
            self._server = (address.hostname, address.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_POLL_S)
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=self._accept, name="proxy")]

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        """The port of it."""
        port: int = self._listener.getsockname()[1]
        return port

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing.set()
        for thread in list(self._threads):
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            thread = threading.Thread(target=self._carry, args=(client, self._next_fault()))
            self._threads.append(thread)
            thread.start()

    def _next_fault(self) -> Fault:
        if self.dice is None:
            return self.fault
        if self.dice.random() >= self.share_of_faults:
            return PASS
        # Each connection has an end, or those without a fault would soon be the only ones, unless
        # a client makes one for each request.
        kind = self.dice.choice(("ack_lost", "request_cut", "answer_cut"))
        return Fault(kind, self.dice.randrange(4_000), self.dice.choice((64, 65_536)))

    def _carry(self, client: socket.socket, fault: Fault) -> None:
        with client:
            try:
                server = self._connect()
            except OSError:
                _reset(client)
                return
            # When one of them is gone, so is the other.
            with server, contextlib.suppress(OSError):
                self._pump(client, server, fault)

    def _connect(self) -> socket.socket:
        if not isinstance(self._server, str):
            return socket.create_connection(self._server)
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._server)
        return server

    def _pump(self, client: socket.socket, server: socket.socket, fault: Fault) -> None:
        carried = {client: 0, server: 0}
        while not self._closing.is_set():
            readable, _, _ = select.select([client, server], [], [], _POLL_S)
            for source in readable:
                target = server if source is client else client
                data = source.recv(fault.piece_bytes)
                if not data:
                    return
                if source is server and self.loses_answers:
                    self.faults_done += 1
                    _reset(client)
                    return
                room = self._room(fault, from_client=source is client, carried=carried[source])
                target.sendall(data[:room])
                if room is not None and len(data) > room:
                    self.faults_done += 1
                    _reset(client)
                    return
                carried[source] += len(data)

    def _room(self, fault: Fault, *, from_client: bool, carried: int) -> int | None:
        """Return how many bytes may still pass this way; None: all."""
        if fault.kind == "ack_lost" and not from_client:
            return 0
        if fault.kind == ("request_cut" if from_client else "answer_cut"):
            return max(0, fault.after_bytes - carried)
        return None


def _reset(connection: socket.socket) -> None:
    """Let the close be a reset, which no client can take for an orderly end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
