"""ipyparallel: two engines behind a load-balanced view; progress by `publish_data`, which the client keeps up to date by itself."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

from benchmarks.peers import remote
from benchmarks.peers.system import Clock, System, Times

LOOK_S = 0.0005  # there is nothing to wait on but what was published last
_numbers = itertools.count()


def _train(model: Any, x: Any, y: Any, epochs: int, batch_size: int) -> list[Any]:
    from ipyparallel.datapub import publish_data

    ends: list[float] = []

    def report(at: float) -> None:
        ends.append(at)
        publish_data({"ends": ends})

    return remote.fit(model, x, y, epochs, batch_size, report)


class Ipyparallel(System):
    name, keeps = "ipyparallel", "nothing: results live in its processes"

    def __init__(self) -> None:
        import ipyparallel

        self._cluster = ipyparallel.Cluster(n=2, log_level=40)
        self._client = self._cluster.start_and_connect_sync()
        self._view = self._client.load_balanced_view()
        self._client[:].apply_sync(remote.tiny, next(_numbers))

    def train(self, model: Any, data: tuple[Any, Any], epochs: int, batch_size: int) -> Times:
        clock = Clock(epochs)
        result = self._view.apply_async(_train, model, *data, epochs, batch_size)
        clock.returned()
        looking = threading.Thread(target=_look, args=(result, clock, epochs))
        looking.start()
        model.set_weights(result.get())
        times = clock.done()
        looking.join()
        return times

    def start(self) -> float:
        called = time.time()
        return float(self._view.apply_async(remote.began, next(_numbers)).get()) - called

    def many(self, count: int) -> float:
        began_s = time.perf_counter()
        self._view.map_async(remote.tiny, [next(_numbers) for _ in range(count)], chunksize=1).get()
        return time.perf_counter() - began_s

    def close(self) -> None:
        self._client.close()
        self._cluster.stop_cluster_sync()


def _look(result: Any, clock: Clock, epochs: int) -> None:
    seen = 0
    while seen < epochs:
        for at in (result.data or {}).get("ends", [])[seen:]:
            clock.seen(at)
            seen += 1
        time.sleep(LOOK_S)
