"""What the attempts of one worker share: the log, the store, the children, the loop that they run on."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import pathlib
from collections.abc import Callable
from typing import TypeVar

from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.brokers.outbox import Outbox
from kafka_jupyter.brokers.reader import Reader
from kafka_jupyter.settings import Settings
from kafka_jupyter.store import Store
from kafka_jupyter.worker.children import Children

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Site:
    settings: Settings
    worker_id: str
    host: str
    slots: int
    folder: pathlib.Path  # the attempts' own folders lie below it
    log: Log
    follower: Follower
    store: Store
    outbox: Outbox
    children: Children
    asking: Reader  # never assigned: answers end offsets, from any thread
    pool: concurrent.futures.ThreadPoolExecutor
    post: Callable[[Callable[[], None]], None]  # runs something on the supervisor's loop, from any thread

    def aside(self, work: Callable[[], Result], then: Callable[[Result | Exception], None]) -> None:
        """Runs `work` in the pool and `then(result or exception)` on the loop."""

        def run() -> None:
            outcome: Result | Exception
            try:
                outcome = work()
            except Exception as failure:  # noqa: BLE001  # `then` gets it: a pool has no caller
                outcome = failure
            self.post(lambda: then(outcome))

        self.pool.submit(run)
