"""Many runs at once in the real topics, as months of work leave them: for lists, which need no training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol import control, ids
from kafka_jupyter.protocol.parts import InlineBytes, KafkaRef, Part
from kafka_jupyter.protocol.rows import EpochEnded, LogLine, RowBatch
from kafka_jupyter.protocol.task import Requirements

OUTCOME = 3000  # bytes of a run's history as JSON: about forty epochs of two metrics


@dataclasses.dataclass
class Member:
    """One run of the crowd. `ends`: Succeeded, Failed, Cancelled, or None for one that is still running."""

    name: str
    epochs: int = 4
    ends: str | None = "Succeeded"
    owner: str = "ada@test"
    notebook: str = "/work/nets.ipynb"
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    metrics: Callable[[int], dict[str, float | None]] = lambda epoch: {"loss": 1 / (epoch + 1), "val_accuracy": 1 - 0.5 / (epoch + 1)}
    lines: Sequence[str] = ()
    error: tuple[str, str, str] = ("ValueError", "it was bound to fail", "Traceback (most recent call last):\n  …")
    worker: str = "box-1"
    done: int | None = None  # epochs that it has got to; None: all of them
    rows_a_record: int = 500
    beats: int = 0  # heartbeats that it has given
    checkpoints: int = 0
    waits: bool = False  # nobody has claimed it; it may have been cancelled
    run_id: str = ""
    first: int = -1  # offset of its first row
    last: int = -1

    def __post_init__(self) -> None:
        self.run_id = self.run_id or ids.new_run_id("crowd")

    def own(self) -> dict[str, object]:
        return {"run_id": self.run_id, "n": 1, "worker": self.worker, "nonce": "n" * 16}


def play(log: Log, members: Sequence[Member]) -> None:
    """Returns when all of it is in the log."""
    for member in members:
        _rows(log, member)
    assert log.producer.flush(60) == 0
    for member in members:
        _records(log, member)
    assert log.producer.flush(60) == 0


def _rows(log: Log, member: Member) -> None:
    def delivered(error: object, offset: int) -> None:
        assert error is None
        member.first = offset if member.first < 0 else min(member.first, offset)
        member.last = max(member.last, offset)

    done = 0 if member.waits else member.epochs if member.done is None else member.done
    rows: list[EpochEnded | LogLine] = [EpochEnded(i + 1, i, 10, member.metrics(i), 0.5, 1_000 * i) for i in range(done)]
    rows += [LogLine(len(rows) + i + 1, done, 0, text) for i, text in enumerate(member.lines)]
    for start in range(0, len(rows), member.rows_a_record):
        log.send_rows(RowBatch(member.run_id, 1, member.worker, "n" * 16, list(rows[start : start + member.rows_a_record])), delivered)


def _records(log: Log, member: Member) -> None:
    place = control.TaskPlace("task", 0, 0)
    log.send_control(
        control.Submitted(
            run_id=member.run_id, task=place, name=member.name, owner=member.owner, epochs=member.epochs, model_name="mlp",
            notebook=member.notebook, labels=member.labels, requirements=Requirements(device="gpu"),
        )
    )  # fmt: skip
    if member.waits:
        if member.ends == "Cancelled":
            log.send_control(control.CancelRequested(run_id=member.run_id, request_id=ids.new_request_id(), by="ada@test"))
        return
    log.send_control(control.Claimed(**member.own(), task=place))
    log.send_control(control.Started(**member.own(), log_offset=max(0, member.first), device="cpu", host="box"))
    for beat in range(1, member.beats + 1):
        log.send_control(control.Heartbeat(**member.own(), epoch=beat, beat=beat))
    for i in range(1, member.checkpoints + 1):
        log.send_control(control.Checkpointed(**member.own(), epoch=i, step=0, parts={"state": _part(member)}, metric="loss", value=1 / i))
    end = None if member.last < 0 else member.last
    if member.ends == "Succeeded":
        parts: dict[str, Part] = {"state": _part(member), "outcome": InlineBytes(b"x" * OUTCOME)} if member.checkpoints else {}
        log.send_control(control.Succeeded(**member.own(), parts=parts, epochs=member.epochs, log_end=end))
    elif member.ends == "Failed":
        name, message, traceback = member.error
        failed = control.Failed(
            **member.own(), retryable=False, reason="exception", error=name, message=message, traceback=traceback, log_end=end
        )
        log.send_control(failed)
    elif member.ends == "Cancelled":
        log.send_control(control.CancelRequested(run_id=member.run_id, request_id=ids.new_request_id(), by="ada@test"))
        log.send_control(control.Cancelled(**member.own(), log_end=end))


def _part(member: Member) -> KafkaRef:
    """What nobody is going to read, but as long as one that somebody would."""
    return KafkaRef("artifact", 0, member.last + 1, 1, f"{member.run_id[-12:]}{'0' * 20}", 117_000, "0" * 64, member.last + 1)


def tell_epochs(log: Log, member: Member, first: int, count: int = 1) -> None:
    """Further epochs of one that is still running."""
    for epoch in range(first, first + count):
        row = EpochEnded(20_000 + epoch, epoch, 10, member.metrics(epoch), 0.5, 0)
        log.send_rows(RowBatch(member.run_id, 1, member.worker, "n" * 16, [row]))
    assert log.producer.flush(10) == 0


def succeed(log: Log, member: Member) -> None:
    log.write_control(control.Succeeded(**member.own(), epochs=member.epochs, log_end=member.last))
