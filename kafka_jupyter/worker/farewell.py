"""The record that ends an attempt: said when all rows before it are in the log, or when it is clear that they do not get there."""

from __future__ import annotations

import time
from typing import Any

from kafka_jupyter import errors, redact
from kafka_jupyter.protocol import control
from kafka_jupyter.runs.lease import heartbeat_period
from kafka_jupyter.worker import endings
from kafka_jupyter.worker.endings import Ending
from kafka_jupyter.worker.reporter import Reporter
from kafka_jupyter.worker.site import Site
from kafka_jupyter.worker.stall import StallClock

logger = redact.logger(__name__)

# Seconds in which Kafka answers and takes none of the rows, after which the record goes without them (others: `outage_grace_s`). Of a
# run that is left to others nothing is lost: rows behind its last checkpoint come again.
RELEASED_S = 5.0
CANCELLED_S = 30.0


class Farewell:
    """Of one attempt; on the supervisor's loop. While Kafka is away it waits: rows may be delayed, they are not lost (rule 9)."""

    def __init__(self, site: Site, own: dict[str, Any], reporter: Reporter) -> None:
        self._site, self._own, self._reporter = site, own, reporter
        self._ending: Ending | None = None
        self._in_vain = StallClock(0.0, 0.0)
        self._written: int | None = None  # the last row that was, when we looked
        self._refused = False
        self.hopeless = False  # Kafka takes no record of the end: the lease will run out

    def say(self, ending: Ending) -> None:
        """To be followed by a `tick`, now and again."""
        patience_s = {control.Released: RELEASED_S, control.Cancelled: CANCELLED_S}.get(
            type(ending(None)), self._site.settings.outage_grace_s
        )
        self._ending, self._in_vain = ending, StallClock(patience_s, time.monotonic())

    def tick(self, now_s: float, known_s: float) -> None:
        """`known_s`: all that stood in the log then has been read."""
        if self._ending is None or not (self._reporter.empty or self._is_in_vain(now_s, known_s)):
            return
        if not self._reporter.empty:
            run_id, n, count = self._own["run_id"], self._own["n"], self._reporter.behind
            logger.warning("attempt %d of %s ends without its last %d row(s): Kafka does not take them", n, run_id, count)
        ending, self._ending = self._ending, None
        self._site.outbox.put(ending(self._reporter.last_offset), lambda error: self._site.post(lambda: self._on_refused(error)))

    def drop(self) -> None:
        """The attempt is over: nothing is to be said any more."""
        self._ending, self._refused = None, True

    def _is_in_vain(self, now_s: float, known_s: float) -> bool:
        away = now_s - known_s > heartbeat_period(self._site.settings.lease_ttl_s)
        if away or self._reporter.last_offset != self._written:
            self._written = self._reporter.last_offset
            self._in_vain.step()
        return self._in_vain.stalled(now_s)

    def _on_refused(self, error: errors.RecordTooLarge) -> None:
        """The record is larger than Kafka takes: a smaller one says so."""
        if self._refused:
            self.hopeless = True
        else:
            self._refused = True
            self.say(endings.refusal(self._own, error, trained=True))
