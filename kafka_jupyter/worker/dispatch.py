"""The worker's place in the group on `task`: owning a partition is a preference (no grace), committed offsets show the lag."""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Callable

from kafka_jupyter import errors, redact
from kafka_jupyter.brokers.group import GroupMember
from kafka_jupyter.brokers.kafka import Message, Partition
from kafka_jupyter.brokers.log import Log, SignedTask
from kafka_jupyter.protocol import topics
from kafka_jupyter.protocol.control import TaskPlace
from kafka_jupyter.protocol.task import Task
from kafka_jupyter.trust.judge import claimed_origin

logger = redact.logger(__name__)


REFUSED = 16  # keys that are told


@dataclasses.dataclass(frozen=True)
class TaskSeen:
    """A record of `task`. `task` is None if it cannot be read; then `why` says it and `newer` that a newer version could."""

    place: TaskPlace
    time_ms: int
    key: bytes
    value: bytes
    task: SignedTask | None = None
    why: str = ""
    newer: bool = False
    refused: bool = False  # nobody who may write tasks has signed it


class Dispatch:
    """Polls in a thread of its own; `on_task` and `on_owned` are called there and must only hand over."""

    def __init__(self, log: Log, on_task: Callable[[TaskSeen], None], on_owned: Callable[[set[Partition]], None]) -> None:
        self._log, self._on_task, self._on_owned = log, on_task, on_owned
        self._busy = threading.Event()
        self._stopping = threading.Event()
        self._rebalanced = threading.Event()
        self._lock = threading.Lock()
        self._commits: dict[Partition, int] = {}
        self._paused = False
        self._trouble = ""
        self.refused: collections.deque[str] = collections.deque(maxlen=REFUSED)  # keys whose tasks were not read
        self.failure: Exception | None = None  # what has ended the thread
        self._thread = threading.Thread(target=self._run, name="kafka_jupyter-dispatch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def busy(self, busy: bool) -> None:
        """A busy worker takes no tasks but stays in the group: leaving would make a rebalance."""
        (self._busy.set if busy else self._busy.clear)()

    def commit(self, offsets: dict[Partition, int]) -> None:
        with self._lock:
            self._commits.update(offsets)

    def close(self) -> None:
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(10)

    def _run(self) -> None:
        name = self._log.topics.name(topics.TASK)
        try:
            member = GroupMember(self._log.cluster, f"{self._log.topics.prefix}kafka_jupyter.workers", [name], self._rebalanced.set)
            try:
                while not self._stopping.is_set():
                    self._turn(member)
            finally:
                member.close()
        except Exception as failure:  # noqa: BLE001  # the supervisor asks for it: a thread has no caller
            self.failure = failure

    def _turn(self, member: GroupMember) -> None:
        try:
            if self._rebalanced.is_set():
                self._rebalanced.clear()
                self._on_owned(member.owned())
                member.pause(self._paused)
            if self._busy.is_set() is not self._paused:
                member.pause(not self._paused)
                self._paused = not self._paused
            with self._lock:
                commits, self._commits = self._commits, {}
            owned = member.owned() if commits else set()
            member.commit({place: offset for place, offset in commits.items() if place in owned})
            for message in member.poll(0.1):
                self._on_task(self._seen(message))
            self._trouble = ""
        except errors.BrokerError as failure:  # e.g. not authorized for the group: others of the group still dispatch
            if str(failure) != self._trouble:
                self._trouble = str(failure)
                logger.warning("no tasks from the group: %s", failure)
            self._rebalanced.set()  # what is paused is not sure any more
            self._stopping.wait(1.0)

    def _remember(self, kid: str) -> None:
        if kid not in self.refused:
            self.refused.append(kid)

    def _seen(self, message: Message) -> TaskSeen:
        place = TaskPlace(message.topic, message.partition, message.offset)
        raw = (place, message.time_ms, message.key or b"", message.value or b"")
        try:
            self._log.origin(message)
        except errors.BadSignature as bad:
            self._log.note_junk(topics.TASK, bad)
            self._remember(claimed_origin(message.headers).kid)
            return TaskSeen(*raw, why=str(bad), refused=True)
        read = self._log.read(message)
        if read is not None and isinstance(read.record, Task):
            return TaskSeen(*raw, task=SignedTask(read.record, read.origin))
        newer = read is not None and isinstance(read.record, errors.NewerRecord)
        return TaskSeen(*raw, why=str(read.record) if read is not None and newer else "it is not a task of kafka_jupyter", newer=newer)


class CommitTracker:
    """The lowest offset of each owned partition that is not claimed yet: consumer lag = an upper bound on unclaimed tasks."""

    def __init__(self) -> None:
        self._owned: set[Partition] = set()
        self._open: dict[Partition, set[int]] = {}
        self._places: dict[str, set[tuple[Partition, int]]] = {}  # run id → the open ones of it: a task may stand in the log twice
        self._next: dict[Partition, int] = {}
        self._unread: dict[Partition, set[int]] = {}  # claimed, as the control records say, before we have read the task
        self._committed: dict[Partition, int] = {}

    @property
    def behind(self) -> bool:
        """Whether tasks of ours are claimed that we have not read: until then nothing can be committed for them."""
        return any(self._unread.values())

    def owned(self, owned: set[Partition]) -> None:
        self._owned = set(owned)
        for table in (self._open, self._next, self._unread, self._committed):
            for place in [p for p in table if p not in owned]:
                del table[place]
        kept = {run_id: {place for place in places if place[0] in owned} for run_id, places in self._places.items()}
        self._places = {run_id: places for run_id, places in kept.items() if places}

    def seen(self, place: TaskPlace, run_id: str, claimed: bool) -> None:
        key = (place.topic, place.partition)
        if not claimed:
            self._open.setdefault(key, set()).add(place.offset)
            self._places.setdefault(run_id, set()).add((key, place.offset))
        self._next[key] = max(self._next.get(key, 0), place.offset + 1)
        self._unread[key] = {offset for offset in self._unread.get(key, ()) if offset > place.offset}

    def claimed(self, run_id: str, place: TaskPlace | None) -> None:
        """`place`: where its Submitted says that its task stands, if there was one."""
        for key, offset in self._places.pop(run_id, ()):
            self._open.get(key, set()).discard(offset)
        if place is not None:
            key = (place.topic, place.partition)
            if key in self._owned and place.offset >= self._next.get(key, 0):
                self._unread.setdefault(key, set()).add(place.offset)

    def due(self) -> dict[Partition, int]:
        """Offsets that may be committed and have not been yet."""
        due = {}
        for key, following in self._next.items():
            offset = min(self._open.get(key) or {following})
            if self._committed.get(key) != offset:
                self._committed[key] = due[key] = offset
        return due
