"""What is known of a run: the states it can be in, its wish, its attempts. `state.apply` computes it from records (design §2.2)."""

from __future__ import annotations

import enum

import msgspec

from kafka_jupyter.protocol import control


class State(enum.StrEnum):
    QUEUED = "QUEUED"
    CLAIMED = "CLAIMED"
    RUNNING = "RUNNING"
    PAUSING = "PAUSING"
    PAUSED = "PAUSED"
    STOPPING = "STOPPING"
    CANCELLING = "CANCELLING"
    LOST = "LOST"
    RETRYING = "RETRYING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    DEAD = "DEAD"


class Wish(enum.StrEnum):
    """What people want of the run. Stop gives way only to cancel; cancel is final."""

    RUN = "run"
    PAUSE = "pause"
    STOP = "stop"
    CANCEL = "cancel"


TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.DEAD})
WAITING = frozenset({State.QUEUED, State.LOST, State.RETRYING})  # what a free slot may claim


class Placed(msgspec.Struct, frozen=True):
    """A record where the log has it: offset in its partition of `run_control`, append time in ms, and the key that signed it."""

    record: control.Record
    offset: int
    time_ms: int
    kid: str = ""


# What can be the record that ended a run; a union, so that a snapshot of a RunState can be read again.
EndRecord = (
    control.Succeeded
    | control.Failed
    | control.Cancelled
    | control.Released
    | control.Expired
    | control.TooOld
    | control.CancelRequested
    | control.StopRequested
)


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """The open attempt: its winner, how far it is, and its last accepted record."""

    n: int
    worker: str
    nonce: str
    claimed_ms: int
    last: int  # offset of its last accepted record: what Expired must name (rule 6)
    last_ms: int
    started: bool = False
    epoch: int = 0
    step: int = 0
    beat: int = 0  # of its last heartbeat
    kid: str = ""  # of the key that signed the winning Claimed: all records of the attempt must bear it


class Start(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where an attempt resumed (rule 10): its rows count from here, those of earlier attempts up to here."""

    n: int
    worker: str
    nonce: str
    epoch: int = 0
    step: int = 0
    log_offset: int = 0
    device: str = ""
    host: str = ""
    at_ms: int = 0
    offset: int = -1  # of its Started: rows read before it was known are shown from here on
    kid: str = ""

    @property
    def place(self) -> tuple[int, int]:
        return (self.epoch, self.step)


class RunState(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that is known of one run. Times are append times in ms, offsets those of the run's `run_control` partition."""

    run_id: str
    state: State = State.QUEUED
    wish: Wish = Wish.RUN
    upto: int = -1  # last record folded in; older ones are ignored
    first_ms: int = 0
    submitted: control.Submitted | None = None
    submitted_ms: int | None = None
    submitter: str = ""  # kid of the key that signed its Submitted
    task: control.TaskPlace | None = None
    last_n: int = 0  # number of the last attempt
    open: Attempt | None = None
    lost_claims: tuple[tuple[int, str], ...] = ()  # (n, nonce) of claims that lost and whose copies could still win
    starts: tuple[Start, ...] = ()
    failures_in_row: int = 0
    expiries_in_row: int = 0
    counted_attempts: int = 0
    unfit: tuple[str, ...] = ()  # workers that released the run as unfit: they do not claim it again
    progress: tuple[int, int] | None = None
    checkpoints: tuple[control.Checkpointed, ...] = ()  # the last two accepted
    best: control.Checkpointed | None = None  # the accepted one with the best value
    superseded: tuple[control.Checkpointed, ...] = ()  # the last that neither `checkpoints` nor `best` hold any more
    known_requests: tuple[str, ...] = ()
    settings: tuple[control.SettingsRequested, ...] = ()
    applied: tuple[str, ...] = ()
    applications: tuple[control.Applied, ...] = ()  # those that changed the training, each once
    last_failure: control.Failed | None = None
    last_release: control.Released | None = None
    end: EndRecord | None = None  # the record that ended the run
    end_ms: int | None = None
    end_offset: int | None = None
    ended_by: str = ""  # who asked for the cancel or stop
    dropped: int = 0
    newer: bool = False  # holds a record of a newer version: read-only for this reader (rule 12)

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL

    @property
    def claimable(self) -> bool:
        """A Claimed(last_n + 1) would win now."""
        return self.open is None and self.state in WAITING and self.wish in (Wish.RUN, Wish.STOP) and not self.newer

    @property
    def newness(self) -> tuple[int, str]:
        """When it was submitted, and its id: what lists are ordered by."""
        return (self.born_ms, self.run_id)

    @property
    def born_ms(self) -> int:
        """When its Submitted was appended; of a run that none has told of, its first record."""
        return self.first_ms if self.submitted_ms is None else self.submitted_ms

    @property
    def log_end(self) -> int | None:
        """Offset of the run's last row in `training_log`, where the record that ended it says so."""
        return getattr(self.end, "log_end", None)
