"""Follower: one thread, one reader, one Ledger for a whole process; whoever wants to know of changes listens.

It starts from the snapshots, reads `run_control` to its end, then `training_log` from where the rows of the active runs begin, if that is
not too far back (`catching_up`). Rows of runs that ended before, or began before that, are read when somebody asks (`history`).
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable

from kafka_jupyter import errors, redact
from kafka_jupyter.brokers import catching_up
from kafka_jupyter.brokers.announced import Announced
from kafka_jupyter.brokers.change import Change, Listener
from kafka_jupyter.brokers.kafka import Message, Partition
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.brokers.reader import BEGINNING
from kafka_jupyter.brokers.relay import Relay
from kafka_jupyter.brokers.run_state import read_snapshots
from kafka_jupyter.protocol import control, topics
from kafka_jupyter.protocol.rows import Row, RowBatch
from kafka_jupyter.protocol.signing import tombstone
from kafka_jupyter.protocol.workers import WorkerInfo
from kafka_jupyter.runs import choose, snapshots, view
from kafka_jupyter.runs.ledger import Ledger
from kafka_jupyter.runs.state import RunState

logger = redact.logger(__name__)

LOOK_S = 1.0  # between two looks at a reader that catches up
ANNOUNCEMENTS_S, ROWS_S = 1.0, 10.0  # of silence, after which announcements and rows that should be there are taken for gone


class Follower:
    """Follows the log. `start()` returns when it is caught up; after that every method answers from memory.

    `rows=False` leaves `training_log` out (a supervisor has no use for it). When the trust file distrusts other keys than it did, all must
    be read once more: it ends with DistrustChanged, unless its owner wants to look after that itself (`outdated`).
    """

    def __init__(self, log: Log, rows: bool = True, ends_outdated: bool = True) -> None:
        self.log = log
        self._ends_outdated = ends_outdated
        self._with_rows = rows
        self._ledger = Ledger()
        self._workers = Announced()
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._listeners: list[Listener] = []
        self._observers: list[Listener] = []
        self._positions: dict[Partition, int] = {}
        self._tails: dict[Partition, int] = {}  # where our copy of each training_log partition begins
        self._complete: set[str] = set()  # runs whose earlier rows were read as well
        self._reader: Relay | None = None
        self._thread: threading.Thread | None = None
        self._beginning = threading.Lock()  # of the thread
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self.beginning = snapshots.Beginning({}, {}, frozenset())
        self.distrust = log.gate.distrust  # under which all this is folded

    # --- life

    def start(self, timeout_s: float = 30.0) -> None:
        """Catches up with the log. Raises BrokerUnreachable and the like, or what stopped the reading."""
        with self._beginning:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="kafka_jupyter-follower", daemon=True)
                self._thread.start()
        if not self._ready.wait(timeout_s):
            raise self.log.cluster.unreachable()
        if self._failure is not None:
            raise self._failure

    def catch_up(self, given_up: Callable[[], bool] = lambda: False) -> bool:
        """As `start`, however long it takes: while it reads, a second reader would be no faster. False once `given_up` says so."""
        while not given_up():
            try:
                self.start(LOOK_S)
                return True
            except errors.BrokerUnreachable:
                if not self.alive:
                    raise
        return False

    def close(self) -> None:
        self._stopping.set()
        with self._beginning:  # another thread may be about to start it
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(5)

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive() and self._failure is None

    @property
    def failure(self) -> BaseException | None:
        """What has ended the reading: nothing will come any more."""
        return self._failure

    @property
    def outdated(self) -> bool:
        """Whether what is known here was folded under another distrust than that of today."""
        return self.log.gate.distrust != self.distrust

    @property
    def trouble(self) -> str:
        """Why no records come at the moment, as the Kafka client says it; empty if all is well."""
        if self._failure is not None:
            return str(self._failure)
        return self._reader.trouble if self._reader else ""

    # --- what is known

    def state(self, run_id: str) -> RunState | None:
        with self._lock:
            return self._ledger.states.get(run_id)

    def states(self) -> list[RunState]:
        with self._lock:
            return list(self._ledger.states.values())

    def newest(self, first: int = 0, count: int | None = None) -> list[RunState]:
        """As Ledger's."""
        with self._lock:
            return self._ledger.newest(first, count)

    def active(self) -> list[RunState]:
        """The runs that have not ended."""
        with self._lock:
            return list(self._ledger.active.values())

    def waiting(self) -> list[RunState]:
        with self._lock:
            return self._ledger.waiting()

    def workers(self, now_s: float | None = None) -> list[WorkerInfo]:
        """Who is alive by our own clock."""
        now = time.monotonic() if now_s is None else now_s
        with self._lock:
            return self._workers.alive(now)

    def history(self, run_id: str) -> view.History:
        """All accepted rows of a run; reads the older ones from Kafka if they are not in memory. KeyError for an unknown run."""
        with self._lock:
            state = self._ledger.states[run_id]
            missing = self._lacks_rows(state)
            until = self._positions.get(self.log.topics.place(topics.TRAINING_LOG, run_id))
        if missing:
            # Outside the lock: this waits for Kafka. Not beyond our position: listeners would never be told of those rows.
            batches = self.log.read_rows(state, until)
            with self._lock:
                for batch, kid in batches:
                    self._ledger.rows(batch, kid)
                self._complete.add(run_id)
                self._ledger.forgotten.discard(run_id)
        with self._lock:
            return self._ledger.history(run_id)

    def rows_of(self, run_id: str, attempt: int) -> list[Row]:
        """All rows of one attempt, accepted or not; reads what is not in memory, as `history` does. KeyError for an unknown run."""
        self.history(run_id)
        with self._lock:
            return self._ledger.rows_of(run_id, attempt)

    def history_here(self, run_id: str) -> view.History | None:
        """The accepted rows that are in memory; never waits. None for an unknown run."""
        with self._lock:
            return self._ledger.history(run_id) if run_id in self._ledger.states else None

    def lacks_rows(self, run_id: str) -> bool:
        """Whether some of the run's rows would have to be read from Kafka."""
        with self._lock:
            state = self._ledger.states.get(run_id)
            return state is not None and self._lacks_rows(state)

    def has_all_rows(self, run_id: str) -> bool:
        """Whether the last row of an ended run has been read."""
        with self._lock:
            state = self._ledger.states.get(run_id)
            if state is None or state.log_end is None or self._lacks_rows(state):
                return True
            return self._positions.get(self.log.topics.place(topics.TRAINING_LOG, run_id), 0) > state.log_end

    def card(self, run_id: str) -> dict[str, object]:
        """What a page shows of a run, with its place in the queue and what it waits for."""
        with self._lock:
            state = self._ledger.states[run_id]
            queue, waiting = None, ""
            if state.claimable:
                queue = 1 + next((i for i, s in enumerate(self._ledger.waiting()) if s.run_id == run_id), 0)
                waiting = choose.waiting_reason(state, self.workers())
            return view.card_state(state, queue=queue, waiting=waiting, now_ms=int(time.time() * 1000))

    def position(self, place: Partition) -> int:
        """The next offset that we have not read yet."""
        with self._lock:
            return self._positions.get(place, 0)

    def positions(self) -> dict[Partition, int]:
        with self._lock:
            return dict(self._positions)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Calls `listener(change)` on our thread after each change: it must be quick and only hand over. Returns the way out."""
        with self._lock:
            self._listeners.append(listener)

        def leave() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return leave

    def observe(self, observer: Listener) -> Callable[[], None]:
        """As `subscribe`, but called while the log stands still: what the observer keeps never differs from what we answer."""
        with self._lock:
            self._observers.append(observer)

        def leave() -> None:
            with self._lock:
                if observer in self._observers:
                    self._observers.remove(observer)

        return leave

    def still(self) -> contextlib.AbstractContextManager[bool]:
        """Nothing is folded meanwhile: several answers that belong together. To be held briefly."""
        return self._lock

    def wait(self, condition: Callable[[], bool], timeout_s: float | None) -> bool:
        """Waits until `condition()` holds, looking after each change; False when the time is over or we were closed."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not condition():
                left = 1.0 if deadline is None else min(1.0, deadline - time.monotonic())
                if left <= 0 or not self.alive:
                    return condition()
                self._changed.wait(left)
            return True

    # --- the thread

    def _run(self) -> None:
        try:
            bases = [topics.RUN_CONTROL, topics.WORKER_STATE] + [topics.TRAINING_LOG] * self._with_rows
            self._reader = Relay(self.log.cluster, [self.log.topics.all_places(base)[0] for base in bases])
            self._catch_up(self._reader)
            self._reader.settle()
            self._ready.set()
            while not self._stopping.is_set():
                for message in self._reader.poll(0.2):
                    self._take(message)
                if self._ends_outdated and self.outdated:
                    raise errors.DistrustChanged(file=self.log.cluster.settings.trust_file)
        except Exception as failure:  # noqa: BLE001  # handed to whoever waits: a thread has no caller
            self._failure = failure
            if not self._stopping.is_set():
                logger.warning("following the log has ended: %s", failure)
        finally:
            self._ready.set()
            if self._reader is not None:
                self._reader.close()
            with self._changed:
                self._changed.notify_all()

    def _catch_up(self, reader: Relay) -> None:
        log_places = self.log.topics.all_places(topics.TRAINING_LOG) if self._with_rows else []
        # Taken before the control records are read: a run that starts in between has its rows behind these offsets,
        # or its Started says that they begin earlier (see `_lacks_rows`). And all bounds are asked for before the first
        # `assign`: a broker answers one connection in order, a question would wait behind a fetch.
        log_bounds = {place: reader.bounds(place) for place in log_places}
        control_places = self.log.topics.all_places(topics.RUN_CONTROL)
        bounds = {place[1]: reader.bounds(place) for place in control_places}
        found = read_snapshots(self.log, reader, self.distrust)
        self.beginning = snapshots.beginning(found, bounds, lambda run_id: self.log.topics.place(topics.RUN_CONTROL, run_id)[1])
        with self._lock:
            self._ledger.begin(self.beginning)
        starts = {place: self.beginning.offsets[place[1]] for place in control_places}
        workers = self.log.topics.all_places(topics.WORKER_STATE)
        worker_ends = {place: reader.bounds(place) for place in workers}
        recent_ms = int((time.time() - catching_up.ANNOUNCED_S) * 1000)
        reader.assign(starts | {place: reader.since(place, recent_ms) for place in workers})
        self._positions.update(starts)
        self._read_to(reader, {p: bounds[p[1]][1] for p in control_places} | {p: high for p, (_, high) in worker_ends.items()})
        if log_places:
            place_of = functools.partial(self.log.topics.place, topics.TRAINING_LOG)
            self._tails = catching_up.tails(self._ledger.active.values(), log_bounds, place_of)
            reader.add(self._tails)
            self._positions.update(self._tails)
            # Whoever attaches to a run asks for its history at once: what was there when we came is part of being caught up.
            self._read_to(reader, {place: high for place, (_, high) in log_bounds.items()})

    def _read_to(self, reader: Relay, ends: dict[Partition, int]) -> None:
        """Reads until everything below these offsets has been taken.

        The last records may be gone: announcements of workers by compaction, which is likely, rows by retention while we read, which is
        not. Silence ends the waiting for them.
        """
        quiet_since, announced = time.monotonic(), catching_up.Announcements()
        while (lacking := self._lacking(ends)) and not self._stopping.is_set():
            messages = reader.poll(0.2)
            for message in messages:
                self._look_at(message, announced)
            if messages or reader.trouble:
                quiet_since = time.monotonic()
            patience_s = ROWS_S if topics.TRAINING_LOG in lacking else ANNOUNCEMENTS_S
            if topics.RUN_CONTROL not in lacking and time.monotonic() - quiet_since > patience_s:
                break
        announced.take(self._take)

    def _look_at(self, message: Message, announced: catching_up.Announcements) -> None:
        """Of the past. What nobody needs is not judged: all announcements of a worker but its last, rows of runs that have ended."""
        base, run_id = self.log.topics.base(message.topic), (message.key or b"").decode("utf-8", "replace")
        with self._lock:
            needless = base == topics.WORKER_STATE or (base == topics.TRAINING_LOG and self._ledger.leaves_rows(run_id))
            if needless:
                self._positions[(message.topic, message.partition)] = message.offset + 1
        if not needless:
            self._take(message)  # without the lock: listeners are called
        elif base == topics.WORKER_STATE:
            announced.keep(message, self.log.said_ms(message))

    def _lacking(self, ends: dict[Partition, int]) -> set[str | None]:
        """The kinds of topics of which there is more to read."""
        return {self.log.topics.base(place[0]) for place, end in ends.items() if self._positions.get(place, 0) < end}

    def _take(self, message: Message) -> bool:
        """Whether it was news."""
        base = self.log.topics.base(message.topic)
        with self._changed:
            change = self._fold(base, message)
            self._positions[(message.topic, message.partition)] = message.offset + 1
            for observer in self._observers if change is not None else ():
                assert change is not None
                observer(change)
            listeners = list(self._listeners) if change is not None else []
            self._changed.notify_all()
        for listener in listeners:
            assert change is not None
            listener(change)
        return change is not None

    def _fold(self, base: str, message: Message) -> Change | None:
        where = (base, message.partition, message.offset, message.time_ms)
        if base == topics.WORKER_STATE and message.value is None:
            return self._buried(message, where)
        read = self.log.read(message)
        if read is None:
            return None
        record, kid = read.record, read.origin.kid
        with self._lock:
            if isinstance(record, control.Record):
                state = self._ledger.control(record, message.offset, message.time_ms, kid)
                return Change(*where, run_id=record.run_id, state=state, record=record) if state else None
            if isinstance(record, RowBatch):
                new = self._ledger.rows(record, kid)
                return Change(*where, run_id=record.run_id, batch=record, rows=tuple(new), kid=kid) if new else None
            if isinstance(record, WorkerInfo):
                # Old records are read at start-up: they count as alive from their append time, judged by the broker's clock
                # once, and from then on by our own clock only.
                age = max(0.0, time.time() - message.time_ms / 1000) if not self._ready.is_set() else 0.0
                return Change(*where, worker=record) if self._workers.take(record, read.origin, time.monotonic() - age) else None
            if isinstance(record, errors.NewerRecord) and base == topics.RUN_CONTROL and record.fields.get("run_id"):
                run_id = str(record.fields["run_id"])
                state = self._ledger.newer(run_id, message.offset, message.time_ms)
                return Change(*where, run_id=run_id, state=state) if state else None
        return None

    def _buried(self, message: Message, where: tuple[str, int, int, int]) -> Change | None:
        """A worker that has said goodbye."""
        try:
            origin = self.log.origin(message)
            self.log.check_type(message, origin, tombstone("worker"))
        except errors.BadSignature as bad:
            self.log.note_junk(topics.WORKER_STATE, bad)
            return None
        gone = (message.key or b"").decode("utf-8", "replace")
        with self._lock:
            return Change(*where, gone=gone) if self._workers.bury(gone, origin) else None

    def _lacks_rows(self, state: RunState) -> bool:
        if not state.starts or not self._with_rows:
            return False
        if state.run_id in self._ledger.forgotten:
            return True
        tail = self._tails.get(self.log.topics.place(topics.TRAINING_LOG, state.run_id), BEGINNING)
        return state.run_id not in self._complete and min(start.log_offset for start in state.starts) < tail
