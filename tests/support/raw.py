"""Records past the product's own writers, signed as somebody says who may write them."""

from __future__ import annotations

import json
import re

from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol import topics
from kafka_jupyter.protocol.headers import Headers
from kafka_jupyter.protocol.signing import tombstone

TYPES = {
    topics.TASK: "task", topics.RUN_CONTROL: "heartbeat", topics.TRAINING_LOG: "rows", topics.RUN_STATE: "snapshot",
    topics.WORKER_STATE: "worker", topics.ARTIFACT: "chunk", topics.ARTIFACT_INDEX: "artifact", topics.TASK_DLQ: "dead_letter",
}  # fmt: skip
_TYPE = re.compile(r"[a-z][a-z0-9_-]{0,39}\Z")


def signed(log: Log, topic: str, key: bytes | None, value: bytes | None) -> Headers:
    """The headers of whatever bytes: signed as what they say they are, else as what this topic is for."""
    usual = TYPES[log.topics.base(topic)]
    return log.signed(topic, tombstone(usual) if value is None else _said(value) or usual, key, value)


def write(log: Log, place: tuple[str, int], key: bytes | None, value: bytes | None) -> int:
    """Whatever bytes, to this partition: their offset."""
    topic, partition = place
    return log.producer.write(topic, partition, key, value, signed(log, topic, key, value))


def _said(value: bytes) -> str:
    try:
        record = json.loads(value)
    except (ValueError, RecursionError):
        return ""
    said = record.get("type") if isinstance(record, dict) else None
    return said if isinstance(said, str) and _TYPE.match(said) else ""
