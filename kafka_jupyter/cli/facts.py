"""What is known of a run, in the form in which figures are made of it and in which `--json` prints it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kafka_jupyter.protocol.rows import BatchProgress, EpochEnded, Row
from kafka_jupyter.runs import figures
from kafka_jupyter.runs.values import TERMINAL, State

if TYPE_CHECKING:
    from kafka_jupyter.client import RunEvent

GROUPS = {"ACTIVE": frozenset(State) - TERMINAL, "ENDED": TERMINAL}  # what `--state` understands beside the states themselves

Rows = Sequence[tuple[int, Row]]  # accepted ones, in order, each with its attempt


def epochs_of(rows: Iterable[tuple[int, Row]]) -> list[figures.Row]:
    ended = [row for _, row in rows if isinstance(row, EpochEnded)]
    return figures.epochs_of([_figured(row, "epoch", seconds=row.seconds) for row in ended])


def batch_of(rows: Rows) -> figures.Row | None:
    """The newest batch of the epoch that is under way."""
    for _, row in reversed(rows):
        if isinstance(row, EpochEnded):
            return None
        if isinstance(row, BatchProgress):
            return _figured(row, "batch", steps=row.steps)
    return None


def _figured(row: EpochEnded | BatchProgress, kind: str, **more: object) -> figures.Row:
    return {"type": kind, "epoch": row.epoch, "step": row.step, "metrics": row.metrics, "at_ms": row.at_ms, **more}


def far(card: figures.CardState, epochs: Sequence[figures.Row], batch: figures.Row | None, now_ms: float) -> str:
    """ "epoch 4 of 20 · 0:12 left", "20 epochs in 0:17", "place 2 in the queue": how far a run is."""
    if card["terminal"] or card["state"] == "QUEUED":
        ended_badly = card["terminal"] and card["state"] != "SUCCEEDED"
        return "" if ended_badly and not epochs else figures.how_far(card, epochs)  # rows of what ended long ago are not here
    return figures.under_way(card, epochs, batch, now_ms)


def newest_metrics(card: figures.CardState, epochs: Sequence[figures.Row], batch: figures.Row | None) -> Mapping[str, float | None]:
    """Of the last epoch that has ended; while the first one runs, of its last batches."""
    newest = epochs[-1] if epochs else batch
    return dict(newest["metrics"]) if newest else card["metrics"]


def headline(epochs: Sequence[figures.Row]) -> figures.MetricLine | None:
    """The metric that people ask for first, with its best value."""
    return next(iter(figures.headline(figures.metric_lines(epochs))), None)


def run_json(card: figures.CardState, rows: Rows, now_ms: float) -> dict[str, Any]:
    """The card state (docs/architecture.md), and under `progress` how far it is. What is not known is null."""
    epochs, batch = epochs_of(rows), batch_of(rows)
    best = headline(epochs)
    left = figures.left_ms(card, epochs, batch, now_ms) if card["state"] == "RUNNING" else None
    progress = {
        "epochs_done": figures.epochs_done(card, epochs),
        "fraction": round(figures.fraction(card, epochs, batch), 6),
        "left_s": None if left is None else round(left / 1000, 3),
        "metrics": newest_metrics(card, epochs, batch),
        "best": {"metric": best.name, "value": best.best, "epoch": best.best_epoch} if best else None,
    }
    return {**card, "progress": progress}


def event_json(run_id: str, event: RunEvent) -> dict[str, Any]:
    """One line of `follow --json` and `logs --json`. Which keys there are depends on `event` alone."""
    told: dict[str, Any] = {"event": event.kind, "run_id": run_id, "attempt": event.attempt}
    if event.kind == "state":
        return told | {"state": str(event.state)}
    told |= {"epoch": event.epoch, "step": event.step}
    if event.kind == "applied":
        return told | {"metrics": event.metrics}
    told |= {"seq": event.seq, "at_ms": event.at_ms}
    if event.kind == "line":
        return told | {"stream": event.stream, "text": event.text}
    return told | {"metrics": event.metrics} | ({"seconds": event.seconds} if event.kind == "epoch" else {})
