"""Which records of a run count: the rules and the table of design §2.2, written once more from their text.

For the checker only, on plain JSON: it must not share a line with the fold of the product, whose mistakes it is there to find.
"""

from __future__ import annotations

import dataclasses
from typing import Any

FAILURES, EXPIRIES, COUNTED = 3, 6, 20  # rule 7
DAY_MS = 86_400_000


@dataclasses.dataclass(frozen=True)
class Entry:
    """A record of run_control where the log has it."""

    offset: int
    time_ms: int
    record: dict[str, Any]

    @property
    def type(self) -> str:
        return str(self.record["type"])


@dataclasses.dataclass
class Span:
    """An attempt between the Claimed that won it and the record that closed it."""

    n: int
    worker: str
    nonce: str
    opened: int  # offset
    last: int  # offset of its last accepted record
    closed: int | None = None
    closed_by: str = ""
    started: Entry | None = None
    beat: int = 0  # of its last heartbeat that counted

    def is_of(self, record: dict[str, Any]) -> bool:
        return (self.n, self.worker, self.nonce) == (record["n"], record["worker"], record["nonce"])


class Run:
    """Takes the records of one run in log order. `accepted` are those that counted, `state` its end or how it waits."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.wish = "run"
        self.accepted: list[Entry] = []
        self.spans: list[Span] = []
        self.open: Span | None = None
        self.end: Entry | None = None
        self.state = "QUEUED"
        self._submitted: Entry | None = None
        self._born_ms: int | None = None
        self._requests: set[str] = set()
        self._checkpointed = False
        self._checkpoint_at = (0, (-1, -1))  # attempt and place of the last one that counted
        self._applied: set[str] = set()
        self._lost: set[tuple[int, str]] = set()  # claims
        self._progress = (-1, -1)
        self._failures = self._expiries = self._counted = 0

    def take(self, entry: Entry) -> None:
        if self._born_ms is None:
            self._born_ms = entry.time_ms
        if self.end is None and self._counts(entry):
            self.accepted.append(entry)

    def _counts(self, entry: Entry) -> bool:
        kind = entry.type
        if kind == "submitted":
            self._submitted, first = self._submitted or entry, self._submitted is None
            return first
        if kind == "claimed":
            return self._claimed(entry)
        if kind in ("stop", "cancel", "pause", "resume", "settings"):
            return self._request(entry)
        if kind == "expired":
            return self._expired(entry)
        if kind == "tooold":
            return self._too_old(entry)
        return kind != "dead" and self._by_winner(entry)

    def _claimed(self, entry: Entry) -> bool:
        """Rule 1."""
        record = entry.record
        claim = (record["n"], record["nonce"])
        if self.open is not None or self.wish not in ("run", "stop") or record["n"] != len(self.spans) + 1 or claim in self._lost:
            self._lost.add(claim)  # a copy of it does not win later
            return False
        self.open = Span(record["n"], record["worker"], record["nonce"], entry.offset, entry.offset)
        self.spans.append(self.open)
        self.state = "CLAIMED"
        return True

    def _by_winner(self, entry: Entry) -> bool:
        """Rule 2: only while its attempt is open, only with the winner's worker and nonce."""
        span, record = self.open, entry.record
        if span is None or not span.is_of(record) or self._is_copy(span, entry):
            return False
        span.last = entry.offset
        match entry.type:
            case "started":
                span.started, self.state = span.started or entry, "RUNNING"
            case "checkpointed":
                self._checkpoint((record["epoch"], record["step"]))
            case "succeeded":
                self._finish(entry, "SUCCEEDED")
            case "cancelled":
                self._finish(entry, "CANCELLED")
            case "failed" if not record["retryable"]:
                self._finish(entry, "CANCELLED" if self.wish == "cancel" else "FAILED")
            case "failed":
                self._failures, self._counted = self._failures + 1, self._counted + 1
                self._close(entry, "RETRYING")
            case "released":
                self._counted += record["reason"] == "unfit"
                self._close(entry, "QUEUED")
        return True

    def _is_copy(self, span: Span, entry: Entry) -> bool:
        """What was said before is no sign of life, whoever writes it once more. Else it is remembered as said."""
        record = entry.record
        match entry.type:
            case "started":
                return span.started is not None
            case "heartbeat":
                before, span.beat = span.beat, max(span.beat, record.get("beat", 0))
                return before > 0 and record.get("beat", 0) <= before
            case "checkpointed":
                at = (record["n"], (record["epoch"], record["step"]))
                before_at, self._checkpoint_at = self._checkpoint_at, max(self._checkpoint_at, at)
                return at <= before_at
            case "applied":
                known = record["request_id"] in self._applied
                self._applied.add(record["request_id"])
                return known
        return False

    def _checkpoint(self, place: tuple[int, int]) -> None:
        self._checkpointed = True
        if place > self._progress:
            self._progress, self._failures, self._expiries = place, 0, 0

    def _expired(self, entry: Entry) -> bool:
        """Rule 6."""
        if self.open is None or entry.record["n"] != self.open.n or entry.record["after"] != self.open.last:
            return False
        self._expiries, self._counted = self._expiries + 1, self._counted + 1
        self._close(entry, "LOST")
        return True

    def _too_old(self, entry: Entry) -> bool:
        submitted = self._submitted
        keep = submitted.record.get("keep_days", 30.0) if submitted else 30.0
        born = submitted.time_ms if submitted else self._born_ms or 0
        if entry.time_ms < born + (keep - 2) * DAY_MS:
            return False
        self._finish(entry, "FAILED")
        return True

    def _request(self, entry: Entry) -> bool:
        record = entry.record
        if record["request_id"] in self._requests:
            return False
        self._requests.add(record["request_id"])
        if entry.type == "cancel":
            self.wish = "cancel"
        elif entry.type == "stop" and self.wish != "cancel":
            self.wish = "stop"
        elif entry.type in ("pause", "resume") and self.wish in ("run", "pause"):
            self.wish = "pause" if entry.type == "pause" else "run"
        if self.open is None and (self.wish == "cancel" or (self.wish == "stop" and not self._checkpointed)):
            self._finish(entry, "CANCELLED")
        elif self.open is None and entry.type in ("pause", "resume", "stop"):
            self.state = "PAUSED" if self.wish == "pause" else "QUEUED" if self.state == "PAUSED" else self.state
        return True

    def _close(self, entry: Entry, otherwise: str) -> None:
        """Rule 3; rule 7 first."""
        if self._failures >= FAILURES or self._expiries >= EXPIRIES or self._counted >= COUNTED:
            self._finish(entry, "DEAD")
        elif self.wish == "cancel" or (self.wish == "stop" and not self._checkpointed):
            self._finish(entry, "CANCELLED")
        else:
            self._shut(entry)
            self.state = "PAUSED" if self.wish == "pause" else otherwise

    def _finish(self, entry: Entry, state: str) -> None:
        self._shut(entry)
        self.end, self.state = entry, state

    def _shut(self, entry: Entry) -> None:
        if self.open is not None:
            self.open.closed, self.open.closed_by = entry.offset, entry.type
        self.open = None


def judge(run_id: str, entries: list[Entry]) -> Run:
    run = Run(run_id)
    for entry in entries:
        run.take(entry)
    return run
