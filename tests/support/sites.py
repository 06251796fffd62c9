"""What the attempts of a worker share, with a real log, store and pool; its loop is turned by the test."""

from __future__ import annotations

import concurrent.futures
import contextlib
import pathlib
import queue
from collections.abc import Callable, Iterator

from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.brokers.outbox import Outbox
from kafka_jupyter.brokers.reader import Reader
from kafka_jupyter.settings import Settings
from kafka_jupyter.store import open_store
from kafka_jupyter.worker.children import Children
from kafka_jupyter.worker.site import Site

Loop = queue.SimpleQueue[Callable[[], None]]


@contextlib.contextmanager
def a_site(log: Log, settings: Settings, folder: pathlib.Path, children: Children) -> Iterator[tuple[Site, Loop]]:
    """That of the worker `box-1`, and what others hand over to its loop."""
    loop: Loop = queue.SimpleQueue()
    with contextlib.ExitStack() as closing:
        store = closing.enter_context(contextlib.closing(open_store(settings, log)))
        follower = closing.enter_context(contextlib.closing(Follower(log, rows=False)))
        prober = closing.enter_context(contextlib.closing(Reader(log.cluster)))
        pool = closing.enter_context(concurrent.futures.ThreadPoolExecutor(2))
        follower.start()
        yield Site(settings, "box-1", "box", 1, folder, log, follower, store, Outbox(log), children, prober, pool, loop.put), loop
