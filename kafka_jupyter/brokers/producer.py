"""Producer: writes records, and tells what became of each."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException

from kafka_jupyter import errors, redact
from kafka_jupyter.brokers.kafka import Cluster, whole

logger = redact.logger(__name__)

_UNKNOWN_OUTCOME = {
    KafkaError._MSG_TIMED_OUT,
    KafkaError._TIMED_OUT,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._PURGE_INFLIGHT,
    KafkaError._PURGE_QUEUE,
    KafkaError._FATAL,
}

# A poll for callbacks cannot be woken, so `close` waits for it: not for long in a short command, which is over while we are young.
_POLL_S, _BRIEFLY_S, _YOUNG_S = 0.1, 0.01, 1.0
_LOOK_S = 0.002  # between two looks at what is still on its way

Delivered = Callable[[errors.BrokerError | None, int], None]


class Producer:
    """Writes records, acks=all and idempotent. A thread of its own serves the delivery callbacks.

    What the broker has not confirmed itself is not counted as delivered. The client also infers: if a request of this partition
    fails and a later one, sent behind it, is accepted, it reports the records of the first as delivered, without an offset
    (`rd_kafka_dr_implicit_ack`). But a broker that knows nothing of this producer in this partition yet accepts any sequence
    number. So on a partition whose leader comes up in that moment, the records reported so are *not* in the log.
    """

    def __init__(self, cluster: Cluster, delivery_timeout_s: float | None = None) -> None:
        self._cluster = cluster
        timeout = cluster.settings.delivery_timeout_s if delivery_timeout_s is None else delivery_timeout_s
        self._timeout_s = timeout
        self._client = self._make()
        self._retired: list[confluent_kafka.Producer] = []  # met a fatal error; still has to tell what became of its records
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="kafka_jupyter-producer", daemon=True)
        self._thread.start()

    def send(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Any, on_delivery: Delivered | None = None
    ) -> None:
        """Hands the record over; `on_delivery(error, offset)` is called once, on the producer's thread. No error means an offset.

        Raises DeliveryFailed when our own buffer stays full for the delivery timeout, RecordTooLarge at once.
        """

        def delivered(error: KafkaError | None, message: confluent_kafka.Message) -> None:
            if on_delivery is not None:
                offset = whole(message.offset())
                if error is None and offset < 0:
                    on_delivery(errors.DeliveryInferred(servers=self.servers, topic=topic), offset)
                else:
                    on_delivery(self._delivery_error(error, topic, len(value or b"")), offset)

        deadline = time.monotonic() + self._timeout_s
        while True:
            client = self._client
            try:
                client.produce(topic, value=value, key=key, partition=partition, headers=list(headers), on_delivery=delivered)
                return
            except BufferError as full:  # the client's queue is full: our thread is draining it
                if time.monotonic() > deadline:
                    raise errors.DeliveryFailed(topic=topic, detail="our buffer has been full for too long") from full
                time.sleep(0.01)
            except KafkaException as failure:
                if _is_fatal(failure) and time.monotonic() <= deadline:  # our thread makes a new one
                    time.sleep(0.01)
                    continue
                raise self._cluster.translated(failure, topic, size=len(value or b"")) from failure

    def write(self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Any) -> int:
        """Sends and waits: the record's offset. Raises DeliveryUnknown (outcome unknown) or another BrokerError.

        An inferred delivery is sent again: a record that stands in the log twice means nothing, one that is missing is a lost run.
        """
        while True:
            try:
                return self._write_once(topic, partition, key, value, headers)
            except errors.DeliveryInferred as inferred:
                logger.info("written again: %s", inferred)

    @property
    def servers(self) -> str:
        return self._cluster.servers

    def flush(self, timeout_s: float) -> int:
        """Waits until all is delivered and told; how many records are still on their way.

        It does not call the client's own `flush`: that would call `on_delivery` on this thread, beside ours, and take from ours the one
        notice of a fatal error. (The client's goes on for a while after that notice, so that callbacks fail with SystemError.)
        """
        deadline = time.monotonic() + timeout_s
        while (left := sum(len(client) for client in (self._client, *self._retired))) and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        return left

    def ask(self, topic: str, timeout_s: float) -> None:
        """Whether a broker answers. Raises BrokerUnreachable and the like."""
        try:
            self._client.list_topics(topic, timeout=timeout_s)
        except KafkaException as failure:
            raise self._cluster.translated(failure, topic) from failure

    def close(self, timeout_s: float = 2.0) -> None:
        if not self._closed.is_set():
            self.flush(timeout_s)
            self._closed.set()
            self._thread.join(timeout_s)

    def _write_once(self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Any) -> int:
        outcome: queue.SimpleQueue[tuple[errors.BrokerError | None, int]] = queue.SimpleQueue()
        self.send(topic, partition, key, value, headers, lambda error, offset: outcome.put((error, offset)))
        try:
            error, offset = outcome.get(timeout=self._timeout_s + 5)
        except queue.Empty:
            raise errors.DeliveryUnknown(servers=self.servers, topic=topic) from None
        if error is not None:
            raise error
        return offset

    def _make(self) -> confluent_kafka.Producer:
        config = self._cluster.config(
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
            delivery_timeout_ms=int(self._timeout_s * 1000),
            message_max_bytes=2 << 20,
            queue_buffering_max_kbytes=64 << 10,
        )
        return confluent_kafka.Producer(config)

    def _serve(self) -> None:
        grown_up = time.monotonic() + _YOUNG_S
        while not self._closed.is_set():
            poll_s = _POLL_S if time.monotonic() >= grown_up else _BRIEFLY_S
            for client, patience_s in ((self._client, poll_s), *((retired, 0.0) for retired in self._retired)):
                try:
                    client.poll(patience_s)
                except KafkaException as failure:  # that is how a fatal error is told
                    if client is self._client:
                        self._replace(failure)
            self._retired = [retired for retired in self._retired if len(retired)]

    def _replace(self, failure: KafkaException) -> None:
        """An idempotent producer that met a fatal error stays dead. A new one takes its place; the records of the dead one are unknown."""
        logger.warning("the Kafka producer met a fatal error and is made anew: %s", failure)
        dead = self._client
        self._retired.append(dead)  # first, so that `flush` always finds it in one place or the other
        self._client = self._make()
        dead.purge()

    def _delivery_error(self, error: KafkaError | None, topic: str, size: int) -> errors.BrokerError | None:
        if error is None:
            return None
        if error.code() in _UNKNOWN_OUTCOME:
            return errors.DeliveryUnknown(servers=self.servers, topic=topic, detail=error.str())
        return self._cluster.error(error, topic, size=size)


def _is_fatal(failure: KafkaException) -> bool:
    """`poll` tells a fatal error with this flag; `produce`, refused because of an earlier one, only with this code."""
    error = failure.args[0]
    return isinstance(error, KafkaError) and (bool(error.fatal()) or error.code() == KafkaError._FATAL)
