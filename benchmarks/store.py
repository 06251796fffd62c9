"""How fast the store is, as a ratio to a plain copy of the same bytes in the same run. The copy ends with an fsync, as every put does."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import psutil

from benchmarks.bench import FOLDER, Bench, say
from benchmarks.report import Chapter, Figure
from kafka_jupyter.store import Store, digest, open_store

HOW = """Random bytes, put and fetched back (verified by their sha256, into an empty cache) through the store in Kafka and through one in a
folder, against a plain copy of the same file; each ends on the disk. *Memory*: how much more of it this process held while it put the
largest, read from the file piece by piece. *Small*: 100 KiB, the weights of a small model."""

ROUNDS = 5
PIECE = 1 << 20  # bytes
SMALL = 100 << 10  # bytes
SMALL_ROUNDS = 100
KAFKA_RATE, FILE_RATIO = 100e6, 1.5  # bytes a second; times a copy
MEMORY = 64 << 20  # bytes: the window of chunks, and as much again of the client's own

T = TypeVar("T")


def measure(bench: Bench) -> Chapter:
    stack = bench.stack
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(dir=FOLDER) as name:
        folder = pathlib.Path(name)
        source = folder / "source"
        settings = stack.settings.replace(cache_dir=folder / "cache", store_limit=2 << 30)
        for mib in bench.scale.mib:
            write_random(source, mib)
            hashing, _ = timed(digest, pieces(source))
            figures.append(Figure(f"sha256 of {mib} MiB", f"{mib / hashing:.0f} MiB/s"))
            for kind, url in STORES.items():
                say(f"{mib} MiB through {kind}")
                with contextlib.closing(open_store(settings.replace(store=url.format(folder)), stack.client.connection().log)) as store:
                    store.put("warm", 1, [b"x"])
                    figures += measure_large(kind, store, source, mib, mib == bench.scale.mib[-1])
        for kind, url in STORES.items():
            with contextlib.closing(open_store(settings.replace(store=url.format(folder)), stack.client.connection().log)) as store:
                store.put("warm", 1, [b"x"])
                figures += measure_small(kind, store)
    return Chapter("The store", HOW, figures)


STORES = {"kafka:": "kafka:", "file:": "file://{}/store"}


def write_random(file: pathlib.Path, mib: int) -> None:
    with file.open("wb") as out:
        for _ in range(mib):
            out.write(os.urandom(PIECE))
        os.fsync(out.fileno())


def pieces(file: pathlib.Path) -> Iterator[bytes]:
    with file.open("rb") as source:
        while piece := source.read(PIECE):
            yield piece


def timed(work: Callable[..., T], *arguments: Any) -> tuple[float, T]:
    started = time.perf_counter()
    result = work(*arguments)
    return time.perf_counter() - started, result


def plain_copy(source: pathlib.Path, target: pathlib.Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    target.unlink()


def measure_large(kind: str, store: Store, source: pathlib.Path, mib: int, watched: bool) -> list[Figure]:
    size, rounds = mib << 20, []
    peak = 0
    for _ in range(ROUNDS if mib < 1000 else 3):
        copying, _ = timed(plain_copy, source, source.with_suffix(".copy"))
        with Peak() as memory:
            putting, ref = timed(store.put, "state", size, pieces(source))
        peak = max(peak, memory.grown)
        fetching, _ = timed(store.fetch, ref)
        store.rm(ref)
        rounds.append((copying, putting, fetching))
    copy, put, fetch = (statistics.median(times) for times in zip(*rounds, strict=True))
    to_copy, rate = put / copy, size / put
    target = ("≥ 100 MB/s", rate >= KAFKA_RATE) if kind == "kafka:" else (f"≤ {FILE_RATIO} × a copy", to_copy <= FILE_RATIO)
    value = f"{to_copy:.2f} × a copy: {rate / 1e6:.0f} MB/s against {size / copy / 1e6:.0f} MB/s"
    figures = [
        Figure(f"{kind} put {mib} MiB", value, *target),
        Figure(f"{kind} fetch {mib} MiB", f"{fetch / copy:.2f} × a copy: {size / fetch / 1e6:.0f} MB/s"),
    ]
    if watched:
        figures.append(Figure(f"{kind} memory for it", f"{peak / (1 << 20):.0f} MiB more", "≤ 64 MiB", peak <= MEMORY))
    return figures


class Peak:
    """How far this process' resident memory has grown beyond what it was (`grown`, bytes), looked at a hundred times a second."""

    def __init__(self) -> None:
        self.grown = 0
        self._over = threading.Event()
        self._process = psutil.Process()

    def __enter__(self) -> Peak:
        before = self._process.memory_info().rss

        def look() -> None:
            while not self._over.wait(0.01):
                self.grown = max(self.grown, self._process.memory_info().rss - before)

        self._thread = threading.Thread(target=look, name="peak")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def measure_small(name: str, store: Store) -> list[Figure]:
    puts = [timed(store.put, "small", SMALL, [os.urandom(SMALL)]) for _ in range(SMALL_ROUNDS)]
    fetches = [timed(store.fetch, ref) for _, ref in puts]
    again = [timed(store.fetch, ref) for _, ref in puts]
    return [
        Figure(f"{name} {what} 100 KiB", f"p50 {statistics.median(times):.2f} ms, max {max(times):.1f} ms")
        for what, took in (("put", puts), ("fetch", fetches), ("fetch again (cached)", again))
        if (times := [seconds * 1000 for seconds, _ in took])
    ]
