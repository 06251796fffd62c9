"""Dask: a LocalCluster of two processes with a thread each; progress by `log_event` and `subscribe_topic`."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

from benchmarks.peers import remote
from benchmarks.peers.system import Clock, System, Times

_numbers = itertools.count()


def _train(model: Any, x: Any, y: Any, epochs: int, batch_size: int, topic: str) -> list[Any]:
    from distributed import get_worker

    worker = get_worker()
    return remote.fit(model, x, y, epochs, batch_size, lambda at: worker.log_event(topic, at))


class Dask(System):
    name, keeps = "Dask", "nothing: results live in its processes"

    def __init__(self) -> None:
        from distributed import Client, LocalCluster

        self._cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
        self._client = Client(self._cluster)
        self._client.run(remote.tiny, next(_numbers))  # on both

    def train(self, model: Any, data: tuple[Any, Any], epochs: int, batch_size: int) -> Times:
        topic = f"epochs-{next(_numbers)}"
        clock = Clock(epochs)
        self._client.subscribe_topic(topic, _handler(clock))
        future = self._client.submit(_train, model, *data, epochs, batch_size, topic, pure=False)
        clock.returned()
        model.set_weights(future.result())
        times = clock.done()
        self._client.unsubscribe_topic(topic)
        return times

    def start(self) -> float:
        called = time.time()
        return float(self._client.submit(remote.began, next(_numbers), pure=False).result()) - called

    def many(self, count: int) -> float:
        began_s = time.perf_counter()
        self._client.gather(self._client.map(remote.tiny, [next(_numbers) for _ in range(count)], pure=False))
        return time.perf_counter() - began_s

    def close(self) -> None:
        self._client.close()
        self._cluster.close()


def _handler(clock: Clock) -> Callable[[Any], None]:
    """Of one event: (the scheduler's time, what was logged)."""
    return lambda event: clock.seen(event[1])
