"""The prober: asks where each partition of `run_control` ends, so that a worker knows what it does not know (design §2.2 rule 6)."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from kafka_jupyter import errors, redact
from kafka_jupyter.brokers.admin import Admin
from kafka_jupyter.brokers.kafka import Partition
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.brokers.reader import Reader
from kafka_jupyter.protocol import topics
from kafka_jupyter.runs.lease import heartbeat_period

logger = redact.logger(__name__)

MISSING_S = 5.0  # a topic that is gone for longer does not come back as it was


class Prober:
    """A thread that asks twice a heartbeat. `on_end(partition, end offset, when it was asked)` is called there and must only hand over.

    A partition that nobody leads keeps no answer from the others: it is asked last, with what is left of the time.
    """

    def __init__(self, log: Log, reader: Reader, ttl_s: float, on_end: Callable[[int, int, float], None]) -> None:
        self._log, self._reader, self._on_end = log, reader, on_end
        self._period_s = heartbeat_period(ttl_s) / 2
        self._silent: set[Partition] = set()  # gave no answer the last time
        self._missing_since_s = math.inf
        self._stopping = threading.Event()
        self.failure: errors.BrokerError | None = None  # our reader will never be told of anything again
        self._thread = threading.Thread(target=self._run, name="kafka_jupyter-prober", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """At most one question later it is over."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(10)

    def _run(self) -> None:
        places = self._log.topics.all_places(topics.RUN_CONTROL)
        admin: Admin | None = None  # only while a topic seems to be gone: it is a client more
        while not self._stopping.is_set():
            begin_s = time.monotonic()
            missing = self._ask(places, begin_s + self._period_s)
            admin = (admin or Admin(self._log.cluster)) if missing is not None else None
            gone = admin is not None and self._is_missing(admin)
            self._missing_since_s = min(self._missing_since_s, begin_s) if gone else math.inf
            if begin_s - self._missing_since_s > MISSING_S:
                self.failure = missing
                return
            self._stopping.wait(max(0.0, begin_s + self._period_s - time.monotonic()))

    def _ask(self, places: list[Partition], until_s: float) -> errors.TopicMissing | None:
        """All of them once. What a client says that believes the topic to be gone is returned."""
        missing = None
        silent = [place for place in places if place in self._silent]
        for place in [*(place for place in places if place not in self._silent), *silent]:
            asked_s, patience_s = time.monotonic(), self._period_s
            if place in silent:
                patience_s = max(0.05, (until_s - asked_s) / (len(silent) - silent.index(place)))
            try:
                end = self._reader.bounds(place, patience_s)[1]
            except errors.BrokerError as failure:
                logger.debug("no end offset of %s: %s", place, failure)
                self._silent.add(place)
                missing = failure if isinstance(failure, errors.TopicMissing) else missing
            else:
                self._silent.discard(place)
                self._on_end(place[1], end, asked_s)
            if self._stopping.is_set():
                break
        return missing

    def _is_missing(self, admin: Admin) -> bool:
        """Whether a broker says so: a client that reaches none may believe it as well."""
        try:
            return self._log.topics.name(topics.RUN_CONTROL) not in admin.info(self._period_s).partitions
        except errors.BrokerError:
            return False
