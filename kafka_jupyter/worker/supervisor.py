"""The supervisor: one loop, one queue, the single owner of a worker's state (design §2.5). It never imports Keras.

Threads only hand over: the follower (what the log says), dispatch (tasks of our partitions), the prober (end offsets), the
children's reader, the pool, the producer's delivery reports. Each posts a callable; the loop runs it.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import faulthandler
import logging
import os
import queue
import secrets
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import msgspec

from kafka_jupyter import errors, redact
from kafka_jupyter.brokers.change import Change
from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.brokers.kafka import Cluster, Partition
from kafka_jupyter.brokers.local import resolve
from kafka_jupyter.brokers.log import Log, SignedTask
from kafka_jupyter.brokers.outbox import Outbox
from kafka_jupyter.brokers.reader import Reader
from kafka_jupyter.protocol import control, frames, letters, topics
from kafka_jupyter.protocol.control import TaskPlace
from kafka_jupyter.protocol.workers import WorkerInfo
from kafka_jupyter.runs.lease import heartbeat_period
from kafka_jupyter.runs.state import RunState
from kafka_jupyter.settings import Settings
from kafka_jupyter.store import open_store
from kafka_jupyter.worker import announcing
from kafka_jupyter.worker.attempt import Attempt
from kafka_jupyter.worker.caging import cage_of, guard_ourselves
from kafka_jupyter.worker.children import Children
from kafka_jupyter.worker.claims import Claims
from kafka_jupyter.worker.dispatch import CommitTracker, Dispatch, TaskSeen
from kafka_jupyter.worker.prober import Prober
from kafka_jupyter.worker.reaper import Reaper
from kafka_jupyter.worker.site import Site
from kafka_jupyter.worker.snapshotter import Snapshotter

logger = redact.logger(__name__)

SHUTDOWN_S = 10.0  # a shutdown waits so long for its records to be read back, and for the store
AWAY_S = 10.0  # without an answer of Kafka, until that is said
TURN_S = 0.1  # of work in the queue before heartbeats and the like are looked after again
RECENT_TASKS = 8  # kept in memory, at most 512 KiB each
ORPHAN_AGE_MS = topics.DAY_MS  # an older task that has no control records left is history, not work


class Supervisor:
    """A worker with `slots` slots. `run()` returns after `stop()` (or SIGTERM, see `main`)."""

    def __init__(self, settings: Settings, slots: int = 1, name: str = "") -> None:
        self.settings = settings
        self.host = socket.gethostname()
        self.worker_id = f"{name or self.host}-{secrets.token_hex(2)}"
        self._name, self._slots = name or self.host, slots
        self._queue: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._attempts: dict[str, Attempt] = {}
        self._orphans: dict[str, RunState] = {}  # tasks that have no Submitted yet
        self._recent: dict[TaskPlace, SignedTask] = {}  # the last tasks of our partitions: most are claimed at once, and needed then
        self._owned: set[Partition] = set()
        self._claims = Claims(settings.claim_grace_s)
        self._commits = CommitTracker()
        self._told_to_stop = threading.Event()
        self._stopping = False
        self._stop_deadline_s = 0.0
        self._announced = False
        self._info_due_s = 0.0
        self._next_claim_s: float | None = None
        self._waiting_changed = True
        self._last_contact_s = time.monotonic()
        self._away = False  # Kafka, for so long that it was said
        self._equipment = frames.Equipment()
        self.stuck = self.outdated = False  # after `run`: a thread waits for the store; the trust file distrusts other keys than before

    # --- life

    def run(self) -> None:
        """Works until stopped. Raises BrokerError when there is no Kafka to begin with, or when it can never be heard again: a worker
        that cannot claim must not stay announced as free; NotTrusted when nobody would believe it."""
        with contextlib.ExitStack() as closing:
            children = Children(name="kafka_jupyter-children", cage=cage_of(self.settings))  # first: it imports Keras meanwhile
            closing.callback(children.close)
            log = Log.open(Cluster(self.settings))
            closing.callback(log.close)
            log.check_own(WorkerInfo)
            store = open_store(self.settings, log)
            closing.callback(store.close)
            asking = Reader(log.cluster)
            closing.callback(asking.close)
            folder = closing.enter_context(tempfile.TemporaryDirectory(prefix="kafka_jupyter-", ignore_cleanup_errors=True))
            pool = concurrent.futures.ThreadPoolExecutor(max(4, 2 * self._slots), "kafka_jupyter-transfer")
            closing.callback(self._end, pool)
            follower = Follower(log, rows=False, ends_outdated=False)
            self._site = Site(
                self.settings, self.worker_id, self.host, self._slots, Path(folder), log, follower, store, Outbox(log),
                children, asking, pool, self._queue.put,
            )  # fmt: skip
            self._prober = Prober(log, asking, self.settings.lease_ttl_s, self._on_end)
            closing.callback(self._prober.close)
            self._reaper = Reaper(log, follower, self.worker_id, self.settings.lease_ttl_s)
            closing.callback(self._reaper.close)
            closing.callback(follower.close)
            self._snapshotter = Snapshotter(log, follower, self.worker_id)
            self._dispatch = Dispatch(log, lambda seen: self._queue.put(lambda: self._on_task(seen)), self._on_owned)
            closing.callback(self._leave)
            self._begin()
            self._loop()

    def _begin(self) -> None:
        logger.info("worker %s loads Keras", self.worker_id)
        self._equipment = self._site.children.equipment()
        if self._equipment.unfit:
            logger.error("this worker cannot train: %s", self._equipment.unfit)
        self._site.follower.subscribe(lambda change: self._queue.put(lambda: self._on_change(change)))
        if not self._site.follower.catch_up(self._told_to_stop.is_set):
            return
        self._last_contact_s = time.monotonic()
        self._announce(time.monotonic())
        self._announced = True
        self._dispatch.start()
        self._prober.start()
        logger.info("worker %s is ready: %d slot(s), %s", self.worker_id, self._slots, self._equipment.versions)

    def _leave(self) -> None:
        """Nobody offers this worker anything any more, and no child is left."""
        self._stopping = True
        self._dispatch.close()
        self._site.children.close()
        try:
            if self._announced:
                self._site.log.bury(topics.WORKER_STATE, self.worker_id, "worker")
        except errors.BrokerError as failure:
            logger.warning("no goodbye to Kafka: %s", failure)

    def _end(self, pool: concurrent.futures.ThreadPoolExecutor) -> None:
        """What is on its way to the store or from it comes to its end, unless the store is silent: nobody can end such a thread."""
        ended = threading.Event()

        def end() -> None:
            pool.shutdown(wait=True, cancel_futures=True)
            ended.set()

        threading.Thread(target=end, name="kafka_jupyter-end", daemon=True).start()
        self.stuck = not ended.wait(SHUTDOWN_S)

    def stop(self) -> None:
        """Stops claiming, ends what runs with Released, says goodbye. From any thread; a signal handler may call it."""
        self._told_to_stop.set()
        self._queue.put(self._begin_stop)

    def _begin_stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._stop_deadline_s = time.monotonic() + SHUTDOWN_S
            for attempt in self._attempts.values():
                attempt.shut_down()

    # --- the loop

    def _loop(self) -> None:
        while not (self._stopping and (not self._attempts or time.monotonic() > self._stop_deadline_s)):
            try:
                self._queue.get(timeout=self._patience(time.monotonic()))()
                until_s = time.monotonic() + TURN_S
                while time.monotonic() < until_s:
                    self._queue.get_nowait()()
            except queue.Empty:
                pass
            self._tick(time.monotonic())

    def _patience(self, now_s: float) -> float:
        """Seconds until something is due."""
        tick = min(0.25, heartbeat_period(self.settings.lease_ttl_s) / 2)
        return tick if self._next_claim_s is None or self._away else min(tick, max(0.0, self._next_claim_s - now_s))

    def _tick(self, now_s: float) -> None:
        self._check()
        if self._site.follower.outdated and not self.outdated:
            self.outdated = True
            logger.warning("the trust file distrusts other keys now: what runs is handed over, and the log read once more")
            self._begin_stop()
        for attempt in list(self._attempts.values()):
            attempt.tick(now_s)
            if attempt.finished:
                del self._attempts[attempt.run_id]
                self._claims.saw_end(attempt.healthy, now_s)
                self._waiting_changed = True
                self._info_due_s = now_s
        self._site.outbox.tick(now_s)
        if not self._away and (self._waiting_changed or (self._next_claim_s is not None and now_s >= self._next_claim_s)):
            self._claim(now_s)
        self._reaper.tick(now_s, set(self._attempts))
        self._snapshotter.tick(now_s)
        self._tell_whether_kafka_is_away(now_s)
        if now_s - self._last_contact_s > self.settings.outage_grace_s:
            for attempt in self._attempts.values():
                attempt.disown()
        if self._spare_is_useful(now_s):
            self._site.children.keep_spare()
        self._dispatch.busy(self._free() == 0 and not self._commits.behind)
        self._dispatch.commit(self._commits.due())
        if now_s >= self._info_due_s:
            self._announce(now_s)

    def _tell_whether_kafka_is_away(self, now_s: float) -> None:
        away, grace_s = now_s - self._last_contact_s > AWAY_S, self.settings.outage_grace_s
        if away and not self._away:
            logger.warning("Kafka does not answer: trainings go on for %g s (outage_grace_s). %s", grace_s, self._site.follower.trouble)
        elif self._away and not away:
            logger.warning("Kafka answers again")
        self._away = away

    def _check(self) -> None:
        """Raises what has ended the threads that hear of runs, or of children."""
        failure = self._site.follower.failure or self._dispatch.failure or self._prober.failure or self._site.children.failure
        if failure is not None:
            raise failure

    def _free(self) -> int:
        """Claims in flight count as used."""
        return 0 if self._stopping or self._unfit else max(0, self._slots - len(self._attempts))

    @property
    def _unfit(self) -> str:
        return self._equipment.unfit or self._site.children.unfit

    def _spare_is_useful(self, now_s: float) -> bool:
        """Where a slot is free, and no short training would be slowed by it. A child that waits on a GPU would hold its memory."""
        free, device = self._free(), self._equipment.device
        return free > 0 and device == "cpu" and all(attempt.settled(now_s) for attempt in self._attempts.values())

    # --- what is heard

    def _on_change(self, change: Change) -> None:
        self._last_contact_s = time.monotonic()
        if change.worker is not None or change.gone:
            self._waiting_changed = self._waiting_changed or bool(change.gone)
            return
        state = change.state
        if state is None:
            return
        if change.record is not None:
            self._site.outbox.saw(change.record)
        self._waiting_changed = True
        self._orphans.pop(state.run_id, None)
        if state.last_n or state.terminal:
            self._commits.claimed(state.run_id, state.task)
        attempt = self._attempts.get(state.run_id)
        if attempt is not None:
            before = attempt.won
            attempt.on_state(state, self._stopping)
            if attempt.won is not before:
                self._info_due_s = 0.0
        self._release_unwanted(change.record, state)
        self._reaper.saw(change)
        self._snapshotter.saw(change)

    def _release_unwanted(self, record: control.Record | None, state: RunState) -> None:
        """A claim that was given up before it won (in an outage, say) leaves nobody waiting for us (rule 5)."""
        attempt = self._attempts.get(state.run_id)
        if not isinstance(record, control.Claimed) or state.open is None or state.open.worker != self.worker_id:
            return
        if record.nonce == state.open.nonce and (attempt is None or attempt.nonce != record.nonce):
            self._site.log.gate.signer.bind(record.nonce, state.open.kid)
            given_up = control.Released(run_id=record.run_id, n=record.n, worker=record.worker, nonce=record.nonce, reason="unwanted")
            self._site.outbox.put(given_up)

    def _on_owned(self, owned: set[Partition]) -> None:
        def take() -> None:
            self._owned = owned
            self._commits.owned(owned)
            self._waiting_changed = True

        self._queue.put(take)

    def _on_task(self, seen: TaskSeen) -> None:
        """A record of a partition that we own."""
        run_id = seen.key.decode("utf-8", "replace")
        state = self._site.follower.state(run_id)
        claimed = seen.task is None or (state is not None and (state.terminal or state.last_n > 0))
        self._commits.seen(seen.place, run_id, claimed)
        if seen.task is None:
            if not seen.newer and not seen.refused:  # a stranger may write any run's key: no letter, no end for that run
                self._bury_junk(run_id, seen)
            return
        self._recent[seen.place] = seen.task
        if len(self._recent) > RECENT_TASKS:
            del self._recent[next(iter(self._recent))]
        if state is None and time.time() * 1000 - seen.time_ms < ORPHAN_AGE_MS:
            task = seen.task.task
            announced = control.Submitted(run_id=run_id, task=seen.place, requirements=task.requirements, priority=task.priority)
            self._orphans[run_id] = RunState(run_id, submitted=announced, task=seen.place, first_ms=seen.time_ms)
            self._waiting_changed = True

    def _bury_junk(self, run_id: str, seen: TaskSeen) -> None:
        letter = letters.DeadLetter(
            run_id, seen.why, place=seen.place, task=seen.value[:65536].decode("utf-8", "replace"), by=self.worker_id
        )
        try:
            self._site.log.send(topics.TASK_DLQ, run_id[:200], msgspec.json.encode(letter), letters.TYPE)
        except errors.BrokerError as failure:
            logger.warning("no letter for the junk at %s[%d]@%d: %s", seen.place.topic, seen.place.partition, seen.place.offset, failure)

    def _on_end(self, partition: int, end: int, asked_s: float) -> None:
        """Where this partition of run_control ended at `asked_s`. Told by the prober's thread, taken in by the loop."""

        def take() -> None:
            self._last_contact_s = max(self._last_contact_s, asked_s)
            self._reaper.caught_up(partition, end, asked_s)
            if self._site.follower.position((self._site.log.topics.name(topics.RUN_CONTROL), partition)) >= end:
                for run_id, attempt in self._attempts.items():
                    if self._site.log.topics.place(topics.RUN_CONTROL, run_id)[1] == partition:
                        attempt.caught_up(asked_s)

        self._queue.put(take)

    # --- what is done

    def _claim(self, now_s: float) -> None:
        self._waiting_changed = False
        waiting = [state for state in (*self._site.follower.waiting(), *self._orphans.values()) if state.run_id not in self._attempts]
        me = self._info()
        choice = self._claims.choose(waiting, me, self._site.follower.workers(), self._owned, self._free(), now_s)
        self._next_claim_s = choice.next_s
        for state in choice.runs:
            assert state.task is not None
            self._attempts[state.run_id] = Attempt(self._site, state, now_s, self._recent.pop(state.task, None))

    def _announce(self, now_s: float) -> None:
        self._info_due_s = now_s + announcing.PERIOD_S
        try:
            self._site.log.send_worker(self._info())
        except errors.BrokerError as failure:
            logger.debug("worker_state not sent: %s", failure)

    def _info(self) -> WorkerInfo:
        running = (run_id for run_id, attempt in self._attempts.items() if attempt.won)
        told = (self._free(), running, self._unfit, list(self._dispatch.refused))
        return announcing.info_of(self._site, self._name, self._equipment, *told)


def main(settings: Settings, slots: int = 1, name: str = "") -> None:
    """A worker in the foreground, until SIGTERM or Ctrl-C. What it does goes to stderr; after SIGUSR1 also where each of its threads is."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("kafka_jupyter").setLevel(logging.INFO)
    if hasattr(faulthandler, "register"):  # POSIX
        faulthandler.register(signal.SIGUSR1)
    guard_ourselves()
    told_to_stop = False
    supervisor = Supervisor(resolve(settings), slots, name)

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal told_to_stop
        told_to_stop = True
        supervisor.stop()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    supervisor.run()
    while supervisor.outdated and not (supervisor.stuck or told_to_stop):
        supervisor = Supervisor(resolve(settings), slots, name)
        supervisor.run()
    if supervisor.stuck:
        logger.warning("the store is silent: the thread that waits for it is left behind")
        logging.shutdown()
        os._exit(0)  # the interpreter would wait for its threads
