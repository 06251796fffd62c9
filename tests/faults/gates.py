"""Gates: a worker's own way to the three brokers, which a test can close in one direction or both while everything else stays open."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Sequence

_CHUNK = 1 << 16


class Gate:
    """Listens at one port a broker and forwards to the broker's listener for it. What does not pass waits, as on a dead network."""

    def __init__(self, ports: Sequence[tuple[int, int]]) -> None:
        """`ports`: (listen, forward to) of each broker."""
        self._open = {"requests": threading.Event(), "answers": threading.Event()}
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listeners: list[socket.socket] = []
        self.servers = ",".join(f"127.0.0.1:{listen}" for listen, _ in ports)
        self.heal()
        for listen, forward in ports:
            listener = socket.create_server(("127.0.0.1", listen))
            self._listeners.append(listener)
            threading.Thread(target=self._accept, args=(listener, forward), name="gate", daemon=True).start()

    def cut(self) -> None:
        """Nothing passes."""
        for event in self._open.values():
            event.clear()

    def deafen(self) -> None:
        """What is sent arrives, what is answered does not: it can write and cannot read."""
        self._open["answers"].clear()

    def heal(self) -> None:
        for event in self._open.values():
            event.set()

    def close(self) -> None:
        self.heal()
        with self._lock:
            for sock in (*self._listeners, *self._sockets):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()

    def _accept(self, listener: socket.socket, forward: int) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = listener.accept()
                try:
                    broker = socket.create_connection(("127.0.0.1", forward), timeout=5)
                except OSError:  # that broker is dead: so is the way to it
                    client.close()
                    continue
                broker.settimeout(None)
                with self._lock:
                    self._sockets |= {client, broker}
                for source, to, name in ((client, broker, "requests"), (broker, client, "answers")):
                    threading.Thread(target=self._carry, args=(source, to, name), name="gate", daemon=True).start()

    def _carry(self, source: socket.socket, to: socket.socket, name: str) -> None:
        try:
            while data := source.recv(_CHUNK):
                self._open[name].wait()
                to.sendall(data)
        except OSError:
            pass
        finally:
            with self._lock:
                self._sockets -= {source, to}
            for sock in (source, to):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()
