"""A wire between Kafka's clients and a broker, on which a test can damage what passes."""

from __future__ import annotations

import contextlib
import pathlib
import socket
import struct
import threading
from collections.abc import Iterator

from kafka_jupyter.brokers.local_nodes import free_port
from tests.support.door import kafka_with_door

_PRODUCE = 0  # the API key of a produce request
_LENGTH = struct.Struct(">i")
_API_KEY = struct.Struct(">h")


class Wire:
    """Forwards every connection to its port. `damage(needle)`: a byte of the next produce request that holds these bytes is flipped."""

    def __init__(self, listener: socket.socket, to_port: int) -> None:
        self._listener, self._to_port = listener, to_port
        self._needle: bytes | None = None
        self._lock = threading.Lock()
        self.servers = f"127.0.0.1:{listener.getsockname()[1]}"
        threading.Thread(target=self._accept, name="wire", daemon=True).start()

    def damage(self, needle: bytes) -> None:
        self._needle = needle

    @property
    def damaged(self) -> bool:
        """The request has come, and went on with one byte changed."""
        return self._needle is None

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed: the test is over
            while True:
                client, _ = self._listener.accept()
                broker = socket.create_connection(("127.0.0.1", self._to_port))
                threading.Thread(target=self._carry_requests, args=(client, broker), daemon=True).start()
                threading.Thread(target=self._carry, args=(broker, client), daemon=True).start()

    def _carry(self, source: socket.socket, to: socket.socket) -> None:
        with contextlib.suppress(OSError), source, to:
            while data := source.recv(1 << 16):
                to.sendall(data)

    def _carry_requests(self, client: socket.socket, broker: socket.socket) -> None:
        with contextlib.suppress(OSError), client, broker, client.makefile("rb") as requests:
            while len(head := requests.read(_LENGTH.size)) == _LENGTH.size:
                broker.sendall(head + self._passed(requests.read(_LENGTH.unpack(head)[0])))

    def _passed(self, request: bytes) -> bytes:
        with self._lock:
            if self._needle is None or _API_KEY.unpack_from(request)[0] != _PRODUCE or self._needle not in request:
                return request
            at = request.index(self._needle)
            self._needle = None
        return request[:at] + bytes([request[at] ^ 1]) + request[at + 1 :]


@contextlib.contextmanager
def kafka_behind_a_wire(folder: pathlib.Path) -> Iterator[Wire]:
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        wire = Wire(listener, port)
        with kafka_with_door(folder, "PLAINTEXT", port, listener.getsockname()[1]):
            yield wire
