"""History = view(RunState, rows of training_log), and what a page shows of a run. Pure."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from kafka_jupyter.protocol import control, ids
from kafka_jupyter.protocol.rows import BatchProgress, EpochEnded, LogLine, Row, RowBatch, bounded
from kafka_jupyter.protocol.topics import DAY_MS
from kafka_jupyter.runs.state import RunState, Start, State, too_old_ms

# Characters of what somebody wrote that a page is sent, and entries of a list: more of it is in the log.
NAME_LIMIT, PATH_LIMIT, MESSAGE_LIMIT, TRACEBACK_LIMIT, LIST_LIMIT = 200, 1000, 20_000, 100_000, 1000

WARNED_DAYS = 3.0  # before a run is ended for its age, its card says so


class RowLog:
    """The rows of one run as they were read, each (attempt, seq) once. Not filtered: which attempts count is known later."""

    def __init__(self) -> None:
        self._rows: dict[tuple[int, str, str, str], dict[int, Row]] = {}  # by n, worker, nonce, kid
        self._progress: dict[tuple[int, str, str, str], int] = {}  # seq of the latest BatchProgress: older ones are not kept

    def add(self, batch: RowBatch, kid: str = "") -> list[Row]:
        """Keeps the rows; the ones that were new. (`seq` names a row within its attempt, so a known one is a duplicate.)

        `kid`: of the key that signed the record. Rows of another key than that of the attempt's Claimed never count.
        """
        attempt = (batch.n, batch.worker, batch.nonce, kid)
        kept = self._rows.setdefault(attempt, {})
        new: list[Row] = []
        for row in batch.rows:
            if row.seq in kept:
                continue
            if isinstance(row, BatchProgress):
                latest = self._progress.get(attempt)
                if latest is not None:
                    if row.seq < latest:
                        continue
                    del kept[latest]
                self._progress[attempt] = row.seq
            kept[row.seq] = row = bounded(row)
            new.append(row)
        return new

    def of(self, start: Start) -> list[Row]:
        rows = self._rows.get((start.n, start.worker, start.nonce, start.kid), {})
        return [rows[seq] for seq in sorted(rows)]


@dataclasses.dataclass(frozen=True)
class History:
    """The accepted rows of a run, in order, each with the number of its attempt."""

    rows: tuple[tuple[int, Row], ...]

    @property
    def epochs(self) -> list[EpochEnded]:
        return [row for _, row in self.rows if isinstance(row, EpochEnded)]

    @property
    def lines(self) -> list[LogLine]:
        return [row for _, row in self.rows if isinstance(row, LogLine)]

    @property
    def progress(self) -> BatchProgress | None:
        """The latest running numbers, if nothing was finished since."""
        for _, row in reversed(self.rows):
            if isinstance(row, EpochEnded):
                return None
            if isinstance(row, BatchProgress):
                return row
        return None

    def metrics(self) -> dict[str, list[float | None]]:
        """Name → values by epoch, as Keras' `History.history`. A metric that some epochs lack (validation_freq) lists what is there."""
        table: dict[str, list[float | None]] = {}
        for row in self.epochs:
            for name, value in row.metrics.items():
                table.setdefault(name, []).append(value)
        return table


def accepted(starts: Iterable[Start], rows: Mapping[int, Iterable[Row]]) -> Iterator[tuple[int, Row]]:
    """Rule 10: of attempt n the rows from its resume point up to the resume point of the next started attempt.

    `rows`: attempt → its rows in order of seq.
    """
    ordered = sorted(starts, key=lambda start: start.n)
    for i, start in enumerate(ordered):
        limit = min((later.place for later in ordered[i + 1 :]), default=None)
        for row in rows.get(start.n, ()):
            if limit is None or row.place <= limit:
                yield start.n, row


def history(state: RunState, log: RowLog | None) -> History:
    if log is None:
        return History(())
    return History(tuple(accepted(state.starts, {start.n: log.of(start) for start in state.starts})))


# --- what a page shows


def best(name: str, values: Iterable[tuple[int, float | None]]) -> tuple[float, int] | None:
    """(best value, its 1-based epoch): the largest of what grows (accuracy, auc, …), the smallest of all else."""
    known = [(value, epoch) for epoch, value in values if value is not None]
    if not known:
        return None
    if grows(name):
        value, epoch = max(known, key=lambda pair: (pair[0], -pair[1]))
    else:
        value, epoch = min(known, key=lambda pair: (pair[0], pair[1]))
    return value, epoch


_GROWS = (
    "acc",
    "auc",
    "precision",
    "recall",
    "f1",
    "fbeta",
    "iou",
    "r2",
    "cosine_similarity",
    "true_positives",
    "true_negatives",
    "sensitivity",
    "specificity",
)


def grows(name: str) -> bool:
    """Whether more of this metric is better, as Keras' own `mode="auto"` guesses it."""
    return any(word in name.lower() for word in _GROWS) and "loss" not in name.lower()


_ANSI = re.compile(r"\x1b\[[0-9;]*m")  # Keras prints parts of its messages in bold
_GRAPH = re.compile(
    r'^(Graph execution error:|Detected at node .*|<stack_traces unavailable>|  File ".*|    .*|[ \t]*\[\[\{\{node .*)\n?', re.MULTILINE
)


def essence(message: str) -> str:
    """What is wrong. TensorFlow tells first, in dozens of lines, where the graph was built; the traceback keeps them."""
    text = _ANSI.sub("", message).strip()
    if text.startswith("Graph execution error:"):
        return re.sub(r"\n{2,}", "\n", _GRAPH.sub("", text)).strip() or text
    return text


def failure_of(state: RunState) -> dict[str, Any] | None:
    """The error a card shows: of the end, or of the last attempt of a run that is tried again."""
    failure: Any = state.last_failure if state.state is State.RETRYING else state.end
    if isinstance(failure, control.Failed) and state.state is not State.CANCELLED:
        return {
            "reason": failure.reason,
            "error": (failure.error or failure.reason)[:NAME_LIMIT],
            "message": essence(failure.message)[:MESSAGE_LIMIT],
            "traceback": _ANSI.sub("", failure.traceback[-TRACEBACK_LIMIT:]),
            "attempt": failure.n,
            "worker": failure.worker[:NAME_LIMIT],
            "signal": failure.signal,
            "memory": failure.memory,
            "fields": failure.fields,
        }
    if isinstance(state.end, control.TooOld):
        return _plain_error(state, "TooOld", "the run got older than the log is kept")
    if state.state is State.DEAD:
        why = "its workers went silent" if isinstance(state.end, control.Expired) else _unfit_reason(state)
        return _plain_error(state, "Lost", f"{state.last_n} attempts ended without progress: {why}")
    return None


def _unfit_reason(state: RunState) -> str:
    return state.last_release.detail or "no worker could run it" if state.last_release else "no worker could run it"


def _plain_error(state: RunState, error: str, message: str) -> dict[str, Any]:
    return {"reason": error.lower(), "error": error, "message": message, "traceback": "", "attempt": state.last_n, "worker": ""}


def warning_of(state: RunState, now_ms: int | None) -> str:
    """In the last days before the run gets too old: when it will be ended, and why. Empty where there is nothing to warn of."""
    left = None if now_ms is None or state.terminal else too_old_ms(state) - now_ms
    if left is None or left > WARNED_DAYS * DAY_MS:
        return ""
    kept = "Stop it in time to keep its weights." if state.open else "A run must end before its log does."
    return f"It will be ended {_in(left)}, because it gets older than the log is kept. {kept}"


def _in(ms: float) -> str:
    hours = int(ms // 3_600_000)
    if hours >= 24:
        return f"in {hours // 24} d {hours % 24} h"
    return f"in {hours} h" if hours > 0 else "within the hour"


PROCESSES = {  # what has become of the process of a cancelled run, behind "Cancelled by ada"
    "none": ", before it had begun",
    "gone": "; its process is gone",
    "cut off": "; its worker was cut off and its lease ran out, its process ends when it sees that",
}


def process_of(state: RunState) -> str:
    """What has become of the process of a CANCELLED run: "none" (it never had one), "gone", or "cut off": nobody could tell it, its
    lease ran out, and it ends when it sees that. Empty for any other run."""
    if state.state is not State.CANCELLED:
        return ""
    if not state.last_n:
        return "none"
    asked = isinstance(state.end, control.CancelRequested | control.StopRequested)  # with no attempt open: the last one had been closed
    told = any(record is not None and record.n == state.last_n for record in (state.last_failure, state.last_release))
    return "cut off" if isinstance(state.end, control.Expired) or (asked and not told) else "gone"


def numbers(settings: Mapping[str, Any]) -> dict[str, float]:
    """The settings of an Applied that are finite numbers: any JSON may stand in the record."""
    values = {name: value for name, value in settings.items() if isinstance(value, (int, float)) and not isinstance(value, bool)}
    return {name: float(value) for name, value in values.items() if abs(value) <= sys.float_info.max}


def card_state(state: RunState, *, queue: int | None = None, waiting: str = "", now_ms: int | None = None) -> dict[str, Any]:
    """The folded state as JSON for a page (see docs/architecture.md). `queue`: 1-based place among the waiting runs."""
    submitted, end, attempt = state.submitted, state.end, state.open
    start = state.starts[-1] if state.starts else None
    checkpoint = state.checkpoints[-1] if state.checkpoints else None
    applied = state.applications[-1] if state.applications else None
    worker = attempt.worker if attempt else (start.worker if start and state.terminal else "")
    shown: dict[str, Any] = {
        "v": 1,
        "run_id": state.run_id,
        "short": ids.short(state.run_id),
        "name": submitted.name[:NAME_LIMIT] if submitted else state.run_id,
        "owner": submitted.owner[:NAME_LIMIT] if submitted else "",
        "model": submitted.model_name[:NAME_LIMIT] if submitted else "",
        "state": str(state.state),
        "wish": str(state.wish),
        "terminal": state.terminal,
        "attempt": state.last_n,
        "starts": [{"n": s.n, "epoch": s.epoch, "step": s.step} for s in state.starts],
        "epochs": submitted.epochs if submitted else 0,
        "initial_epoch": submitted.initial_epoch if submitted else 0,
        "worker": worker[:NAME_LIMIT],
        "host": start.host[:NAME_LIMIT] if start else "",
        "device": start.device[:NAME_LIMIT] if start else "",
        "submitted_ms": state.born_ms,
        "started_ms": start.at_ms if start else None,
        "ended_ms": state.end_ms,
        "heartbeat_ms": attempt.last_ms if attempt else None,
        "queue": queue,
        "waiting": waiting,
        "warning": warning_of(state, now_ms),
        "error": failure_of(state),
        "ended_by": state.ended_by[:NAME_LIMIT],
        "process": process_of(state),
        "checkpoint": {"epoch": checkpoint.epoch, "step": checkpoint.step} if checkpoint else None,
        "applied": {"settings": numbers(applied.settings), "epoch": applied.epoch, "step": applied.step} if applied else None,
        "retry_of": submitted.retry_of if submitted else "",
        "code": submitted.code if submitted else False,
        "stopped_early": isinstance(end, control.Succeeded) and end.stopped_early,
        "epochs_done": end.epochs if isinstance(end, control.Succeeded) else None,
        "metrics": end.metrics if isinstance(end, control.Succeeded) else {},
        "files": [file.path[:PATH_LIMIT] for file in end.files[:LIST_LIMIT]] if isinstance(end, control.Succeeded) else [],
        "notebook": submitted.notebook[:PATH_LIMIT] if submitted else "",
        "cell": submitted.cell[:NAME_LIMIT] if submitted else "",
        "labels": _labels(submitted.labels) if submitted else {},
        "read_only": state.newer,
        "upto": state.upto,
        "now_ms": now_ms,
    }
    return shown


def _labels(labels: Mapping[str, str]) -> dict[str, str]:
    return {name[:NAME_LIMIT]: value[:NAME_LIMIT] for name, value in list(labels.items())[:LIST_LIMIT]}


def row_json(attempt: int, row: Row) -> dict[str, Any]:
    """A row as the page gets it: `{"attempt": 1, "type": "epoch", "seq": …}`."""
    return {"attempt": attempt, **msgspec.to_builtins(row)}
