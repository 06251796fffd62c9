"""Log: writes and reads records. Knows which topic and partition a record belongs to; junk is counted, logged and passed over."""

from __future__ import annotations

import collections
import logging
import threading
import time
from collections.abc import Iterator

from kafka_jupyter import errors
from kafka_jupyter.brokers.kafka import Cluster, Message, Partition
from kafka_jupyter.brokers.producer import Delivered, Producer
from kafka_jupyter.brokers.reader import Reader
from kafka_jupyter.brokers.topics import Topics, open_topics
from kafka_jupyter.protocol import codec, control, headers, topics
from kafka_jupyter.protocol.rows import RowBatch
from kafka_jupyter.protocol.task import TASK_LIMIT, Task
from kafka_jupyter.protocol.workers import WorkerInfo
from kafka_jupyter.runs.state import RunState

logger = logging.getLogger(__name__)

LOGGED_JUNK = 20  # junk records a topic that are logged one by one; the rest is only counted
_TYPES = {
    topics.TASK: frozenset({"task"}),
    topics.RUN_CONTROL: codec.CONTROL_TYPES,
    topics.TRAINING_LOG: frozenset({"rows"}),
    topics.WORKER_STATE: frozenset({"worker"}),
}
_HEADERS: headers.Headers = ((headers.CONTENT_TYPE, headers.JSON),)


class Log:
    """The records of one cluster and topic prefix. Thread-safe; one per process is enough."""

    def __init__(self, cluster: Cluster, topics_: Topics) -> None:
        self.cluster, self.topics = cluster, topics_
        self.junk: collections.Counter[str] = collections.Counter()  # by topic
        self.trouble = ""  # why Kafka did not answer when `look` asked last; empty if it did
        self._producer: Producer | None = None
        self._lock = threading.Lock()

    @classmethod
    def open(cls, cluster: Cluster, create: bool = False) -> Log:
        """Checks that the topics are there. Raises BrokerUnreachable, AuthenticationFailed, TopicMissing, TopicMismatch."""
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

    def write_task(self, task: Task) -> control.TaskPlace:
        """Where the Task stands now. Raises TaskTooLarge, DeliveryUnknown, BrokerError."""
        value = codec.encode(task)
        if len(value) > TASK_LIMIT:
            raise errors.TaskTooLarge(
                run_id=task.run_id, size=len(value), limit=TASK_LIMIT, way_out="Shorten the cell's source or the callbacks' arguments."
            )
        topic, partition = self.topics.place(topics.TASK, task.run_id)
        offset = self.producer.write(topic, partition, task.run_id.encode(), value, _HEADERS)
        return control.TaskPlace(topic, partition, offset)

    def send_control(self, record: control.Record, on_delivery: Delivered | None = None) -> None:
        self._send(topics.RUN_CONTROL, record.run_id, codec.encode(record), on_delivery)

    def write_control(self, record: control.Record) -> int:
        """Sends and waits: the record's offset."""
        topic, partition = self.topics.place(topics.RUN_CONTROL, record.run_id)
        return self.producer.write(topic, partition, record.run_id.encode(), codec.encode(record), _HEADERS)

    def send_rows(self, batch: RowBatch, on_delivery: Delivered | None = None) -> None:
        self._send(topics.TRAINING_LOG, batch.run_id, codec.encode(batch), on_delivery)

    def send_worker(self, info: WorkerInfo, on_delivery: Delivered | None = None) -> None:
        self._send(topics.WORKER_STATE, info.worker_id, codec.encode(info), on_delivery)

    def bury_worker(self, worker_id: str) -> None:
        """The tombstone of a clean exit; waits for it."""
        topic, partition = self.topics.place(topics.WORKER_STATE, worker_id)
        self.producer.write(topic, partition, worker_id.encode(), None)

    def send(self, base: str, key: str, value: bytes | None, on_delivery: Delivered | None = None) -> None:
        """Any other record (snapshots, the DLQ), to the place that its run has in that topic."""
        self._send(base, key, value, on_delivery)

    def _send(self, base: str, key: str, value: bytes | None, on_delivery: Delivered | None) -> None:
        topic, partition = self.topics.place(base, key)
        self.producer.send(topic, partition, key.encode(), value, _HEADERS, on_delivery)

    # --- reading

    def decode(self, message: Message) -> codec.AnyRecord | errors.NewerRecord | None:
        """The record of a message; NewerRecord (returned, not raised) if only a newer version can read it; None for junk."""
        base = self.topics.base(message.topic)
        try:
            record = codec.decode(
                message.value,
                key=message.key or b"",
                types=_TYPES.get(base),
                topic=message.topic,
                partition=message.partition,
                offset=message.offset,
            )
        except errors.NewerRecord as newer:
            self.note_junk(base, newer)
            return newer
        except errors.BadRecord as bad:
            self.note_junk(base, bad)
            return None
        if not isinstance(record, WorkerInfo) and (message.topic, message.partition) != self.topics.place(base, record.run_id):
            self.note_junk(
                base,
                errors.BadRecord(
                    topic=message.topic, partition=message.partition, offset=message.offset, why="its run belongs to another partition"
                ),
            )
            return None
        return record

    def note_junk(self, base: str, error: errors.RecordError) -> None:
        self.junk[base] += 1
        if self.junk[base] <= LOGGED_JUNK:
            logger.warning("passed over: %s", error)

    def read_task(self, place: control.TaskPlace, run_id: str, timeout_s: float = 10.0) -> Task:
        """The Task at its place. Raises NewerRecord, BadRecord (also when another run's record is there), OffsetGone, BrokerError."""
        if place.topic not in map(self.topics.name, (topics.TASK, "task.high", "task.low")):
            raise errors.BadRecord(topic=place.topic, partition=place.partition, offset=place.offset, why="no task topic")
        messages = self.read_range((place.topic, place.partition), place.offset, place.offset + 1, timeout_s)
        for message in messages:
            record = codec.decode(
                message.value,
                key=run_id.encode(),
                types=_TYPES[topics.TASK],
                topic=place.topic,
                partition=place.partition,
                offset=place.offset,
            )
            assert isinstance(record, Task)
            return record
        raise errors.OffsetGone(topic=place.topic, partition=place.partition, offset=place.offset)

    def read_rows(self, state: RunState, before: int | None = None, timeout_s: float = 30.0) -> list[RowBatch]:
        """The rows of a run from where its first attempt started, up to the record that ended it or to the topic's end.

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
                record = self.decode(message)
                if isinstance(record, RowBatch):
                    batches.append(record)
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
