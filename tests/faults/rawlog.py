"""The raw topics, read with the plain Kafka client and decoded with `json`: nothing here knows the product's code.

What is no record of ours (wrong key, wrong partition, missing or ill-typed fields, no JSON) is passed over, as rule 12 and the
topic table say; a run that has a record of an unknown version is not judged.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import pathlib
import time
import uuid
import zlib
from typing import Any
from urllib.parse import unquote, urlparse

import confluent_kafka
from confluent_kafka import TopicPartition

from tests.faults.acceptance import Entry
from tests.support.waiting import wait_until

_ATTEMPT = {"n": int, "worker": str, "nonce": str}
_REQUEST = {"request_id": str}
FIELDS: dict[str, dict[str, type]] = {
    "submitted": {"task": dict},
    "claimed": _ATTEMPT | {"task": dict},
    "started": _ATTEMPT,
    "heartbeat": _ATTEMPT,
    "checkpointed": _ATTEMPT | {"epoch": int, "step": int},
    "applied": _ATTEMPT | _REQUEST,
    "released": _ATTEMPT | {"reason": str},
    "failed": _ATTEMPT | {"retryable": bool, "reason": str},
    "succeeded": _ATTEMPT,
    "cancelled": _ATTEMPT,
    "expired": {"n": int, "after": int},
    "tooold": {},
    "dead": {},
    "stop": _REQUEST,
    "cancel": _REQUEST,
    "pause": _REQUEST,
    "resume": _REQUEST,
    "settings": _REQUEST,
}


@dataclasses.dataclass(frozen=True)
class Raw:
    """A message as the broker has it."""

    partition: int
    offset: int
    time_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclasses.dataclass
class RunLog:
    """All that the topics hold of one run. `rows`: (offset, record) of training_log; `ends`: what run_state says of its end."""

    run_id: str
    control: list[Entry] = dataclasses.field(default_factory=list)
    rows: list[tuple[int, dict[str, Any]]] = dataclasses.field(default_factory=list)
    appended_ms: dict[int, int] = dataclasses.field(default_factory=dict)  # when these rows came, by offset
    tasks: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    ends: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    newer: bool = False


@dataclasses.dataclass
class Topics:
    runs: dict[str, RunLog] = dataclasses.field(default_factory=dict)
    chunks: dict[str, bytes] = dataclasses.field(default_factory=dict)  # of the artifact topic, by key
    letters: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    junk: int = 0

    def of(self, run_id: str) -> RunLog:
        return self.runs.setdefault(run_id, RunLog(run_id))

    def bytes_of(self, part: dict[str, Any]) -> bytes | None:
        """What a record's part names; None if it is not (all) there."""
        match part.get("kind"):
            case "text":
                return str(part["text"]).encode()
            case "bytes":
                return base64.b64decode(part["data"])
            case "kafka":
                found = [self.chunks.get(f"{part['upload']}/{i}") for i in range(part["chunks"])]
                return None if None in found else b"".join(chunk for chunk in found if chunk is not None)
            case "url":
                file = pathlib.Path(unquote(urlparse(part["url"]).path))
                return file.read_bytes() if file.exists() else None
        return None


def is_whole(part: dict[str, Any], data: bytes | None) -> bool:
    if data is None:
        return False
    if "sha256" not in part:
        return True  # it stands in the record itself
    return len(data) == part["size"] and hashlib.sha256(data).hexdigest() == part["sha256"]


def read(servers: str, prefix: str) -> Topics:
    """Everything below a topic prefix, as it is now."""
    client = _client(servers)
    try:
        known = client.list_topics(timeout=20).topics
        topics = Topics()
        for base, take in _TAKERS.items():
            places = len(known[prefix + base].partitions)
            for partition in range(places):
                for raw in _partition(client, prefix + base, partition):
                    topics.junk += not take(topics, raw, places)
        return topics
    finally:
        client.close()


def read_recent(servers: str, topic: str, count: int) -> list[Raw]:
    """The last records of every partition of a topic."""
    client = _client(servers)
    try:
        places = client.list_topics(topic, timeout=20).topics[topic].partitions
        return [raw for partition in places for raw in _partition(client, topic, partition, count)]
    finally:
        client.close()


def _client(servers: str) -> confluent_kafka.Consumer:
    return confluent_kafka.Consumer(
        {"bootstrap.servers": servers, "group.id": f"checker-{uuid.uuid4().hex}", "enable.auto.commit": False, "log_level": 2}
    )


def _partition(client: confluent_kafka.Consumer, topic: str, partition: int, last: int | None = None) -> list[Raw]:
    low, high = _bounds(client, topic, partition)
    low = low if last is None else max(low, high - last)
    if low >= high:
        return []
    client.assign([TopicPartition(topic, partition, low)])
    found: list[Raw] = []
    deadline = time.monotonic() + 60
    while client.position([TopicPartition(topic, partition)])[0].offset < high:
        assert time.monotonic() < deadline, f"{topic}[{partition}] could not be read from {low} to {high}"
        for message in client.consume(500, 0.05):
            if message.error() is None:  # a broker that is away is none of our business
                headers = tuple(message.headers() or ())
                found.append(Raw(partition, message.offset(), message.timestamp()[1], message.key(), message.value(), headers))
    return [raw for raw in found if raw.offset < high]


def _bounds(client: confluent_kafka.Consumer, topic: str, partition: int) -> tuple[int, int]:
    """The client gives up a question when it hears that the leader, or the address of its broker, is another one."""

    def asked() -> tuple[int, int] | None:
        with contextlib.suppress(confluent_kafka.KafkaException):
            return client.get_watermark_offsets(TopicPartition(topic, partition), timeout=20)
        return None

    return wait_until(asked, f"nobody says where {topic}[{partition}] ends", within=60)


def _record(raw: Raw) -> dict[str, Any] | None:
    try:
        record = json.loads(raw.value or b"")
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("v", 1), int) else None


def _owned(raw: Raw, places: int) -> dict[str, Any] | None:
    """A record whose key and partition are those of its run."""
    record = _record(raw)
    if record is None or not isinstance(record.get("run_id"), str):
        return None
    key = record["run_id"].encode("utf-8", "replace")
    return record if raw.key == key and zlib.crc32(key) % places == raw.partition else None


def _take_task(topics: Topics, raw: Raw, places: int) -> bool:
    record = _owned(raw, places)
    if record is None or record.get("type") != "task" or not isinstance(record.get("model"), dict):
        return False
    topics.of(record["run_id"]).tasks.append(record)
    return True


def _take_control(topics: Topics, raw: Raw, places: int) -> bool:
    record = _owned(raw, places)
    if record is None or not isinstance(record.get("type"), str) or record.get("v", 1) < 1:
        return False
    if record.get("v", 1) > 1 or record["type"] not in FIELDS:
        topics.of(record["run_id"]).newer = True
        return False
    if not all(type(record.get(name)) is kind for name, kind in FIELDS[record["type"]].items()):
        return False
    topics.of(record["run_id"]).control.append(Entry(raw.offset, raw.time_ms, record))
    return True


def _take_rows(topics: Topics, raw: Raw, places: int) -> bool:
    record = _owned(raw, places)
    if record is None or record.get("type") != "rows" or not isinstance(record.get("rows"), list):
        return False
    topics.of(record["run_id"]).rows.append((raw.offset, record))
    topics.of(record["run_id"]).appended_ms[raw.offset] = raw.time_ms
    return True


def _take_snapshot(topics: Topics, raw: Raw, places: int) -> bool:
    record, key = _record(raw), (raw.key or b"").split(b"/")
    if record is None or key[0] != b"page":
        return record is not None
    states = record.get("states")
    if not isinstance(states, list) or not all(isinstance(state, dict) and isinstance(state.get("run_id"), str) for state in states):
        return False
    for state in states:
        topics.of(state["run_id"]).ends.append(state)
    return True


def _take_chunk(topics: Topics, raw: Raw, places: int) -> bool:
    key = (raw.key or b"").decode("utf-8", "replace")
    if raw.value is None:
        topics.chunks.pop(key, None)
    else:
        topics.chunks[key] = raw.value
    return True


def _take_letter(topics: Topics, raw: Raw, places: int) -> bool:
    record = _record(raw)
    if record is None:
        return False
    topics.letters.append(record)
    return True


_TAKERS = {
    "task": _take_task,
    "run_control": _take_control,
    "training_log": _take_rows,
    "run_state": _take_snapshot,
    "artifact": _take_chunk,
    "task_dlq": _take_letter,
}
