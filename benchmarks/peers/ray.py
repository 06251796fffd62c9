"""Ray: two actors that have Keras loaded; progress by a streaming generator."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.peers import remote
from benchmarks.peers.system import Clock, System, Times

_numbers = itertools.count()


class _Trainer:
    def train(self, model: Any, x: Any, y: Any, epochs: int, batch_size: int) -> Iterator[Any]:
        """Each epoch's time as it ends, then the weights: `fit` runs beside, for a generator has to yield by itself."""
        said: queue.SimpleQueue[Any] = queue.SimpleQueue()
        training = threading.Thread(target=lambda: said.put(remote.fit(model, x, y, epochs, batch_size, said.put)))
        training.start()
        while not isinstance(heard := said.get(), list):
            yield heard
        yield heard

    def tiny(self, number: int) -> int:
        return remote.tiny(number)

    def began(self, number: int) -> float:
        return remote.began(number)


class Ray(System):
    name, keeps = "Ray", "nothing: results live in its processes"

    def __init__(self) -> None:
        import ray

        self._ray = ray
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
        trainer = ray.remote(num_cpus=1)(_Trainer)
        self._actors = [trainer.remote() for _ in range(2)]
        ray.get([actor.tiny.remote(next(_numbers)) for actor in self._actors])

    def train(self, model: Any, data: tuple[Any, Any], epochs: int, batch_size: int) -> Times:
        clock = Clock(epochs)
        told = self._actors[0].train.options(num_returns="streaming").remote(model, *data, epochs, batch_size)
        clock.returned()
        for reference in told:
            heard = self._ray.get(reference)
            if isinstance(heard, list):
                model.set_weights(heard)
            else:
                clock.seen(heard)
        return clock.done()

    def start(self) -> float:
        called = time.time()
        return float(self._ray.get(self._actors[0].began.remote(next(_numbers)))) - called

    def many(self, count: int) -> float:
        began_s = time.perf_counter()
        self._ray.get([self._actors[i % 2].tiny.remote(next(_numbers)) for i in range(count)])
        return time.perf_counter() - began_s

    def close(self) -> None:
        self._ray.shutdown()
