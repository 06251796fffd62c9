"""Many clients of one server, most of which take nothing: what they hold, and what the others notice."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from typing import Any

import psutil

from benchmarks.bench import FOLDER, Bench, environment, say
from benchmarks.report import Chapter, Figure, p50_p99, percentile
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol.rows import LogLine, Row, RowBatch
from kafka_jupyter.server.limits import Limits
from tests.server.raw import Server, Stalled, Stream, unsent
from tests.support.jupyter_server import TOKEN, JupyterServer, jupyter_server
from tests.support.playing import Player

HOW = """A Jupyter server in a process of its own with the limits that it has by default. One run writes a record of 10 log lines, 8 KiB,
every 20 ms; all clients follow everything. First those that read alone, then beside them those that ask for a stream and never read it
(their kernel's buffers as everybody's). *Held*: how much more the resident memory of the server grew at its peak than it did without them,
by their number. What the kernel holds for the server's end of a connection is counted apart (`tx_queue` of `/proc/net/tcp`). *Append →
event*: from the call that appends a record until a client has parsed its event; writer and clients share a process, not the server's."""

PHASE_S = 35.0
EVERY_S = 0.02
LINES, LINE = 10, 800  # of a record; characters
LOOK_S = 0.25
HELD, LATENCY_S, DROPPED_S = 256 << 10, 0.250, 30.0


def measure(bench: Bench) -> Chapter:
    settings, folder = bench.kafka.replace(topic_prefix="streams."), FOLDER / "streams"
    log = Log.open(Cluster(settings), create=True)
    try:
        with jupyter_server(folder, environment(settings)) as server:
            return asyncio.run(_measured(server, log, bench.scale.stalled))
    finally:
        log.close()


@dataclasses.dataclass
class Seen:
    """Of one phase: seconds from append to event, growth and kernel in bytes, and when the last stalled client had been closed."""

    latencies: list[float]
    growth: int
    kernel: float
    dropped_s: float | None


async def _measured(process: JupyterServer, log: Log, stalled: int) -> Chapter:
    server = Server(process.port, "/", {"Authorization": f"token {TOKEN}"})
    run = Run(log)
    say("filling the server's memory of rows")
    await asyncio.get_running_loop().run_in_executor(None, run.fill)
    while (await server.get("health")).json["lag"]:
        await asyncio.sleep(LOOK_S)
    readers = Readers(server, stalled // 5)
    await readers.begin()
    say(f"{readers.count} clients that read, to warm up, then to be measured")
    await _phase(process, server, readers, run, 0)  # the server's heap has gaps at first, in which growth does not show
    alone = await _phase(process, server, readers, run, 0)
    say(f"{readers.count} clients that read, and {stalled} that take nothing")
    crowded = await _phase(process, server, readers, run, stalled)
    await readers.end()
    await server.close()
    return _chapter(readers.count, stalled, alone, crowded)


async def _phase(process: JupyterServer, server: Server, readers: Readers, run: Run, stalled: int) -> Seen:
    memory = psutil.Process(process.pid).memory_info
    before, peak, kernel, dropped_s = memory().rss, 0, 0.0, None
    clients = [Stalled(server, buffer=None) for _ in range(stalled)]
    readers.latencies = []
    stop = threading.Event()
    writing = asyncio.get_running_loop().run_in_executor(None, run.write, stop)
    for client in clients:
        await client.ask()
    began = time.monotonic()
    while time.monotonic() - began < PHASE_S:
        await asyncio.sleep(LOOK_S)
        peak = max(peak, memory().rss)
        kernel = max(kernel, sum(sorted(unsent(server.port))[-stalled:]) / max(1, stalled))
        streams = (await server.get("health")).json["streams"]
        if dropped_s is None and streams == readers.count:
            dropped_s = time.monotonic() - began
        elif streams > readers.count:
            dropped_s = None
    stop.set()
    await writing
    await readers.until(run.player.seq)
    for client in clients:
        client.socket.close()
    return Seen(readers.latencies_of(run.sent), peak - before, kernel, dropped_s)


class Run:
    """A run whose only attempt says much. `sent`: last seq of a record → when it was given to the producer."""

    def __init__(self, log: Log) -> None:
        self.log, self.player = log, Player.new(log, "chatty")
        self.sent: dict[int, float] = {}
        self.player.submit()
        self.player.claim()
        self.player.start()

    def fill(self) -> None:
        limits = Limits()
        for _ in range(limits.ring_bytes * 5 // 4 // (LINES * LINE)):
            self._record()
        assert self.log.producer.flush(60) == 0

    def write(self, stop: threading.Event) -> None:
        due = time.monotonic()
        while not stop.is_set():
            self._record()
            due += EVERY_S
            stop.wait(max(0.0, due - time.monotonic()))
        assert self.log.producer.flush(60) == 0

    def _record(self) -> None:
        player = self.player
        rows: list[Row] = [LogLine(player.next_seq(), 0, 0, "x" * LINE) for _ in range(LINES)]
        self.sent[player.seq] = time.monotonic()
        self.log.send_rows(RowBatch(player.run_id, player.n, player.worker, player.nonce, rows))


class Readers:
    """Clients that read all they get. `latencies`: (last seq of a record, when its event had been parsed)."""

    def __init__(self, server: Server, count: int) -> None:
        self.server, self.count = server, count
        self.latencies: list[tuple[int, float]] = []
        self._streams: list[Stream] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._last: dict[int, int] = {}

    async def begin(self) -> None:
        for i in range(self.count):
            stream = await self.server.stream()
            await stream.until(lambda seen: seen and seen[-1].id, "it had begun")
            self._streams.append(stream)
            self._tasks.append(asyncio.create_task(self._read(i, stream)))

    async def _read(self, i: int, stream: Stream) -> None:
        async for event in stream.events():
            if event.kind == "log":
                self._last[i] = event.data["rows"][-1]["seq"]
                self.latencies.append((self._last[i], time.monotonic()))
            stream.seen.clear()
        raise ConnectionError("a client that reads was cut off")

    async def until(self, seq: int) -> None:
        """All have the rows up to this one."""
        deadline = time.monotonic() + 60
        while sum(last >= seq for last in self._last.values()) < self.count:
            for task in self._tasks:
                if task.done():
                    task.result()
            assert time.monotonic() < deadline, f"rows never came: {self._last}"
            await asyncio.sleep(0.05)

    def latencies_of(self, sent: dict[int, float]) -> list[float]:
        return [at - sent[seq] for seq, at in self.latencies]

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _chapter(reading: int, stalled: int, alone: Seen, crowded: Seen) -> Chapter:
    held = (crowded.growth - alone.growth) / stalled
    p99 = percentile(crowded.latencies, 99)
    dropped = crowded.dropped_s
    when = "never" if dropped is None else f"{dropped:.1f} s after the first of them began"
    memory = f"{held / 1024:.0f} KiB each ({_mib(crowded.growth)} against {_mib(alone.growth)} without them)"
    figures: list[Any] = [
        Figure(f"held by {stalled} clients that take nothing", memory, "≤ 256 KiB each", held <= HELD),
        Figure("held by the kernel for them, beside that", f"{crowded.kernel / 1024:.0f} KiB each"),
        Figure("the last of them closed", when, "≤ 30 s", dropped is not None and dropped <= DROPPED_S),
        Figure(f"append → event, {reading} clients beside them", p50_p99(crowded.latencies), "p99 ≤ 250 ms", p99 <= LATENCY_S),
        Figure(f"append → event, {reading} clients alone", p50_p99(alone.latencies)),
    ]
    return Chapter("Slow and many clients", HOW, figures)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"
