"""One stream of server-sent events, from its first byte to its last."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, cast

from tornado.http1connection import HTTP1Connection
from tornado.iostream import StreamClosedError
from tornado.web import RequestHandler

from kafka_jupyter.server import events
from kafka_jupyter.server.limits import Limits

if TYPE_CHECKING:
    from kafka_jupyter.server.session import Joined

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",
    "Content-Encoding": "identity",  # a compressing server or proxy would hold events back
    "X-Accel-Buffering": "no",  # nginx
}


class Stream:
    """Sends what `joined` gives until the client goes, falls behind, stalls, or the hub is closed."""

    def __init__(self, handler: RequestHandler, joined: Joined, limits: Limits) -> None:
        self._handler, self._joined, self._limits = handler, joined, limits
        self._gone = False

    def client_left(self) -> None:
        self._gone = True
        self._joined.subscriber.wake.set()

    async def run(self) -> None:
        for name, value in HEADERS.items():
            self._handler.set_header(name, value)
        self._set_up_socket()
        try:
            await self._begin()
            await self._follow()
        except StreamClosedError:
            pass  # the client left while we were writing
        except TimeoutError:
            self._cut()

    async def _begin(self) -> None:
        """The latest states first, then the missed rows; the last event says that all was told, and where this is."""
        hub, subscriber = self._joined.hub, self._joined.subscriber
        await self._send([b"retry: %d\n\n" % self._limits.retry_ms])
        if self._joined.reset:
            await self._send_events([events.Event(events.RESET)])
        subscriber.health = hub.health
        while told := hub.states_for(subscriber):
            await self._send_events(told)
        while part := self._joined.missed.read(self._limits.chunk_bytes):
            await self._send([part])
        await self._send_events([events.Event(subscriber.health, str(subscriber.cursor))])

    async def _follow(self) -> None:
        hub, subscriber = self._joined.hub, self._joined.subscriber
        while not self._gone:
            subscriber.wake.clear()
            news = hub.take(subscriber)
            if news is None:
                self._cut()
                return
            await self._send_events(news)
            if hub.closed:
                if hub.over:
                    await self._send([events.BYE])
                else:
                    self._cut()
                return
            if not news:
                try:
                    await asyncio.wait_for(subscriber.wake.wait(), self._limits.heartbeat_s)
                except TimeoutError:
                    await self._send([events.HEARTBEAT])

    async def _send_events(self, chosen: Iterable[events.Event]) -> None:
        """A chunk at a time, and copied no earlier: what a client does not take yet stays where all streams share it."""
        waiting: list[bytes] = []
        room = self._limits.chunk_bytes
        for event in chosen:
            for part in event.parts():
                for piece in _pieces(part, self._limits.chunk_bytes):
                    if len(piece) > room:
                        await self._send(waiting)
                        room = self._limits.chunk_bytes
                    waiting.append(piece)
                    room -= len(piece)
        await self._send(waiting)

    async def _send(self, waiting: list[bytes]) -> None:
        """Empties it. Without waiting for each chunk, one client that reads nothing would hold all it should have read."""
        if waiting:
            self._handler.write(b"".join(waiting))
            waiting.clear()
            await asyncio.wait_for(self._handler.flush(), self._limits.stall_s)

    def _set_up_socket(self) -> None:
        """The kernel's buffer would grow to 4 MiB for a client that reads nothing; and a small event would wait for the last one's ack."""
        connection = self._connection
        if connection is not None and not connection.stream.closed():
            connection.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._limits.socket_bytes)
            connection.stream.set_nodelay(True)

    def _cut(self) -> None:
        """Closes the connection without an orderly end: the client comes back and resumes."""
        if self._connection is not None:
            self._connection.close()

    @property
    def _connection(self) -> HTTP1Connection | None:
        return cast("HTTP1Connection | None", self._handler.request.connection)  # declared as an interface; None once it is over


def _pieces(part: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(part), size):
        yield part[start : start + size]
