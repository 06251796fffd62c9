"""What every worker does for all runs: expire silent attempts, end what is too old, write the consequences of DEAD.

All workers see the same; ranks make one act and the others follow only if it does not (design §2.2 rule 6, §2.3).
"""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Callable

import msgspec

from kafka_jupyter import errors, redact
from kafka_jupyter.brokers.change import Change
from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.brokers.producer import Producer
from kafka_jupyter.protocol import control, letters, topics
from kafka_jupyter.runs import choose, view
from kafka_jupyter.runs.lease import SilenceClock, heartbeat_period
from kafka_jupyter.runs.state import RunState, State, too_old_ms

logger = redact.logger(__name__)

TOO_OLD_CHECK_S = 60.0
CONSEQUENCE_STEP_S = 1.0  # between ranks; readers deduplicate
LETTER_AGAIN_S = 5.0  # a letter that did not arrive is written again after this


class Reaper:
    """Used by the supervisor's loop only."""

    def __init__(self, log: Log, follower: Follower, worker_id: str, ttl_s: float) -> None:
        self._log, self._follower, self._worker_id = log, follower, worker_id
        self._ttl_s, self._period_s = ttl_s, heartbeat_period(ttl_s)
        self._clocks = {place[1]: SilenceClock(ttl_s) for place in log.topics.all_places(topics.RUN_CONTROL)}
        # An Expired that arrives late would be useless: it gives up early.
        self._producer = Producer(log.cluster, delivery_timeout_s=self._period_s)
        self._since: dict[tuple[str, int], float] = {}  # (run id, offset of its last record) → since when it is to be expired
        self._sent: dict[tuple[str, int], float] = {}  # … → when we sent its Expired
        self._dead: dict[str, float] = {}  # DEAD runs whose consequences nobody has written yet → when we would
        self._letters: queue.SimpleQueue[tuple[RunState, str, errors.BrokerError | None]] = (
            queue.SimpleQueue()
        )  # state, why, what became of it
        self._undelivered: set[str] = set()  # runs whose letter did not arrive, as was said
        self._next_age_check_s = 0.0

    def caught_up(self, partition: int, end: int, asked_s: float) -> None:
        """The broker's answer: where the partition ended when it was asked, at `asked_s` (monotonic)."""
        if self._follower.position((self._log.topics.name(topics.RUN_CONTROL), partition)) >= end:
            self._clocks[partition].caught_up(asked_s)

    def tick(self, now_s: float, mine: set[str]) -> None:
        """Expires the silent. `mine`: runs that this worker itself is busy with."""
        by_partition: dict[int, list[RunState]] = {partition: [] for partition in self._clocks}
        for state in self._follower.active():
            if state.open is not None and state.run_id not in mine:
                by_partition[self._log.topics.place(topics.RUN_CONTROL, state.run_id)[1]].append(state)
        silent = [state for partition, clock in self._clocks.items() for state in clock.expired(by_partition[partition], now_s)]
        self._expire(silent, now_s)
        if now_s >= self._next_age_check_s:
            self._next_age_check_s = now_s + TOO_OLD_CHECK_S
            self._end_too_old()
        for run_id in [run_id for run_id, due in self._dead.items() if due <= now_s]:
            del self._dead[run_id]
            self._bury(run_id)
        while not self._letters.empty():
            self._on_letter(*self._letters.get())

    def saw(self, change: Change) -> None:
        if isinstance(change.record, control.Dead):
            self._dead.pop(change.run_id, None)
        elif change.state is not None and change.state.state is State.DEAD and change.state.end_offset == change.offset:
            self._dead[change.run_id] = time.monotonic() + CONSEQUENCE_STEP_S * self._rank(change.run_id)

    def close(self) -> None:
        self._producer.close()

    def _rank(self, run_id: str) -> int:
        return choose.rank(run_id, self._worker_id, [worker.worker_id for worker in self._follower.workers()])

    def _expire(self, silent: list[RunState], now_s: float) -> None:
        keys = {(state.run_id, state.open.last): state for state in silent if state.open is not None}
        self._since = {key: since for key, since in self._since.items() if key in keys}
        self._sent = {key: sent for key, sent in self._sent.items() if key in keys}
        for key, state in keys.items():
            assert state.open is not None
            since = self._since.setdefault(key, now_s)
            if now_s - since < self._rank(state.run_id) * self._period_s or now_s - self._sent.get(key, -math.inf) < self._ttl_s:
                continue
            # Another one after a whole lease of silence: the first may have been lost, and `after` makes a late one harmless.
            self._sent[key] = now_s
            logger.info("attempt %d of %s has been silent for too long", state.open.n, state.run_id)
            self._expired(control.Expired(run_id=state.run_id, n=state.open.n, after=state.open.last, reaper=self._worker_id))

    def _end_too_old(self) -> None:
        """Asks for the end of what is about to leave the log. Our wall clock only decides when to ask; append times decide."""
        now_ms = time.time() * 1000
        for state in self._follower.active():
            if now_ms >= too_old_ms(state) and not state.newer and self._rank(state.run_id) == 0:
                self._tell(control.TooOld(run_id=state.run_id, reaper=self._worker_id), lambda _: None)  # asked for again by and by

    def _bury(self, run_id: str) -> None:
        """Its letter, and when that is in the log the Dead, which tells the other reapers that nothing is left to do."""
        state = self._follower.state(run_id)
        if state is None or state.state is not State.DEAD:
            return
        error = view.failure_of(state) or {}
        why = f"{error.get('error', '')}: {error.get('message', '')}"
        letter = letters.DeadLetter(
            run_id, why, place=state.task, attempts=state.last_n, traceback=str(error.get("traceback", "")), by=self._worker_id
        )
        try:
            text = msgspec.json.encode(letter)
            self._log.send(topics.TASK_DLQ, run_id, text, letters.TYPE, lambda failure, _: self._letters.put((state, why, failure)))
        except errors.BrokerError as failure:
            self._letters.put((state, why, failure))

    def _on_letter(self, state: RunState, why: str, failure: errors.BrokerError | None) -> None:
        if failure is None:
            self._undelivered.discard(state.run_id)
            dead = control.Dead(run_id=state.run_id, reaper=self._worker_id, reason=why)
            # One that is lost: the letter again, and then it; who reads letters knows them by their run.
            self._tell(dead, lambda failure: self._letters.put((state, why, failure)) if failure is not None else None)
            return
        self._dead[state.run_id] = time.monotonic() + LETTER_AGAIN_S
        if state.run_id not in self._undelivered:
            self._undelivered.add(state.run_id)
            logger.warning("the letter of %s, which is DEAD, waits: %s", state.run_id, failure)

    def _expired(self, record: control.Expired) -> None:
        try:
            self._log.send_control(record, by=self._producer)
        except errors.BrokerError as failure:
            logger.warning("could not append Expired for %s: %s", record.run_id, failure)

    def _tell(self, record: control.Record, told: Callable[[errors.BrokerError | None], None]) -> None:
        """What is as true later: with all the time that a delivery may take."""
        try:
            self._log.send_control(record, lambda failure, _: told(failure))
        except errors.BrokerError as failure:
            told(failure)
