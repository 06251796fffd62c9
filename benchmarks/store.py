"""How fast the store is, as a ratio to a plain copy of the same bytes in the same run. The copy ends with an fsync, as every put does."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any, TypeVar

from benchmarks.bench import FOLDER, Bench, say
from benchmarks.report import Chapter, Figure
from kafka_jupyter.store import Store, digest, open_store

HOW = """Random bytes, put and fetched back (verified by their sha256) through the store in Kafka and through one in a folder, against
a plain copy of the same file. *Small*: 100 KiB, the weights of a small model."""

ROUNDS = 5
SMALL = 100 << 10  # bytes
SMALL_ROUNDS = 100

T = TypeVar("T")


def measure(bench: Bench) -> Chapter:
    stack = bench.stack
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(dir=FOLDER) as name:
        folder = pathlib.Path(name)
        source = folder / "source"
        source.write_bytes(os.urandom(bench.scale.mib << 20))
        hashing, _ = timed(digest, [source.read_bytes()])
        figures.append(Figure("sha256", f"{bench.scale.mib / hashing:.0f} MiB/s"))
        settings = stack.settings.replace(cache_dir=folder / "cache")
        for kind, url in (("kafka:", "kafka:"), ("file:", f"file://{folder}/store")):
            say(f"the store {kind}")
            with contextlib.closing(open_store(settings.replace(store=url), stack.client.connection().log)) as store:
                store.put("warm", 1, [b"x"])
                figures += measure_large(kind, store, source)
                figures += measure_small(kind, store)
    return Chapter("The store", HOW, figures)


def timed(work: Callable[..., T], *arguments: Any) -> tuple[float, T]:
    started = time.perf_counter()
    result = work(*arguments)
    return time.perf_counter() - started, result


def plain_copy(source: pathlib.Path, target: pathlib.Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    target.unlink()


def measure_large(name: str, store: Store, source: pathlib.Path) -> list[Figure]:
    data = source.read_bytes()
    mib = len(data) / (1 << 20)
    rounds = []
    for _ in range(ROUNDS):
        copying, _ = timed(plain_copy, source, source.with_suffix(".copy"))
        putting, ref = timed(store.put, "state", len(data), [data])
        fetching, _ = timed(store.fetch, ref)
        store.rm(ref)
        rounds.append((copying, putting, fetching))
    copy, put, fetch = (statistics.median(times) for times in zip(*rounds, strict=True))
    return [
        Figure(f"{name} put {mib:.0f} MiB", f"{put / copy:.2f} × a copy: {mib / put:.0f} MiB/s against {mib / copy:.0f} MiB/s"),
        Figure(f"{name} fetch {mib:.0f} MiB", f"{fetch / copy:.2f} × a copy: {mib / fetch:.0f} MiB/s"),
    ]


def measure_small(name: str, store: Store) -> list[Figure]:
    puts = [timed(store.put, "small", SMALL, [os.urandom(SMALL)]) for _ in range(SMALL_ROUNDS)]
    fetches = [timed(store.fetch, ref) for _, ref in puts]
    again = [timed(store.fetch, ref) for _, ref in puts]
    return [
        Figure(f"{name} {what} 100 KiB", f"p50 {statistics.median(times):.2f} ms, max {max(times):.1f} ms")
        for what, took in (("put", puts), ("fetch", fetches), ("fetch again (cached)", again))
        if (times := [seconds * 1000 for seconds, _ in took])
    ]
