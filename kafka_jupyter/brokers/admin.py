"""What needs Kafka's admin client: is anybody there, which topics, make them. The second file that imports confluent_kafka."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]  # not in its __all__

from kafka_jupyter.brokers.kafka import Cluster

FIRST_LOOK_S = 1.0


@dataclasses.dataclass(frozen=True)
class ClusterInfo:
    cluster_id: str
    brokers: int
    partitions: Mapping[str, int]  # of every topic
    replication: Mapping[str, int]


class Admin:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @functools.cached_property
    def _client(self) -> AdminClient:
        return AdminClient(self._cluster.config())

    def info(self, timeout_s: float | None = None) -> ClusterInfo:
        """One metadata answer. Raises BrokerUnreachable or AuthenticationFailed within `connect_timeout_s`."""
        timeout = self._cluster.settings.connect_timeout_s if timeout_s is None else timeout_s
        try:
            found = self._metadata(timeout)
        except KafkaException as failure:
            raise self._cluster.translated(failure) from failure
        return ClusterInfo(
            str(found.cluster_id or ""),
            len(found.brokers),
            {name: len(topic.partitions) for name, topic in found.topics.items()},
            {name: min((len(p.replicas) for p in topic.partitions.values()), default=0) for name, topic in found.topics.items()},
        )

    def _metadata(self, timeout_s: float) -> Any:
        """Refused credentials look like silence until `poll` hands over what the client has met: so silence is looked at early."""
        first_s = min(FIRST_LOOK_S, timeout_s)
        try:
            return self._client.list_topics(timeout=first_s)
        except KafkaException:
            self._client.poll(0)
            if self._cluster.refused or first_s == timeout_s:
                raise
        try:
            return self._client.list_topics(timeout=timeout_s - first_s)
        except KafkaException:
            self._client.poll(0)
            raise

    def create(self, topics: Iterable[tuple[str, int, int, Mapping[str, str]]], timeout_s: float = 15.0) -> list[str]:
        """Creates (name, partitions, replication, config) topics; which were made. One that exists already is passed over."""
        wanted = [NewTopic(n, num_partitions=p, replication_factor=r, config=dict(c)) for n, p, r, c in topics]
        made = []
        if wanted:
            for name, future in self._client.create_topics(wanted, operation_timeout=timeout_s, request_timeout=timeout_s).items():
                try:
                    future.result()
                    made.append(name)
                except KafkaException as failure:
                    if failure.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                        raise self._cluster.translated(failure, name) from failure
        return made

    def delete(self, names: list[str], timeout_s: float = 15.0) -> None:
        for name, future in self._client.delete_topics(names, operation_timeout=timeout_s).items():
            try:
                future.result()
            except KafkaException as failure:
                raise self._cluster.translated(failure, name) from failure

    def configs(self, names: Iterable[str], timeout_s: float = 10.0) -> dict[str, dict[str, str]]:
        """The settings of each topic as the broker has them. Raises BrokerUnreachable, NotAuthorized or TopicMissing."""
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        answers: dict[str, dict[str, str]] = {}
        for resource, future in (self._describe(resources, timeout_s) if resources else {}).items():
            try:
                answers[resource.name] = {name: str(entry.value) for name, entry in future.result().items()}
            except KafkaException as failure:
                raise self._cluster.translated(failure, resource.name) from failure
        return answers

    def _describe(self, resources: list[ConfigResource], timeout_s: float) -> Any:
        """Asks the broker that has just answered: every broker knows the settings of topics.

        The client would ask "the controller", and a KRaft broker gives any broker as that which is not fenced yet: for 9 s perhaps the
        one that was killed a moment ago, and the client waits for it.
        """
        deadline = time.monotonic() + timeout_s
        try:
            answered = self._metadata(timeout_s).orig_broker_id
            if answered < 0:  # over the bootstrap connection, whose broker's number the client did not know yet: now it does
                answered = self._metadata(max(0.1, deadline - time.monotonic())).orig_broker_id
        except KafkaException as failure:
            raise self._cluster.translated(failure) from failure
        whom = {"broker": answered} if answered >= 0 else {}
        return self._client.describe_configs(resources, request_timeout=max(0.1, deadline - time.monotonic()), **whom)
