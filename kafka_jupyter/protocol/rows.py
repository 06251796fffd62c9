"""`training_log`: a record holds one or many rows of one attempt; `seq` rises strictly within an attempt.

A row's *place* says how much of the training lay behind it when it was written; it decides which rows a restarted attempt
replaces (rule 10).
"""

from __future__ import annotations

import msgspec

from kafka_jupyter.protocol.ids import version_1

Metrics = dict[str, float | None]


class EpochEnded(msgspec.Struct, frozen=True, tag_field="type", tag="epoch", omit_defaults=True):
    seq: int
    epoch: int  # 0-based
    step: int = 0  # batches in this epoch
    metrics: Metrics = {}
    seconds: float = 0.0
    at_ms: int = 0  # the worker's clock, to be shown only

    @property
    def place(self) -> tuple[int, int]:
        return (self.epoch + 1, 0)


class BatchProgress(msgspec.Struct, frozen=True, tag_field="type", tag="batch", omit_defaults=True):
    """Throttled to 4 a second; may be thinned."""

    seq: int
    epoch: int
    step: int  # batches done in this epoch
    steps: int | None = None  # batches in an epoch, where known
    metrics: Metrics = {}
    at_ms: int = 0

    @property
    def place(self) -> tuple[int, int]:
        return (self.epoch, self.step)


class LogLine(msgspec.Struct, frozen=True, tag_field="type", tag="line", omit_defaults=True):
    seq: int
    epoch: int
    step: int
    text: str
    stream: str = "stdout"
    at_ms: int = 0

    @property
    def place(self) -> tuple[int, int]:
        return (self.epoch, self.step)


Row = EpochEnded | BatchProgress | LogLine

LINE_LIMIT = 4096  # characters of one LogLine; longer ones are cut with a mark
METRICS_LIMIT = 1000  # metrics of one row
NAME_LIMIT = 200  # characters of a metric's name


def bounded(row: Row) -> Row:
    """The row as a reader keeps it. A worker of ours keeps these limits; anybody who may write to the topic need not."""
    if isinstance(row, LogLine):
        if len(row.text) <= 2 * LINE_LIMIT:
            return row
        return msgspec.structs.replace(row, text=f"{row.text[:LINE_LIMIT]} … ({len(row.text) - LINE_LIMIT} more characters)")
    if len(row.metrics) <= METRICS_LIMIT and all(len(name) <= NAME_LIMIT for name in row.metrics):
        return row
    some = list(row.metrics.items())[:METRICS_LIMIT]
    return msgspec.structs.replace(row, metrics={name[:NAME_LIMIT]: value for name, value in some})


class RowBatch(msgspec.Struct, frozen=True, tag_field="type", tag="rows", omit_defaults=True):
    """Rows of attempt `n` of `worker` with `nonce`; `rows[0].seq` is the first, `len(rows)` the count."""

    run_id: str
    n: int
    worker: str
    nonce: str
    rows: list[Row]
    v: int = msgspec.field(default_factory=version_1)
