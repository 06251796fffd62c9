"""Our topics on a cluster: full names, the place of a run, making them and saying exactly how they differ."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable

from kafka_jupyter import errors, redact
from kafka_jupyter.brokers.admin import Admin, ClusterInfo
from kafka_jupyter.brokers.kafka import Cluster, Partition
from kafka_jupyter.protocol import topics as spec
from kafka_jupyter.settings import Settings

logger = redact.logger(__name__)

SETTLE_S = 10.0  # until the brokers know of a new topic
SECOND_LOOK_S = 1.0  # until the one that we happen to ask knows of topics that somebody has made a moment ago

# Compaction erases the order of claims and rows, retention what a result is made of, and a run's ages are append times.
_VITAL_TOPICS = (spec.TASK, spec.RUN_CONTROL, spec.TRAINING_LOG, spec.ARTIFACT, spec.ARTIFACT_INDEX)
_VITAL_SETTINGS = ("cleanup.policy", "message.timestamp.type")


@dataclasses.dataclass(frozen=True)
class Topics:
    """Names with their prefix, and which partition of them a key belongs to."""

    prefix: str
    partitions: int
    cluster_id: str = ""

    def name(self, base: str) -> str:
        return self.prefix + base

    def base(self, name: str) -> str:
        return name.removeprefix(self.prefix)

    def place(self, base: str, key: str) -> Partition:
        """Where records with this key live. `worker_state` and `artifact_index` have one partition."""
        single = base in (spec.WORKER_STATE, spec.ARTIFACT_INDEX)
        return (self.name(base), 0 if single else spec.partition_of(key, self.partitions))

    def all_places(self, base: str) -> list[Partition]:
        single = base in (spec.WORKER_STATE, spec.ARTIFACT_INDEX)
        return [(self.name(base), p) for p in range(1 if single else self.partitions)]


@dataclasses.dataclass(frozen=True)
class Difference:
    """One thing about a topic that is not as it must be."""

    topic: str
    what: str  # "missing", "partitions", "replication" or a broker setting
    found: str
    wanted: str

    def __str__(self) -> str:
        if self.what == "missing":
            return f"{self.topic}: missing"
        return f"{self.topic}: {self.what} is {self.found}, should be {self.wanted}"


def replication_for(settings: Settings, brokers: int) -> int:
    return settings.replication or (3 if brokers >= 3 else 1)


def open_topics(cluster: Cluster, create: bool = False) -> Topics:
    """The topics of this cluster, checked with two answers: names and partition counts, and settings with which records would be lost.

    Raises TopicMissing (unless `create`) and TopicMismatch: not all keyed topics have the same partition count, or such a setting.
    """
    settings = cluster.settings
    admin = Admin(cluster)
    wanted = spec.table(settings.partitions, settings.keep_days)
    info = admin.info() if create else _settled(admin, settings.topic_prefix, wanted, SECOND_LOOK_S)
    missing = [t for t in wanted if settings.topic_prefix + t.name not in info.partitions]
    _refuse_losses(cluster, admin, [t for t in wanted if t.name in _VITAL_TOPICS and t not in missing])
    if missing and create:
        _create(admin, settings, info, missing)
        info = _settled(admin, settings.topic_prefix, wanted, SETTLE_S)
        missing = [t for t in wanted if settings.topic_prefix + t.name not in info.partitions]
    if missing:
        raise errors.TopicMissing(topic=settings.topic_prefix + missing[0].name, servers=cluster.servers)
    keyed = {t.name: info.partitions[settings.topic_prefix + t.name] for t in wanted if t.partitions > 1 or settings.partitions == 1}
    counts = {n for name, n in keyed.items() if name not in (spec.WORKER_STATE, spec.ARTIFACT_INDEX)}
    if len(counts) != 1:
        raise errors.TopicMismatch(servers=cluster.servers, detail=f"their partition counts differ: {keyed}")
    return Topics(settings.topic_prefix, counts.pop(), info.cluster_id)


def _refuse_losses(cluster: Cluster, admin: Admin, existing: list[spec.TopicSpec]) -> None:
    """3 to 4 ms once a process. Who may not describe settings goes on without: whoever operates such a Kafka has made the topics."""
    prefix = cluster.settings.topic_prefix
    try:
        found = admin.configs((prefix + t.name for t in existing), cluster.settings.connect_timeout_s)
    except (errors.NotAuthorized, errors.TopicMissing) as failure:  # missing: made a moment ago, and this broker has not heard of it
        logger.info("the settings of the topics are not checked: %s", failure)
        return
    differences = []
    for topic in existing:
        is_so, wanted = found[prefix + topic.name], topic.config(1)
        differences += [
            Difference(prefix + topic.name, key, is_so[key], wanted[key])
            for key in _VITAL_SETTINGS
            if is_so.get(key, wanted[key]) != wanted[key]
        ]
    if differences:
        raise errors.TopicMismatch(servers=cluster.servers, detail="; ".join(map(str, differences)))


def init(cluster: Cluster) -> tuple[list[str], list[Difference]]:
    """Creates what is missing; (created names, how the others differ). Existing topics are never changed: that is for their owner."""
    admin = Admin(cluster)
    info = admin.info()
    settings = cluster.settings
    missing = [t for t in spec.table(settings.partitions, settings.keep_days) if settings.topic_prefix + t.name not in info.partitions]
    created = _create(admin, settings, info, missing)
    _settled(admin, settings.topic_prefix, missing, SETTLE_S)
    return created, [d for d in check(cluster) if d.topic not in created]


def check(cluster: Cluster) -> list[Difference]:
    """Exactly how the topics differ from what they must be; empty if they do not."""
    settings, admin = cluster.settings, Admin(cluster)
    info = admin.info()
    replication = replication_for(settings, info.brokers)
    wanted = {settings.topic_prefix + t.name: t for t in spec.table(settings.partitions, settings.keep_days)}
    found = admin.configs(name for name in wanted if name in info.partitions)
    differences = []
    for name, topic in wanted.items():
        if name not in info.partitions:
            differences.append(Difference(name, "missing", "", ""))
            continue
        if info.partitions[name] != topic.partitions:
            differences.append(Difference(name, "partitions", str(info.partitions[name]), str(topic.partitions)))
        if info.replication[name] != replication:
            differences.append(Difference(name, "replication", str(info.replication[name]), str(replication)))
        for key, value in topic.config(replication).items():
            if found[name].get(key) != value:
                differences.append(Difference(name, key, found[name].get(key, "unset"), value))
    return differences


def _settled(admin: Admin, prefix: str, wanted: Iterable[spec.TopicSpec], within_s: float) -> ClusterInfo:
    """The cluster's answer once it knows the new topics: a created topic reaches the metadata of each broker a moment later."""
    deadline = time.monotonic() + within_s
    while True:
        info = admin.info()
        if all(info.partitions.get(prefix + t.name, 0) > 0 for t in wanted) or time.monotonic() > deadline:
            return info
        time.sleep(0.02)


def _create(admin: Admin, settings: Settings, info: ClusterInfo, missing: list[spec.TopicSpec]) -> list[str]:
    replication = replication_for(settings, info.brokers)
    return admin.create((settings.topic_prefix + t.name, t.partitions, replication, t.config(replication)) for t in missing)
