"""How fast the store is, as a ratio to a plain copy of the same bytes in the same run: `python -m benchmarks.store [MiB]`.

The copy ends with an fsync, as every put does. Starts a local Kafka of its own and stops it.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from kafka_jupyter.brokers import local
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.settings import Settings
from kafka_jupyter.store import Store, digest, open_store

ROUNDS = 5
SMALL = 100 << 10  # bytes: the weights of a small model
SMALL_ROUNDS = 100


T = TypeVar("T")


def timed(work: Callable[..., T], *arguments: Any) -> tuple[float, T]:
    started = time.perf_counter()
    result = work(*arguments)
    return time.perf_counter() - started, result


def plain_copy(source: pathlib.Path, target: pathlib.Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    target.unlink()


@contextlib.contextmanager
def stores(folder: pathlib.Path) -> Iterator[dict[str, Store]]:
    settings = Settings(data_dir=folder / "kafka", cache_dir=folder / "cache")
    endpoint = local.up(settings)
    try:
        settings = settings.replace(bootstrap_servers=endpoint.servers)
        with contextlib.closing(Log.open(Cluster(settings), create=True)) as log, contextlib.ExitStack() as stack:
            urls = {"kafka:": "kafka:", "file:": f"file://{folder}/store"}
            yield {
                name: stack.enter_context(contextlib.closing(open_store(settings.replace(store=url), log))) for name, url in urls.items()
            }
    finally:
        local.down(settings)


def measure_large(name: str, store: Store, source: pathlib.Path) -> None:
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
    print(f"| {name} put {mib:.0f} MiB | {mib / put:.0f} MiB/s | {put / copy:.2f} × a copy ({mib / copy:.0f} MiB/s) |")
    print(f"| {name} fetch {mib:.0f} MiB | {mib / fetch:.0f} MiB/s | {fetch / copy:.2f} × a copy |")


def measure_small(name: str, store: Store) -> None:
    puts = [timed(store.put, "small", SMALL, [os.urandom(SMALL)]) for _ in range(SMALL_ROUNDS)]
    fetches = [timed(store.fetch, ref) for _, ref in puts]
    again = [timed(store.fetch, ref) for _, ref in puts]
    for what, took in (("put", puts), ("fetch", fetches), ("fetch again (cached)", again)):
        times = [seconds * 1000 for seconds, _ in took]
        print(f"| {name} {what} 100 KiB | p50 {statistics.median(times):.2f} ms | max {max(times):.1f} ms |")


def main(mib: int) -> None:
    print("| what | speed | ratio |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        source = folder / "source"
        source.write_bytes(os.urandom(mib << 20))
        data = source.read_bytes()
        print(f"| sha256 | {mib / timed(digest, [data])[0]:.0f} MiB/s | |")
        with stores(folder) as each:
            for kind, store in each.items():
                store.put("warm", 1, [b"x"])
                measure_large(kind, store, source)
                measure_small(kind, store)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
