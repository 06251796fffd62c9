"""Change: what a follower tells its listeners."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.rows import Row, RowBatch
from kafka_jupyter.protocol.workers import WorkerInfo
from kafka_jupyter.runs.state import RunState


@dataclasses.dataclass(frozen=True)
class Change:
    """What one record changed. Exactly one of `state`, `batch`, `worker` is set (`gone`: a worker's tombstone)."""

    topic: str  # without the prefix
    partition: int
    offset: int
    time_ms: int
    run_id: str = ""
    state: RunState | None = None
    record: control.Record | None = None  # what was folded into `state`
    batch: RowBatch | None = None
    kid: str = ""  # of the key that signed `batch`
    rows: tuple[Row, ...] = ()  # those of `batch` that were new
    worker: WorkerInfo | None = None
    gone: str = ""


Listener = Callable[[Change], None]
