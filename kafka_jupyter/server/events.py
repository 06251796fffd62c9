"""The events of the stream as bytes (docs/architecture.md lists them)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import msgspec

from kafka_jupyter.protocol.rows import BatchProgress, LogLine, Row, RowBatch

DETAIL = (b"event: progress\n", b"event: log\n")  # how the events begin that only who looks at this run wants
HEARTBEAT = b": \n\n"
RESET = b"event: reset\ndata: {}\n"
BYE = b"event: bye\ndata: {}\n\n"
_encoder = msgspec.json.Encoder()


@dataclasses.dataclass(slots=True)
class Event:
    """`body` ends behind its data line. Without `id` a client that is cut off behind it resumes as if it had not come."""

    body: bytes
    id: str = ""

    def parts(self) -> tuple[bytes, bytes]:
        """`body` itself, which many streams share, and the rest."""
        return self.body, f"id: {self.id}\n\n".encode() if self.id else b"\n"


def body(kind: str, data: Any) -> bytes:
    # JSON has no raw line breaks, so one `data:` line holds it whatever text is in it.
    return b"event: %b\ndata: %b\n" % (kind.encode(), _encoder.encode(data))


def bodies(batch: RowBatch, rows: Iterable[Row]) -> tuple[bytes, ...]:
    """The events of one record of `training_log`: `metrics`, then `progress`, then `log`."""
    kinds: dict[str, list[Row]] = {"metrics": [], "progress": [], "log": []}
    for row in rows:
        kinds["log" if isinstance(row, LogLine) else "progress" if isinstance(row, BatchProgress) else "metrics"].append(row)
    return tuple(body(kind, {"run_id": batch.run_id, "attempt": batch.n, "rows": chosen}) for kind, chosen in kinds.items() if chosen)
