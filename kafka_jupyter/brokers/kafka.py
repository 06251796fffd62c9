"""Producer, Reader and GroupMember over confluent_kafka; with brokers/admin.py the only files that import it.

Every error of the client leaves here as one of `errors.BrokerError`, the original in `__cause__`.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, cast

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from kafka_jupyter import errors
from kafka_jupyter.settings import Settings

logger = logging.getLogger(__name__)

Partition = tuple[str, int]
BEGINNING = confluent_kafka.OFFSET_BEGINNING

_AUTHENTICATION = {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL}
_AUTHORIZATION = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}
_MISSING = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}
_TOO_LARGE = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE}
_UNREACHABLE = {KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE, KafkaError._TIMED_OUT}
_UNKNOWN_OUTCOME = {
    KafkaError._MSG_TIMED_OUT,
    KafkaError._TIMED_OUT,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._PURGE_INFLIGHT,
}
_GONE = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}
_LEADERLESS = {KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError._WAIT_COORD}
_NO_CONSUMER_PROTOCOL = {KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE, KafkaError._INVALID_ARG}


@dataclasses.dataclass(frozen=True)
class Message:
    """One record as the log has it. `time_ms` is Kafka's append time."""

    topic: str
    partition: int
    offset: int
    time_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


class Cluster:
    """Where Kafka is and how to talk to it. Cheap to make; nothing is connected before it is used."""

    def __init__(self, settings: Settings) -> None:
        if not settings.bootstrap_servers:
            raise errors.SettingsError(name="bootstrap_servers", why="no Kafka is configured and no local one runs", source="the settings")
        self.settings = settings
        self.servers = settings.bootstrap_servers
        self._trouble: dict[str, str] = {}

    def config(self, **more: Any) -> dict[str, Any]:
        """librdkafka's settings: ours, then what the profile passes through, then `more` with `_` for `.`."""
        base: dict[str, Any] = {
            "bootstrap.servers": self.servers,
            "client.id": "kafka_jupyter",
            "socket.connection.setup.timeout.ms": int(self.settings.connect_timeout_s * 1000),
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1000,
            "topic.metadata.refresh.interval.ms": 30_000,
            "log_level": 2,
        }
        base.update(self.settings.kafka)
        base.update({name.replace("_", "."): value for name, value in more.items()})
        base["error_cb"] = self._on_error
        return base

    def _on_error(self, error: KafkaError) -> None:
        """librdkafka's global errors: authentication failures appear only here."""
        kind = "authentication" if error.code() in _AUTHENTICATION else "connection"
        self._trouble[kind] = error.str()

    @property
    def refused(self) -> bool:
        """Whether Kafka did not take our credentials, as far as the client has told us."""
        return "authentication" in self._trouble

    def unreachable(self, error: KafkaError | None = None) -> errors.BrokerError:
        """The error for "nobody answered": wrong credentials look like silence, so they are looked up here."""
        if self.refused:
            return errors.AuthenticationFailed(servers=self.servers, detail=self._trouble["authentication"])
        detail = self._trouble.get("connection") or (error.str() if error else "")
        return errors.BrokerUnreachable(servers=self.servers, detail=detail and f"({detail})")

    def error(self, error: KafkaError, topic: str = "", **fields: Any) -> errors.BrokerError:
        """Our error for one of the client's, most specific first."""
        code = error.code()
        if code in _AUTHENTICATION:
            return errors.AuthenticationFailed(servers=self.servers, detail=error.str())
        if code in _AUTHORIZATION:
            return errors.NotAuthorized(servers=self.servers, detail=error.str())
        if code in _MISSING:
            return errors.TopicMissing(servers=self.servers, topic=topic or "(a topic)")
        if code in _TOO_LARGE:
            return errors.RecordTooLarge(topic=topic, detail=error.str(), **fields)
        if code in _GONE:
            return errors.OffsetGone(topic=topic, **fields)
        if code in _UNREACHABLE:
            return self.unreachable(error)
        return errors.BrokerError(servers=self.servers, detail=f"{error.name()}: {error.str()}")

    def translated(self, exception: BaseException, topic: str = "", **fields: Any) -> errors.BrokerError:
        """Our error for an exception that the client raised, whatever it is."""
        if isinstance(exception, KafkaException) and exception.args and isinstance(exception.args[0], KafkaError):
            return self.error(exception.args[0], topic, **fields)
        return errors.BrokerError(servers=self.servers, detail=f"{type(exception).__name__}: {exception}")


Delivered = Callable[[errors.BrokerError | None, int], None]


class Producer:
    """Writes records, acks=all and idempotent. A thread of its own serves the delivery callbacks."""

    def __init__(self, cluster: Cluster, delivery_timeout_s: float | None = None) -> None:
        self._cluster = cluster
        timeout = cluster.settings.delivery_timeout_s if delivery_timeout_s is None else delivery_timeout_s
        self._timeout_s = timeout
        self._make = functools.partial(
            confluent_kafka.Producer,
            cluster.config(
                acks="all",
                enable_idempotence=True,
                linger_ms=0,
                delivery_timeout_ms=int(timeout * 1000),
                message_max_bytes=2 << 20,
                queue_buffering_max_kbytes=64 << 10,
            ),
        )
        self._lock = threading.Lock()
        self._client = self._make()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="kafka_jupyter-producer", daemon=True)
        self._thread.start()

    def send(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Any = (), on_delivery: Delivered | None = None
    ) -> None:
        """Hands the record over; `on_delivery(error, offset)` is called once, on the producer's thread.

        Raises DeliveryFailed when our own buffer stays full for the delivery timeout, RecordTooLarge at once.
        """

        def delivered(error: KafkaError | None, message: confluent_kafka.Message) -> None:
            if on_delivery is not None:
                offset = message.offset()
                on_delivery(self._delivery_error(error, topic), -1 if offset is None else offset)

        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                self._client.produce(topic, value=value, key=key, partition=partition, headers=list(headers), on_delivery=delivered)
                return
            except BufferError as full:  # the client's queue is full: the thread is draining it
                if time.monotonic() > deadline:
                    raise errors.DeliveryFailed(topic=topic, detail="our buffer has been full for too long") from full
                self._client.poll(0.05)
            except KafkaException as failure:
                if self._fatal(failure):
                    continue
                raise self._cluster.translated(failure, topic, size=len(value or b"")) from failure

    def write(self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Any = ()) -> int:
        """Sends and waits: the record's offset. Raises DeliveryUnknown (outcome unknown) or another BrokerError."""
        done = threading.Event()
        result: list[tuple[errors.BrokerError | None, int]] = []

        def delivered(error: errors.BrokerError | None, offset: int) -> None:
            result.append((error, offset))
            done.set()

        self.send(topic, partition, key, value, headers, delivered)
        if not done.wait(self._timeout_s + 5):
            raise errors.DeliveryUnknown(servers=self._cluster.servers, topic=topic)
        error, offset = result[0]
        if error is not None:
            raise error
        return offset

    def flush(self, timeout_s: float) -> int:
        """Waits until all is delivered; how many records are still on their way."""
        return int(self._client.flush(timeout_s))

    def ask(self, topic: str, timeout_s: float) -> None:
        """Whether a broker answers. Raises BrokerUnreachable and the like."""
        try:
            self._client.list_topics(topic, timeout=timeout_s)
        except KafkaException as failure:
            raise self._cluster.translated(failure, topic) from failure

    def close(self, timeout_s: float = 2.0) -> None:
        if not self._closed.is_set():
            self._client.flush(timeout_s)
            self._closed.set()
            self._thread.join(timeout_s)

    def _serve(self) -> None:
        while not self._closed.is_set():
            self._client.poll(0.1)

    def _fatal(self, failure: KafkaException) -> bool:
        """An idempotent producer that met a fatal error stays dead: make a new one."""
        error = failure.args[0]
        if not (isinstance(error, KafkaError) and error.fatal()):
            return False
        with self._lock:
            logger.warning("the Kafka producer met a fatal error and is made anew: %s", error.str())
            self._client = self._make()
        return True

    def _delivery_error(self, error: KafkaError | None, topic: str) -> errors.BrokerError | None:
        if error is None:
            return None
        if error.code() in _UNKNOWN_OUTCOME:
            return errors.DeliveryUnknown(servers=self._cluster.servers, topic=topic, detail=error.str())
        return self._cluster.error(error, topic)


class Reader:
    """Reads named partitions from named offsets (`assign`, no group). Not for use by two threads at once."""

    def __init__(self, cluster: Cluster, **more: Any) -> None:
        """`more`: further librdkafka settings, `_` for `.`."""
        self._cluster = cluster
        self._client = confluent_kafka.Consumer(
            cluster.config(
                group_id=f"kafka_jupyter-reader-{uuid.uuid4().hex[:12]}",  # the client wants one; nothing is ever committed
                enable_auto_commit=False,
                auto_offset_reset="error",  # `earliest` would silently hand over somebody else's record
                fetch_error_backoff_ms=50,
                fetch_queue_backoff_ms=20,
                check_crcs=True,
                **more,
            )
        )
        self.trouble = ""  # what the client complained of last; empty after a record arrived

    def assign(self, places: Mapping[Partition, int]) -> None:
        """Reads on from these offsets (BEGINNING is allowed)."""
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
        """(first offset, offset behind the last) as the broker says now. Raises BrokerError within the timeout."""
        timeout = self._cluster.settings.connect_timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + timeout
        while True:
            try:
                answer = self._client.get_watermark_offsets(TopicPartition(*place), timeout=max(0.1, deadline - time.monotonic()))
            except KafkaException as failure:
                # While a leader moves (or has just been made) the client answers at once; it is a matter of milliseconds.
                if failure.args[0].code() not in _LEADERLESS or time.monotonic() > deadline:
                    raise self._cluster.translated(failure, place[0]) from failure
                time.sleep(0.05)
                continue
            if answer is None:
                raise self._cluster.unreachable()
            return (int(answer[0]), int(answer[1]))

    def close(self) -> None:
        self._client.close()

    def _checked(self, message: confluent_kafka.Message) -> Message | None:
        error = message.error()
        if error is None:
            self.trouble = ""
            return _message(message)
        if error.code() in _UNREACHABLE or error.retriable():
            self.trouble = error.str()
            return None
        if error.code() == KafkaError._PARTITION_EOF:
            return None
        raise self._cluster.error(error, message.topic() or "", partition=message.partition(), offset=message.offset())


class GroupMember:
    """A member of a consumer group. Offsets are committed by hand; ownership is a preference, never a lock."""

    def __init__(self, cluster: Cluster, group: str, topics: list[str], on_change: Callable[[], None] = lambda: None) -> None:
        self._cluster, self._group, self._topics, self._on_change = cluster, group, topics, on_change
        self._protocol = "classic" if cluster.settings.group_protocol == "classic" else "consumer"
        self._client = self._join()

    def _join(self) -> confluent_kafka.Consumer:
        classic: dict[str, Any] = {
            "partition_assignment_strategy": "cooperative-sticky",
            "session_timeout_ms": 10_000,
            "heartbeat_interval_ms": 1000,
        }
        client = confluent_kafka.Consumer(
            self._cluster.config(
                group_id=self._group,
                group_protocol=self._protocol,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                fetch_error_backoff_ms=50,
                **(classic if self._protocol == "classic" else {}),
            )
        )
        client.subscribe(self._topics, on_assign=self._changed, on_revoke=self._changed)
        return client

    def _changed(self, _client: Any, _partitions: Any) -> None:
        self._on_change()

    def owned(self) -> set[Partition]:
        try:
            return {(each.topic, each.partition) for each in self._client.assignment()}
        except KafkaException:
            return set()

    def poll(self, timeout_s: float) -> list[Message]:
        """Records of owned partitions; none while paused. Must be called often: a silent member loses its partitions."""
        message = self._client.poll(timeout_s)
        if message is None:
            return []
        error = message.error()
        if error is None:
            return [_message(message)]
        if self._protocol == "consumer" and self._cluster.settings.group_protocol == "auto" and error.code() in _NO_CONSUMER_PROTOCOL:
            logger.info("the broker does not know the new group protocol; using the classic one")
            self._client.close()
            self._protocol = "classic"
            self._client = self._join()
            return []
        if error.code() in _UNREACHABLE or error.retriable() or error.code() == KafkaError._PARTITION_EOF:
            return []
        raise self._cluster.error(error, message.topic() or "", partition=message.partition(), offset=message.offset())

    def pause(self, paused: bool) -> None:
        """A busy worker stays in the group but takes no records."""
        assignment = self._client.assignment()
        if assignment:
            (self._client.pause if paused else self._client.resume)(assignment)

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Commits in the background; a lost commit only makes the lag look larger."""
        if offsets:
            try:
                self._client.commit(offsets=[TopicPartition(t, p, offset) for (t, p), offset in offsets.items()], asynchronous=True)
            except KafkaException as failure:
                logger.debug("commit failed: %s", failure)

    def close(self) -> None:
        self._client.close()


def _message(message: confluent_kafka.Message) -> Message:
    _kind, time_ms = message.timestamp()
    return Message(
        message.topic() or "",
        _whole(message.partition()),
        _whole(message.offset()),
        time_ms,
        message.key(),
        message.value(),
        tuple(cast("list[tuple[str, bytes | None]]", message.headers() or [])),
    )


def _whole(number: int | None) -> int:
    return -1 if number is None else number
