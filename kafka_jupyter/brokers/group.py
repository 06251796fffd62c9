"""GroupMember: which partitions of `task` are ours to prefer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from kafka_jupyter import redact
from kafka_jupyter.brokers.kafka import UNREACHABLE, Cluster, Message, Partition, message_of

logger = redact.logger(__name__)

_NO_CONSUMER_PROTOCOL = {KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE, KafkaError._INVALID_ARG}


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
        config = self._cluster.config(
            group_id=self._group,
            group_protocol=self._protocol,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_error_backoff_ms=50,
            **(classic if self._protocol == "classic" else {}),
        )
        try:
            client = confluent_kafka.Consumer(config)
            client.subscribe(self._topics, on_assign=self._changed, on_revoke=self._changed)
        except KafkaException as failure:
            raise self._cluster.translated(failure) from failure
        return client

    def _changed(self, _client: Any, _partitions: Any) -> None:
        self._on_change()

    def owned(self) -> set[Partition]:
        try:
            return {(each.topic, each.partition) for each in self._client.assignment()}
        except KafkaException:
            return set()

    def poll(self, timeout_s: float) -> list[Message]:
        """Records of owned partitions; none while paused. Must be called often: a silent member loses its partitions.

        Raises BrokerError; the member lives on.
        """
        try:
            message = self._client.poll(timeout_s)
        except KafkaException as failure:
            raise self._cluster.translated(failure) from failure
        if message is None:
            return []
        error = message.error()
        if error is None:
            return [message_of(message)]
        if self._protocol == "consumer" and self._cluster.settings.group_protocol == "auto" and error.code() in _NO_CONSUMER_PROTOCOL:
            logger.info("the broker does not know the new group protocol; using the classic one")
            self._client.close()
            self._protocol = "classic"
            self._client = self._join()
            return []
        if error.code() in UNREACHABLE or error.retriable() or error.code() == KafkaError._PARTITION_EOF:
            return []
        raise self._cluster.error(error, message.topic() or "", partition=message.partition(), offset=message.offset())

    def pause(self, paused: bool) -> None:
        """A busy worker stays in the group but takes no records. Raises BrokerError, for example while a rebalance is under way."""
        try:
            assignment = self._client.assignment()
            if assignment:
                (self._client.pause if paused else self._client.resume)(assignment)
        except KafkaException as failure:
            raise self._cluster.translated(failure) from failure

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Commits in the background; a lost commit only makes the lag look larger."""
        if offsets:
            try:
                self._client.commit(offsets=[TopicPartition(t, p, offset) for (t, p), offset in offsets.items()], asynchronous=True)
            except KafkaException as failure:
                logger.debug("commit failed: %s", failure)

    def close(self) -> None:
        self._client.close()
