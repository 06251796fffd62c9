"""The topic table (design §2.1) and where a run lives in it."""

from __future__ import annotations

import dataclasses
import zlib

TASK = "task"
RUN_CONTROL = "run_control"
TRAINING_LOG = "training_log"
RUN_STATE = "run_state"
WORKER_STATE = "worker_state"
ARTIFACT = "artifact"
ARTIFACT_INDEX = "artifact_index"
TASK_DLQ = "task_dlq"

DAY_MS = 86_400_000
CHUNK = 512 << 10  # bytes of one artifact chunk


@dataclasses.dataclass(frozen=True)
class TopicSpec:
    """What a topic must be. `durable`: on a single broker every append is flushed to the disk before it is acked."""

    name: str  # without the prefix
    partitions: int
    cleanup: str  # "delete" | "compact"
    retention_ms: int  # -1: for ever
    durable: bool = False

    def config(self, replication: int) -> dict[str, str]:
        """The broker's settings for this topic, as strings."""
        config = {
            "cleanup.policy": self.cleanup,
            "message.timestamp.type": "LogAppendTime",
            "retention.bytes": "-1",
            "min.insync.replicas": "2" if replication >= 3 else "1",
        }
        if self.cleanup == "delete":
            config["retention.ms"] = str(self.retention_ms)
        if self.durable and replication == 1:
            config["flush.messages"] = "1"
        return config


def table(partitions: int = 3, keep_days: float = 30.0) -> tuple[TopicSpec, ...]:
    keep = int(keep_days * DAY_MS)
    return (
        TopicSpec(TASK, partitions, "delete", keep, durable=True),
        TopicSpec(RUN_CONTROL, partitions, "delete", keep, durable=True),
        TopicSpec(TRAINING_LOG, partitions, "delete", keep),
        TopicSpec(RUN_STATE, partitions, "compact", -1),
        TopicSpec(WORKER_STATE, 1, "compact", -1),
        TopicSpec(ARTIFACT, partitions, "compact", -1, durable=True),
        TopicSpec(ARTIFACT_INDEX, 1, "compact", -1, durable=True),
        TopicSpec(TASK_DLQ, partitions, "delete", 90 * DAY_MS),
    )


def partition_of(key: str, partitions: int) -> int:
    """Our own stable hash (CRC-32 of the UTF-8 bytes): default partitioners differ between clients."""
    return zlib.crc32(key.encode()) % partitions
