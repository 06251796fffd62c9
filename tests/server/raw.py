"""A client without a library in between: a test may cut the connection anywhere and see every byte."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import pathlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
PATIENCE_S = 30.0


async def eventually(condition: Callable[[], T | Awaitable[T]], message: str, within: float = PATIENCE_S) -> T:
    """`wait_until` for a test that runs on the server's own event loop."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value  # type: ignore[return-value]
        if loop.time() > deadline:
            raise AssertionError(f"{message} (waited {within:g} s; the last value was {value!r})")
        await asyncio.sleep(0.01)


@dataclasses.dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclasses.dataclass(frozen=True)
class Event:
    kind: str
    data: Any
    id: str | None  # None: the event had none


class Parser:
    """Bytes of one answer → events, as the standard says: an event counts when its blank line has come."""

    def __init__(self) -> None:
        self._raw, self._text = b"", b""
        self.head: bytes | None = None
        self.comments = 0
        self.retry: int | None = None
        self.over = False  # the answer ended in order

    def feed(self, data: bytes) -> list[Event]:
        self._raw += data
        if self.head is None:
            if b"\r\n\r\n" not in self._raw:
                return []
            self.head, self._raw = self._raw.split(b"\r\n\r\n", 1)
        self._unchunk()
        found = []
        while b"\n\n" in self._text:
            block, self._text = self._text.split(b"\n\n", 1)
            event = self._event(block)
            if event is not None:
                found.append(event)
        return found

    def _unchunk(self) -> None:
        while b"\r\n" in self._raw:
            size, rest = self._raw.split(b"\r\n", 1)
            length = int(size, 16)
            if len(rest) < length + 2:
                return
            self.over = self.over or length == 0
            self._text += rest[:length]
            self._raw = rest[length + 2 :]

    def _event(self, block: bytes) -> Event | None:
        fields: dict[str, str] = {}
        for line in block.decode().split("\n"):
            if line.startswith(":"):
                self.comments += 1
                continue
            name, _, value = line.partition(":")
            assert name not in fields, "one line each is all we send"
            fields[name] = value.removeprefix(" ")
        if "retry" in fields:
            self.retry = int(fields["retry"])
        return Event(fields["event"], json.loads(fields["data"]), fields.get("id")) if "data" in fields else None


class Stream:
    """One connection to `events`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.parser = Parser()
        self.last_id: str | None = None
        self.seen: list[Event] = []

    @property
    def status(self) -> int:
        return int((self.parser.head or b"HTTP/1.1 0").split()[1])

    @property
    def headers(self) -> dict[str, str]:
        return _headers((self.parser.head or b"").split(b"\r\n", 1)[1])

    async def read(self, limit: int = 65536) -> list[Event] | None:
        """The events that came with the next bytes; None at the end."""
        if self.parser.over:
            return None
        try:
            data = await asyncio.wait_for(self.reader.read(limit), PATIENCE_S)
        except ConnectionError:
            return None
        if not data:
            return None
        found = self.parser.feed(data)
        for event in found:
            self.last_id = event.id or self.last_id
        self.seen += found
        return found

    async def until(self, condition: Callable[[list[Event]], Any], message: str) -> list[Event]:
        """Reads on until the condition holds for all that was seen."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while not condition(self.seen):
            last = [(event.kind, event.data) for event in self.seen[-3:]]
            assert await self.read() is not None, f"the stream ended before {message}: {last}"
            assert asyncio.get_running_loop().time() < deadline, f"waited {PATIENCE_S:g} s until {message}: {last}"
        return self.seen

    async def events(self) -> AsyncIterator[Event]:
        while (found := await self.read()) is not None:
            for event in found:
                yield event

    def of(self, kind: str) -> list[Any]:
        return [event.data for event in self.seen if event.kind == kind]

    def cut(self) -> None:
        self.writer.transport.abort()

    async def close(self) -> None:
        self.cut()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


class Server:
    """The Jupyter server under test. `root` is the extension's path, or another one below the base_url."""

    def __init__(self, port: int, base_url: str, auth: Mapping[str, str], root: str = "kafka-jupyter/") -> None:
        self.port, self.auth = port, dict(auth)
        self.root = base_url + root
        self._streams: list[Stream] = []

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        auth: bool = True,
        until: bytes = b"",
    ) -> Answer:
        """The whole answer; of one that says 200 and goes on for ever, what comes up to `until`."""
        reader, writer = await self._open(method, path, {**(self.auth if auth else {}), "Connection": "close", **(headers or {})}, body)
        try:
            raw = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
            endless = until and raw.split(b" ", 2)[1] == b"200"
            raw += await asyncio.wait_for(reader.readuntil(until) if endless else reader.read(-1), PATIENCE_S)
        finally:
            writer.close()
            await writer.wait_closed()
        head, _, content = raw.partition(b"\r\n\r\n")
        status, _, rest = head.partition(b"\r\n")
        return Answer(int(status.split()[1]), _headers(rest), content)

    async def get(self, path: str, **more: Any) -> Answer:
        return await self.request("GET", path, **more)

    async def post(self, path: str, **more: Any) -> Answer:
        return await self.request("POST", path, **more)

    async def stream(self, query: str = "", last_id: str | None = None, limit: int = 65536) -> Stream:
        """`limit`: bytes that this client buffers."""
        headers = {**self.auth, "Accept": "text/event-stream", "Accept-Encoding": "gzip"}
        if last_id:
            headers["Last-Event-ID"] = last_id
        stream = Stream(*await self._open("GET", "events" + query, headers, b"", limit))
        self._streams.append(stream)
        return stream

    async def close(self) -> None:
        for stream in self._streams:
            await stream.close()

    async def _open(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, limit: int = 65536
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=limit)
        headers = {"Host": f"127.0.0.1:{self.port}", **headers}
        lines = [f"{method} {self.root}{path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
        if body or method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        return reader, writer


class Stalled:
    """Asks for a stream and never reads what comes. `buffer`: bytes of the kernel at this end; None: what it gives to everybody."""

    def __init__(self, server: Server, last_id: str = "", buffer: int | None = 4096) -> None:
        self.socket = socket.socket()
        if buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.setblocking(False)
        lines = {"Host": f"127.0.0.1:{server.port}", **server.auth, **({"Last-Event-ID": last_id} if last_id else {})}
        head = [f"GET {server.root}events HTTP/1.1", *(f"{name}: {value}" for name, value in lines.items()), "", ""]
        self._where, self._request = ("127.0.0.1", server.port), "\r\n".join(head).encode()

    async def ask(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self.socket, self._where)
        await loop.sock_sendall(self.socket, self._request)


def unsent(port: int) -> list[int]:
    """Of each connection of a port of ours: what the other end has not taken, as the kernel says it."""
    rows = [line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [size for row in rows if int(row[1][-4:], 16) == port and row[3] == "01" and (size := int(row[4].split(":")[0], 16))]


def _headers(raw: bytes) -> dict[str, str]:
    """By lower-case name; a name that comes several times has its values on lines of their own."""
    found: dict[str, str] = {}
    for line in filter(None, raw.decode("latin-1").split("\r\n")):
        name, _, value = line.partition(":")
        name = name.strip().lower()
        found[name] = f"{found[name]}\n{value.strip()}" if name in found else value.strip()
    return found
