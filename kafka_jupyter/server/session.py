"""Session: one Kafka as the server sees it, opened once for all requests: log, follower, hub."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import io
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import IO, Any, TypeVar

import msgspec

from kafka_jupyter.brokers import local
from kafka_jupyter.brokers.admin import Admin
from kafka_jupyter.brokers.follow import Follower
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.brokers.reader import Reader
from kafka_jupyter.client import asking
from kafka_jupyter.client import retry as retrying
from kafka_jupyter.errors import BrokerError, BrokerUnreachable, OffsetGone, RecordError
from kafka_jupyter.outputs.bundle import bundle
from kafka_jupyter.protocol import control, topics
from kafka_jupyter.protocol.cursor import Cursor, tag_of
from kafka_jupyter.runs import view
from kafka_jupyter.runs.state import RunState
from kafka_jupyter.server import replay
from kafka_jupyter.server.details import details
from kafka_jupyter.server.hub import Hub, Subscriber, Wanted
from kafka_jupyter.server.limits import Limits
from kafka_jupyter.settings import Settings
from kafka_jupyter.store import Store, open_store

FOLLOW_TIMEOUT_S = 30.0  # the first request waits so long until the log has been read
PING_TIMEOUT_S = 2.0
LAST_ROWS_S = 5.0  # `whole` waits so long for the rows of a run that has just ended

T = TypeVar("T")


@dataclasses.dataclass
class Joined:
    """A stream at its beginning. `missed` (events as bytes) is sent after the states, then what `hub.take` gives."""

    hub: Hub
    subscriber: Subscriber
    missed: IO[bytes]
    reset: bool


class Session:
    """Made by `open`, which blocks; the coroutines run on `loop`, waiting for Kafka goes to `executor`."""

    def __init__(self, settings: Settings, log: Log, follower: Follower, hub: Hub, executor: Executor, limits: Limits) -> None:
        self.settings, self.log, self.follower, self.hub = settings, log, follower, hub
        self.servers = log.cluster.servers
        self._limits, self._executor = limits, executor
        self._pulse: asyncio.Task[None] | None = None
        self._pinging: Reader | None = None
        self._store: Store | None = None
        self._asking = threading.Lock()
        self._replays = asyncio.Semaphore(limits.replays)

    @classmethod
    def open(cls, settings: Settings, loop: asyncio.AbstractEventLoop, executor: Executor, limits: Limits) -> Session:
        """Raises BrokerError."""
        if not settings.bootstrap_servers and local.endpoint(settings) is None:
            raise BrokerUnreachable("No Kafka is running here and none is configured. `kafka-jupyter up` starts a local one.")
        cluster = Cluster(local.resolve(settings))
        log = Log.open(cluster)
        follower = Follower(log)
        try:
            tag = tag_of(Admin(cluster).info().cluster_id, settings.topic_prefix)
            follower.start(FOLLOW_TIMEOUT_S)
            return cls(settings, log, follower, Hub(follower, loop, executor, limits, tag), executor, limits)
        except BaseException:
            follower.close()
            log.close()
            raise

    @property
    def usable(self) -> bool:
        return self.follower.alive and not self.hub.closed

    def moved(self) -> bool:
        """Whether the local Kafka listens somewhere else by now. Looks at a file and a process."""
        if self.settings.bootstrap_servers:
            return False
        found = local.endpoint(self.settings)
        return found is not None and found.servers != self.servers

    def end_streams(self, over: bool) -> None:
        """On the loop. `over`: for good, they say `bye`."""
        if self._pulse is not None:
            self._pulse.cancel()
            self._pulse = None
        self.hub.close(over)

    def close(self) -> None:
        """Blocks for some seconds at most."""
        self.follower.close()
        if self._store is not None:
            self._store.close()
        self.log.close()
        if self._pinging is not None:
            self._pinging.close()

    # --- answers

    def cards(self, states: list[RunState]) -> list[dict[str, Any]]:
        return self.hub.cards(states)

    async def whole(self, run_id: str) -> bytes:
        """State, rows and cursor of a run that is known, as JSON; they belong together."""
        return await self._in_thread(functools.partial(self._whole, run_id))

    def _whole(self, run_id: str) -> bytes:
        follower = self.follower
        follower.wait(lambda: follower.has_all_rows(run_id), LAST_ROWS_S)
        follower.history(run_id)  # reads what is no longer in memory
        with follower.still():
            state = follower.state(run_id)
            assert state is not None
            (card,), history, here = self.cards([state]), follower.history(run_id), self.hub.here()
        rows = [view.row_json(attempt, row) for attempt, row in history.rows]
        return msgspec.json.encode({"run": card, "rows": rows, "cursor": str(here)})

    async def details(self, run_id: str, root: str) -> dict[str, Any]:
        """Of a run that is known. Raises BrokerError."""
        return await self._in_thread(functools.partial(self._details, run_id, root))

    def _details(self, run_id: str, root: str) -> dict[str, Any]:
        state = self.follower.state(run_id)
        assert state is not None
        task = None
        if state.task is not None:
            with contextlib.suppress(OffsetGone, RecordError):  # nobody can read it any more
                task = self.log.read_task(state.task, run_id)
        return details(state, task, lambda part, name: self.store.read(part, name), root)

    async def output(self, run_ids: Sequence[str]) -> bytes:
        """The final bundle of runs that are known and have ended, as JSON; the same that their kernel would have left."""
        return await self._in_thread(functools.partial(self._output, run_ids))

    def _output(self, run_ids: Sequence[str]) -> bytes:
        follower = self.follower
        follower.wait(lambda: all(map(follower.has_all_rows, run_ids)), LAST_ROWS_S)
        states = [state for state in map(follower.state, run_ids) if state is not None]
        rows = {state.run_id: [view.row_json(n, row) for n, row in follower.history(state.run_id).rows] for state in states}
        return msgspec.json.encode({"final": True, "data": bundle(self.cards(states), rows, live=False)})

    async def append(self, record: control.Record) -> None:
        """Returns when the record is acked. Raises DeliveryUnknown, BrokerError."""
        await self._in_thread(functools.partial(self.log.write_control, record))

    @staticmethod
    def check_steerable(record: control.Request, state: RunState) -> None:
        """Raises RunEnding for what a run that is about to end cannot be asked for any more."""
        if not isinstance(record, control.StopRequested | control.CancelRequested):
            asking.alive(type(record), state)

    async def retry(self, state: RunState, edits: dict[str, Any], by: str, allowed: Callable[[], None]) -> str:
        """The id of the new run, when it is in the log. `allowed` raises if it may not be; a run that cannot be retried says so first."""
        retrying.id_of(state)
        allowed()
        return await self._in_thread(functools.partial(self._retry, state, retrying.Edits(**edits), by))

    def _retry(self, state: RunState, edits: retrying.Edits, by: str) -> str:
        task = retrying.edited(retrying.again(retrying.read(self.log, state), state), edits)
        known = self.follower.state(task.run_id)
        more = retrying.settings(task.run_id, edits, by, state, known)
        # Written once, not until it is read back: who gets an error clicks again, and that is the same run.
        retrying.submit(self.log, lambda: self.store, task, known, self.settings.keep_days, self.log.write_control, more)
        return task.run_id

    @property
    def store(self) -> Store:
        with self._asking:
            if self._store is None:
                self._store = open_store(self.settings, self.log)
            return self._store

    async def lag(self) -> int:
        """How many records we have not read. Raises BrokerError when no broker answers."""
        return await self._in_thread(self._lag)

    # --- streams

    async def join(self, runs: Sequence[str] | None, detail: Sequence[str] | None, text: str) -> Joined:
        """A stream of `runs`, with batches and log lines of `detail`, from the cursor `text`; from now on if that is empty.

        Raises BrokerError if Kafka is needed and away.
        """
        wanted = Wanted(None if runs is None else frozenset(runs), None if detail is None else frozenset(detail))
        cursor = await self._usable_cursor(text) if text else None
        if cursor is not None:
            subscriber, missed = self.hub.join(wanted, cursor)
            assert missed is not None
            try:
                told = await self._told(missed, wanted)
                self._start_pulse()
                return Joined(self.hub, subscriber, told, reset=False)
            except (OffsetGone, OSError):  # gone, too much, or no room for it on the disk
                self.hub.leave(subscriber)
            except BaseException:
                self.hub.leave(subscriber)
                raise
        subscriber, _ = self.hub.join(wanted, None)
        self._start_pulse()
        return Joined(self.hub, subscriber, io.BytesIO(), reset=bool(text))

    async def _told(self, missed: replay.Missed, wanted: Wanted) -> IO[bytes]:
        work = functools.partial(replay.told, missed, wanted.event, self.log, self._limits, self.settings.cache_dir)
        async with self._replays:
            return await self._in_thread(work)

    def leave(self, joined: Joined) -> None:
        joined.missed.close()
        self.hub.leave(joined.subscriber)
        if not self.hub.streams and self._pulse is not None:
            self._pulse.cancel()
            self._pulse = None

    async def _usable_cursor(self, text: str) -> Cursor | None:
        """None if it is none of ours: of another cluster, or ahead of what our reader can reach."""
        try:
            cursor = Cursor.parse(text)
        except ValueError:
            return None
        if cursor.tag and cursor.tag != self.hub.tag:
            return None
        ours = self.hub.here().offsets
        if any(place not in ours for place in cursor.offsets):
            return None
        deadline = asyncio.get_running_loop().time() + self._limits.catch_up_s
        while any(at > ours[place] for place, at in cursor.offsets.items()):  # another server's reader was faster
            if asyncio.get_running_loop().time() > deadline or not self.usable:
                return None
            await asyncio.sleep(0.02)
            ours = self.hub.here().offsets
        return cursor

    # --- while somebody listens

    def _start_pulse(self) -> None:
        if self._pulse is None and not self.hub.closed:
            self._pulse = asyncio.get_running_loop().create_task(self._beat(), name="kafka_jupyter-pulse")

    async def _beat(self) -> None:
        was = ""
        while True:
            await asyncio.sleep(self._limits.pulse_s)
            self.hub.look_at_queue()
            trouble, moved = await self._in_thread(self._ping)
            if moved or not self.follower.alive:
                self.hub.close(over=False)
                return
            if trouble != was:
                was = trouble
                self.hub.set_health(not trouble, trouble)

    def _ping(self) -> tuple[str, bool]:
        try:
            self._bounds(self.log.topics.all_places(topics.RUN_CONTROL)[0])
        except BrokerError as error:
            return str(error), self.moved()
        return "", False

    def _lag(self) -> int:
        places = [place for base in (topics.RUN_CONTROL, topics.TRAINING_LOG) for place in self.log.topics.all_places(base)]
        return sum(max(0, self._bounds(place)[1] - self.follower.position(place)) for place in places)

    def _bounds(self, place: tuple[str, int]) -> tuple[int, int]:
        """With a reader of its own: the follower's is busy."""
        with self._asking:
            if self._pinging is None:
                self._pinging = Reader(self.log.cluster)
            return self._pinging.bounds(place, PING_TIMEOUT_S)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)
