"""The records of `run_control` (design §2.2), one struct each. Wire format: a field never changes its type, new ones have defaults.

Who writes what: Submitted the client; Claimed … Cancelled the worker of an attempt; Expired, TooOld, Dead reapers; the five
requests people. Every record of an attempt carries (run_id, n, worker, nonce).
"""

from __future__ import annotations

from typing import Any

import msgspec

from kafka_jupyter.protocol.ids import version_1
from kafka_jupyter.protocol.parts import Part
from kafka_jupyter.protocol.task import Requirements


class Record(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True, kw_only=True):
    run_id: str
    v: int = msgspec.field(default_factory=version_1)


class TaskPlace(msgspec.Struct, frozen=True):
    """Where a Task stands in the log."""

    topic: str
    partition: int
    offset: int


class OutputFile(msgspec.Struct, frozen=True):
    """A file that a callback wrote. `path` is the one the person gave (or one inside the folder they gave)."""

    path: str
    part: Part


# --- the client


class Submitted(Record, frozen=True, tag="submitted"):
    """Announces a Task that is acked. Everything here is for showing and choosing; the Task is the truth."""

    task: TaskPlace
    name: str = ""
    owner: str = ""
    trainer: str = "keras"
    model_name: str = ""
    epochs: int = 0
    initial_epoch: int = 0
    requirements: Requirements = Requirements()
    priority: str = "normal"
    labels: dict[str, str] = {}
    digest: str = ""
    notebook: str = ""
    cell: str = ""
    code: bool = False  # the Task brings a person's own code
    retry_of: str = ""  # the run whose last checkpoint this one goes on from, if it had one (rule 11)
    submitted_ms: int = 0  # the client's clock, to be shown only
    keep_days: float = 30.0  # rule TooOld is judged by what the run itself says, so that all readers agree


# --- the worker of an attempt


class AttemptRecord(Record, frozen=True):
    n: int
    worker: str
    nonce: str


class Claimed(AttemptRecord, frozen=True, tag="claimed"):
    task: TaskPlace


class Started(AttemptRecord, frozen=True, tag="started"):
    """Attempt n resumes at (epoch, step): 0-based epoch, batches done in it. Its rows begin at or behind `log_offset`."""

    epoch: int = 0
    step: int = 0
    checkpoint: Part | None = None
    log_offset: int = 0
    device: str = ""
    host: str = ""
    pid: int = 0
    versions: dict[str, str] = {}


class Heartbeat(AttemptRecord, frozen=True, tag="heartbeat"):
    """`beat` rises from 1 within an attempt: a copy of an old one, written by whoever, keeps nobody alive. (0: of an old version.)"""

    epoch: int = 0
    step: int = 0
    beat: int = 0


class Checkpointed(AttemptRecord, frozen=True, tag="checkpointed"):
    """Attempt n, or one after it, can go on at (epoch, step). `parts`: `state` (training/checkpoint.py). `files`: what callbacks had
    written, by their place below the child's folder. `value` of `metric` says how good it is, more is better where `mode` is "max"; a
    checkpoint in the middle of an epoch has none."""

    epoch: int
    step: int
    parts: dict[str, Part] = {}
    files: dict[str, Part] = {}
    metric: str = ""
    value: float | None = None
    mode: str = "min"


class Applied(AttemptRecord, frozen=True, tag="applied"):
    request_id: str
    settings: dict[str, Any] = {}
    epoch: int = 0
    step: int = 0


class Released(AttemptRecord, frozen=True, tag="released"):
    """`reason`: shutdown, pause, unwanted (a claim no longer wanted) or unfit (this worker cannot; it says why in `detail`)."""

    reason: str
    detail: str = ""
    log_end: int | None = None


class Failed(AttemptRecord, frozen=True, tag="failed"):
    """`reason`: exception, mismatch, refused (final); signal, memory, stall, store (retryable)."""

    retryable: bool
    reason: str
    error: str = ""  # class name
    message: str = ""
    traceback: str = ""
    epoch: int = 0
    memory: int = 0  # bytes resident at the end, where known
    signal: int = 0
    fields: dict[str, Any] = {}  # values of a named error, e.g. the two losses of a mismatch
    log_end: int | None = None


class Succeeded(AttemptRecord, frozen=True, tag="succeeded"):
    """`parts`: `state` (same layout as the task's state part), `outcome` (JSON: history, epochs, callback states)."""

    parts: dict[str, Part] = {}
    files: list[OutputFile] = []
    stopped_early: bool = False
    epochs: int = 0  # epochs done, initial_epoch included
    metrics: dict[str, float | None] = {}  # of the last epoch
    log_end: int | None = None


class Cancelled(AttemptRecord, frozen=True, tag="cancelled"):
    log_end: int | None = None


# --- reapers


class Expired(Record, frozen=True, tag="expired"):
    n: int
    after: int  # offset of the last accepted record of attempt n that the reaper has seen
    reaper: str = ""


class TooOld(Record, frozen=True, tag="tooold"):
    reaper: str = ""


class Dead(Record, frozen=True, tag="dead"):
    reaper: str = ""
    reason: str = ""


# --- people


class Request(Record, frozen=True):
    request_id: str
    by: str = ""
    reason: str = ""


class StopRequested(Request, frozen=True, tag="stop"):
    pass


class CancelRequested(Request, frozen=True, tag="cancel"):
    pass


class PauseRequested(Request, frozen=True, tag="pause"):
    pass


class ResumeRequested(Request, frozen=True, tag="resume"):
    pass


class SettingsRequested(Request, frozen=True, tag="settings"):
    """`settings`: `learning_rate`; `check_loss` + `check_rtol` (what the kernel computed for the first batch, see capture/)."""

    settings: dict[str, Any] = {}


ATTEMPT_RECORDS: tuple[type[AttemptRecord], ...] = (
    Claimed, Started, Heartbeat, Checkpointed, Applied, Released, Failed, Succeeded, Cancelled,
)  # fmt: skip
CONTROL_RECORDS: tuple[type[Record], ...] = (
    Submitted, *ATTEMPT_RECORDS, Expired, TooOld, Dead,
    StopRequested, CancelRequested, PauseRequested, ResumeRequested, SettingsRequested,
)  # fmt: skip
