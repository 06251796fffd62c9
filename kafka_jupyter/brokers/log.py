"""Log: writes and reads records. Knows which topic and partition a record belongs to; junk is counted, logged and passed over."""

from __future__ import annotations

import collections
import dataclasses
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from kafka_jupyter import errors, redact
from kafka_jupyter.brokers.kafka import Cluster, Message, Partition
from kafka_jupyter.brokers.producer import Delivered, Producer
from kafka_jupyter.brokers.reader import Reader
from kafka_jupyter.brokers.topics import Topics, open_topics
from kafka_jupyter.protocol import codec, control, headers, topics
from kafka_jupyter.protocol.rows import RowBatch
from kafka_jupyter.protocol.signing import audience, tombstone
from kafka_jupyter.protocol.task import TASK_LIMIT, Task
from kafka_jupyter.protocol.workers import WorkerInfo
from kafka_jupyter.runs.state import RunState
from kafka_jupyter.trust.gate import Gate
from kafka_jupyter.trust.judge import Origin, Policy, claimed_origin

logger = redact.logger(__name__)

LOGGED_JUNK = 20  # junk records a topic that are logged one by one; the rest is only counted
_TYPES = {
    topics.TASK: frozenset({"task"}),
    topics.RUN_CONTROL: codec.CONTROL_TYPES,
    topics.TRAINING_LOG: frozenset({"rows"}),
    topics.WORKER_STATE: frozenset({"worker"}),
}
_HEADERS: headers.Headers = ((headers.CONTENT_TYPE, headers.JSON),)


@dataclasses.dataclass(frozen=True, slots=True)
class Read:
    """A record, or what says that only a newer version can read it, and where it comes from."""

    record: codec.AnyRecord | errors.NewerRecord
    origin: Origin


@dataclasses.dataclass(frozen=True, slots=True)
class SignedTask:
    task: Task
    origin: Origin


class Log:
    """The records of one cluster and topic prefix: signed as they go out, judged as they come in. Thread-safe; one a process is enough."""

    def __init__(self, cluster: Cluster, topics_: Topics) -> None:
        """Raises BadTrustFile."""
        self.cluster, self.topics = cluster, topics_
        self.gate = Gate(cluster.settings)
        self.junk: collections.Counter[str] = collections.Counter()  # by topic
        self.trouble = ""  # why Kafka did not answer when `look` asked last; empty if it did
        self._producer: Producer | None = None
        self._lock = threading.Lock()

    @classmethod
    def open(cls, cluster: Cluster, create: bool = False) -> Log:
        """Checks that the topics are there. Raises BrokerUnreachable, AuthenticationFailed, TopicMissing, TopicMismatch, BadTrustFile."""
        log = cls(cluster, open_topics(cluster, create))
        # An idempotent producer spends its first half second on getting an id: now, not when the first record waits for it.
        log._producer = Producer(cluster)
        return log

    @property
    def producer(self) -> Producer:
        with self._lock:
            if self._producer is None:
                self._producer = Producer(self.cluster)
            return self._producer

    def close(self) -> None:
        with self._lock:
            if self._producer is not None:
                self._producer.close()
                self._producer = None

    def look(self, timeout_s: float) -> None:
        """Asks whether Kafka is there. A reader cannot tell: the client reconnects in silence, and a frozen broker just says nothing."""
        producer = self._producer
        if producer is None:
            return
        try:
            producer.ask(self.topics.name(topics.RUN_CONTROL), timeout_s)
        except errors.BrokerUnreachable:
            self.trouble = f"Kafka at {self.cluster.servers} does not answer"
        except errors.BrokerError as failure:
            self.trouble = str(failure)
        else:
            self.trouble = ""

    # --- writing

    def check_own(self, kind: type[msgspec.Struct]) -> None:
        """Raises NotTrusted if nobody would believe us such a record."""
        self.gate.check_own(str(kind.__struct_config__.tag), self.cluster.servers)

    def write_task(self, task: Task) -> control.TaskPlace:
        """Where the Task stands now. Raises TaskTooLarge, NotTrusted, DeliveryUnknown, BrokerError."""
        self.check_own(Task)
        if task.code is not None:
            self.gate.check_code(self.cluster.servers)
        value = codec.encode(task)
        if len(value) > TASK_LIMIT:
            raise errors.TaskTooLarge(
                run_id=task.run_id, size=len(value), limit=TASK_LIMIT, way_out="Shorten the cell's source or the callbacks' arguments."
            )
        offset = self._write(topics.TASK, task.run_id, value, _tag(task))
        return control.TaskPlace(*self.topics.place(topics.TASK, task.run_id), offset)

    def send_control(self, record: control.Record, on_delivery: Delivered | None = None, by: Producer | None = None) -> None:
        """`by`: another producer than the one that all share."""
        self.send(topics.RUN_CONTROL, record.run_id, codec.encode(record), _tag(record), on_delivery, _nonce(record), by)

    def write_control(self, record: control.Record) -> int:
        """Sends and waits: the record's offset. Raises NotTrusted, DeliveryUnknown, BrokerError."""
        self.check_own(type(record))
        return self._write(topics.RUN_CONTROL, record.run_id, codec.encode(record), _tag(record), _nonce(record))

    def send_rows(self, batch: RowBatch, on_delivery: Delivered | None = None) -> None:
        self.send(topics.TRAINING_LOG, batch.run_id, codec.encode(batch), _tag(batch), on_delivery, batch.nonce)

    def send_worker(self, info: WorkerInfo, on_delivery: Delivered | None = None) -> None:
        self.send(topics.WORKER_STATE, info.worker_id, codec.encode(info), _tag(info), on_delivery)

    def bury(self, base: str, key: str, type_: str) -> int:
        """The tombstone of a record of that type; waits for it: its offset. Raises DeliveryUnknown, BrokerError."""
        return self._write(base, key, None, tombstone(type_))

    def send(
        self,
        base: str,
        key: str,
        value: bytes | None,
        type_: str,
        on_delivery: Delivered | None = None,
        nonce: str = "",
        by: Producer | None = None,
    ) -> None:
        """A record of that type, to the place that its run or worker has in that topic. `nonce`: of the attempt that it belongs to."""
        topic, partition = self.topics.place(base, key)
        signed = self.signed(topic, type_, key.encode(), value, nonce)
        (by or self.producer).send(topic, partition, key.encode(), value, (*_HEADERS, *signed), on_delivery)

    def _write(self, base: str, key: str, value: bytes | None, type_: str, nonce: str = "") -> int:
        topic, partition = self.topics.place(base, key)
        signed = self.signed(topic, type_, key.encode(), value, nonce)
        return self.producer.write(topic, partition, key.encode(), value, (*_HEADERS, *signed))

    def signed(self, topic: str, type_: str, key: bytes | None, value: bytes | None, nonce: str = "") -> headers.Headers:
        """The headers that say who writes this. Whoever writes past this class, chunks of artifacts say, needs them too."""
        return self.gate.sign(type_, audience(self.topics.cluster_id, topic), key, value, nonce)

    # --- reading

    def origin(self, message: Message) -> Origin:
        """Who wrote it. To be asked before anything reads the value. Raises BadSignature if it is not to be read."""
        try:
            if message.dated and self.gate.policy is Policy.REQUIRE:
                raise errors.BadSignature(why="its time is its writer's: message.timestamp.type of the topic is not LogAppendTime")
            aud = audience(self.topics.cluster_id, message.topic)
            return self.gate.origin(message.headers, message.key, message.value, aud, message.time_ms)
        except errors.BadSignature as bad:
            raise errors.BadSignature(**_where(message), why=bad.fields["why"]) from None

    def said_ms(self, message: Message) -> int:
        """When its writer says to have signed it, by their clock; 0 where nobody judges that. It proves nothing, and costs little."""
        return 0 if self.gate.policy is Policy.OFF else claimed_origin(message.headers).issued_ms

    def read(self, message: Message) -> Read | None:
        """The record of a message; None for junk, and for what nobody who may write it has signed."""
        base = self.topics.base(message.topic)
        try:
            origin = self.origin(message)
            record = self._decoded(message, origin, _TYPES.get(base))
        except errors.NewerRecord as newer:
            self.note_junk(base, newer)
            return Read(newer, origin)
        except errors.BadRecord as bad:
            self.note_junk(base, bad)
            return None
        if not isinstance(record, WorkerInfo) and (message.topic, message.partition) != self.topics.place(base, record.run_id):
            self.note_junk(base, errors.BadRecord(**_where(message), why="its run belongs to another partition"))
            return None
        return Read(record, origin)

    def decode(self, message: Message) -> codec.AnyRecord | errors.NewerRecord | None:
        """As `read`, for whoever does not ask where it comes from."""
        read = self.read(message)
        return None if read is None else read.record

    def _decoded(self, message: Message, origin: Origin, types: frozenset[str] | None) -> codec.AnyRecord:
        """Raises NewerRecord, BadRecord."""
        try:
            record = codec.decode(message.value, key=message.key or b"", types=types, **_where(message))
        except errors.NewerRecord as newer:
            self.check_type(message, origin, str(newer.fields["type"]))
            raise
        self.check_type(message, origin, _tag(record))
        return record

    def check_type(self, message: Message, origin: Origin, type_: str) -> None:
        """That it is signed as what it is: a role is given for a type. Raises BadSignature."""
        if origin.proved and origin.type != type_[:40]:
            raise errors.BadSignature(**_where(message), why=f"it was signed as {origin.type!r} and is {type_[:40]!r}")

    def note_junk(self, base: str, error: errors.RecordError) -> None:
        self.junk[base] += 1
        if self.junk[base] <= LOGGED_JUNK:
            logger.warning("passed over: %s", error)

    def read_task(self, place: control.TaskPlace, run_id: str, timeout_s: float = 10.0) -> Task:
        """As `read_signed_task`, for whoever does not run it."""
        return self.read_signed_task(place, run_id, timeout_s).task

    def read_signed_task(self, place: control.TaskPlace, run_id: str, timeout_s: float = 10.0) -> SignedTask:
        """The Task at its place, and who wrote it. Raises NewerRecord, BadRecord (also when another run's record is there), BadSignature,
        OffsetGone, BrokerError."""
        if place.topic not in map(self.topics.name, (topics.TASK, "task.high", "task.low")):
            raise errors.BadRecord(topic=place.topic, partition=place.partition, offset=place.offset, why="no task topic")
        messages = self.read_range((place.topic, place.partition), place.offset, place.offset + 1, timeout_s)
        for message in messages:
            if message.key != run_id.encode():
                raise errors.BadRecord(**_where(message), why="it belongs to another run")
            origin = self.origin(message)
            record = self._decoded(message, origin, _TYPES[topics.TASK])
            assert isinstance(record, Task)
            return SignedTask(record, origin)
        raise errors.OffsetGone(topic=place.topic, partition=place.partition, offset=place.offset)

    def read_rows(self, state: RunState, before: int | None = None, timeout_s: float = 30.0) -> list[tuple[RowBatch, str]]:
        """The rows of a run from where its first attempt started, up to the record that ended it or to the topic's end, each record of
        them with the kid of its key.

        `before`: no records at or behind this offset.
        """
        if not state.starts:
            return []
        place = self.topics.place(topics.TRAINING_LOG, state.run_id)
        first = min(start.log_offset for start in state.starts)
        ends = [end for end in (before, None if state.log_end is None else state.log_end + 1) if end is not None]
        batches = []
        for message in self.read_range(place, first, min(ends, default=None), timeout_s):
            if message.key == state.run_id.encode():
                read = self.read(message)
                if read is not None and isinstance(read.record, RowBatch):
                    batches.append((read.record, read.origin.kid))
        return batches

    def read_range(self, place: Partition, first: int, until: int | None, timeout_s: float = 30.0) -> Iterator[Message]:
        """Messages of one partition with first ≤ offset < until (None: the end as it is now), with a reader of its own.

        Starts at the log's start if `first` is already gone. Raises BrokerUnreachable when nothing more comes within the timeout.
        """
        reader = Reader(self.cluster)
        try:
            low, high = reader.bounds(place)
            last = high if until is None else min(until, high)
            at = max(first, low)
            if at >= last or (until == first + 1 and first < low):
                return
            reader.assign({place: at})
            deadline = time.monotonic() + timeout_s
            while at < last:
                for message in reader.poll(0.2):
                    at = message.offset + 1
                    if message.offset < last:
                        yield message
                    deadline = time.monotonic() + timeout_s
                if time.monotonic() > deadline:
                    raise errors.BrokerUnreachable(
                        servers=self.cluster.servers, detail=f"(no record of {place[0]} came in {timeout_s:g} s)"
                    )
        finally:
            reader.close()


def _tag(record: codec.AnyRecord) -> str:
    return str(record.__struct_config__.tag)


def _nonce(record: control.Record) -> str:
    return record.nonce if isinstance(record, control.AttemptRecord) else ""


def _where(message: Message) -> dict[str, Any]:
    return {"topic": message.topic, "partition": message.partition, "offset": message.offset}
