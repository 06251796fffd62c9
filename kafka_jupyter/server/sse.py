"""One stream of server-sent events, from its first byte to its last."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING

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
        await self._send(b"retry: %d\n\n" % self._limits.retry_ms)
        if self._joined.reset:
            await self._send_events([events.Event(events.RESET)])
        subscriber.health = hub.health
        while told := hub.states_for(subscriber):
            await self._send_events(told)
        await self._send_events(self._joined.missed)
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
                    await self._send(events.BYE)
                else:
                    self._cut()
                return
            if not news:
                try:
                    await asyncio.wait_for(subscriber.wake.wait(), self._limits.heartbeat_s)
                except TimeoutError:
                    await self._send(events.HEARTBEAT)

    async def _send_events(self, chosen: Iterable[events.Event]) -> None:
        iterator = iter(chosen)
        while part := list(itertools.islice(iterator, 64)):
            await self._send(b"".join(map(bytes, part)))

    async def _send(self, data: bytes) -> None:
        """Without waiting for each chunk, one client that reads nothing would hold all it should have read."""
        for start in range(0, len(data), self._limits.chunk_bytes):
            self._handler.write(data[start : start + self._limits.chunk_bytes])
            await asyncio.wait_for(self._handler.flush(), self._limits.stall_s)

    def _cut(self) -> None:
        """Closes the connection without an orderly end: the client comes back and resumes."""
        connection = self._handler.request.connection
        if connection is not None:
            connection.close()  # type: ignore[attr-defined]  # HTTPConnection is an interface, this is an HTTP1Connection
