"""Reader: named partitions from named offsets, without a group."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from kafka_jupyter.brokers.kafka import UNREACHABLE, Cluster, Message, Partition, message_of

BEGINNING = confluent_kafka.OFFSET_BEGINNING
_IDLE = {KafkaError._PARTITION_EOF, KafkaError.GROUP_AUTHORIZATION_FAILED}  # the client looks for its group, which we do without
_LEADERLESS = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.OFFSET_NOT_AVAILABLE,  # a new leader does not know yet how far its followers are
    KafkaError._WAIT_COORD,
}
# With one broker "all are down" is what a new client says, once in 2,000 times, of the greeting that it gives up for its real connection.
_MOVED = {
    KafkaError._TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._DESTROY_BROKER,
    KafkaError._UNKNOWN_PARTITION,
}
PREFETCH_KIB = 8 << 10  # left to itself the client would read 64 MiB ahead of us, and that memory would stay with the process
_ASK = 0.7  # of a timeout is for the first question
# ... and this is for the first of all that a reader asks: where it meets the client's own greeting, it goes to a connection that is just
# being given up, and the client would send it again only after 0.7 s.
_GREETING_S = 0.15


class Reader:
    """Reads named partitions from named offsets (`assign`, no group). Not for use by two threads at once."""

    def __init__(self, cluster: Cluster, prefetch_kib: int = PREFETCH_KIB, **more: Any) -> None:
        """`prefetch_kib`: what the client may read ahead of `poll`. `more`: further librdkafka settings, `_` for `.`."""
        self._cluster = cluster
        self._client = confluent_kafka.Consumer(
            cluster.config(
                group_id=f"kafka_jupyter-reader-{uuid.uuid4().hex[:12]}",  # the client wants one; nothing is ever committed
                enable_auto_commit=False,
                auto_offset_reset="error",  # `earliest` would silently hand over somebody else's record
                fetch_error_backoff_ms=50,
                fetch_queue_backoff_ms=20,
                queued_max_messages_kbytes=prefetch_kib,
                check_crcs=True,
                **more,
            )
        )
        self._assigned = self._answered = False
        self.trouble = ""  # what the client complained of last; empty after a record arrived

    def assign(self, places: Mapping[Partition, int]) -> None:
        """Reads on from these offsets (BEGINNING is allowed)."""
        self._assigned = True
        self._client.assign([TopicPartition(topic, partition, offset) for (topic, partition), offset in places.items()])

    def add(self, places: Mapping[Partition, int]) -> None:
        self._client.incremental_assign([TopicPartition(t, p, offset) for (t, p), offset in places.items()])

    def poll(self, timeout_s: float, limit: int = 1000) -> list[Message]:
        """The records that are there, at least one if any arrives within the timeout.

        Raises OffsetGone, TopicMissing, NotAuthorized, AuthenticationFailed. A broker that is away is no error: the client
        reconnects by itself, `trouble` says so.
        """
        first = self._client.poll(timeout_s)  # consume(n, t) would wait for n records or the whole t
        if first is None:
            return []
        messages = [first]
        if first.error() is None:
            messages += self._client.consume(limit, 0)
        return [kept for kept in map(self._checked, messages) if kept is not None]

    def bounds(self, place: Partition, timeout_s: float | None = None) -> tuple[int, int]:
        """(first offset, offset behind the last) as the broker says now. Raises BrokerError within the timeout.

        The client goes on asking the broker that it believes to lead, dead or not, until its next refresh of the metadata (30 s).
        So a part of the timeout is kept for asking who leads now; what is left after that, or the next call, gets its answer there.
        """
        if not self._assigned:
            self.idle()
        timeout = self._cluster.settings.connect_timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + timeout
        patience = timeout * _ASK if self._answered else min(timeout * _ASK, _GREETING_S)
        while True:
            try:
                answer = self._client.get_watermark_offsets(TopicPartition(*place), timeout=max(0.05, patience))
            except KafkaException as failure:
                code, left = failure.args[0].code(), deadline - time.monotonic()
                if left <= 0.05 or code not in _LEADERLESS | _MOVED:
                    raise self._cluster.translated(failure, place[0]) from failure
                if code in _MOVED and not self._learns(place[0], left):
                    raise self._cluster.translated(failure, place[0]) from failure
                time.sleep(0.05)  # while a leader moves (or has just been made) the client answers at once
                patience = deadline - time.monotonic()
                continue
            if answer is None:
                raise self._cluster.unreachable()
            self._answered = True
            return (int(answer[0]), int(answer[1]))

    def since(self, place: Partition, time_ms: int) -> int:
        """The offset of the first record that was appended at this time (ms since 1970, by the broker's clock) or later; that behind the
        last if there is none. To be asked after `bounds`, which waits for a leader. Raises BrokerError."""
        asked = [TopicPartition(*place, time_ms)]
        try:
            found = self._client.offsets_for_times(asked, timeout=self._cluster.settings.connect_timeout_s)[0]
        except KafkaException as failure:
            raise self._cluster.translated(failure, place[0]) from failure
        if found.error is not None:
            raise self._cluster.error(found.error, place[0])
        return int(found.offset) if found.offset >= 0 else self.bounds(place)[1]

    def idle(self) -> None:
        """For one that reads nothing and so never polls: what the client has to tell would pile up, 1 MiB a minute with a broker away."""
        self._client.poll(0)

    def _learns(self, topic: str, timeout_s: float) -> bool:
        """Whether a broker has said who leads now."""
        try:
            self._client.list_topics(topic, timeout=timeout_s)
        except KafkaException:
            return False
        return True

    def close(self) -> None:
        self._client.close()

    def _checked(self, message: confluent_kafka.Message) -> Message | None:
        error = message.error()
        if error is None:
            self.trouble = ""
            return message_of(message)
        if error.code() in UNREACHABLE or error.retriable():
            self.trouble = error.str()
            return None
        if error.code() in _IDLE:
            return None
        raise self._cluster.error(error, message.topic() or "", partition=message.partition(), offset=message.offset())
