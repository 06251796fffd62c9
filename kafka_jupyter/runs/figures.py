"""Words, numbers and best values as a card and a terminal show them. Pure. The Python twin of the front end's format.ts and summary.ts.

labextension/tests/cases.json holds both to the same answers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from kafka_jupyter.runs.view import PROCESSES, best, grows

CardState = Mapping[str, Any]
Row = Mapping[str, Any]

SLOW_EPOCH_S = 5.0  # only then a person reads the batches
LONGEST_S = 1e9  # of an epoch: what claims more is no measurement, and could not be reckoned with


def metric(value: float | None) -> str:
    """Four decimals where they mean something. `None` is how NaN and infinity travel."""
    if value is None or not math.isfinite(value):
        return "NaN"
    size = abs(value)
    if size and (size < 1e-3 or size >= 1e6):
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.{4 if size < 100 else 2 if size < 1e4 else 0}f}"


def duration(ms: float) -> str:
    """31000 → "0:31", 3_723_000 → "1:02:03", 183_600_000 → "2 d 3 h"."""
    seconds = max(0, int(ms // 1000))
    hours = seconds // 3600
    if hours >= 24:
        return f"{hours // 24} d {hours % 24} h"
    minutes = seconds // 60 % 60
    return f"{hours}:{minutes:02}:{seconds % 60:02}" if hours else f"{minutes}:{seconds % 60:02}"


def goal(name: str) -> str | None:
    """ "max", "min", or None where neither more nor less is better (a learning rate)."""
    if name in ("lr", "learning_rate"):
        return None
    return "max" if grows(name) else "min"


@dataclasses.dataclass(frozen=True)
class MetricLine:
    """One metric over the accepted epochs. `best_epoch` counts as people do; 0: there is no best."""

    name: str
    last: float | None
    has_last: bool
    best: float | None
    best_epoch: int
    star: bool


def epochs_of(rows: Sequence[Row]) -> list[Row]:
    return sorted((row for row in rows if row.get("type") == "epoch"), key=lambda row: int(row.get("epoch", 0)))


def metric_lines(epochs: Sequence[Row]) -> list[MetricLine]:
    """In the order of Keras; the star marks the metric whose best value matters."""
    names = list(dict.fromkeys(name for row in epochs for name in _metrics(row)))
    star = "val_loss" if "val_loss" in names else "loss"
    lines = []
    for name in names:
        last = _metrics(epochs[-1])
        found = best(name, ((_number(row), _metrics(row).get(name)) for row in epochs)) if goal(name) else None
        value, epoch = found or (None, 0)
        lines.append(MetricLine(name, last.get(name), name in last, value, epoch, name == star))
    return lines


def headline(lines: Sequence[MetricLine]) -> list[MetricLine]:
    """The result in one line: the metric people ask for first, then the (validation) loss."""
    scored = [line for line in lines if line.best is not None]
    first = (
        _first(scored, lambda line: line.name.startswith("val_") and goal(line.name) == "max")
        or _first(scored, lambda line: line.name == "val_loss")
        or _first(scored, lambda line: goal(line.name) == "max")
        or _first(scored, lambda line: line.name == "loss")
        or _first(scored, lambda _line: True)
    )
    second = _first(scored, lambda line: line.name == "val_loss") or _first(scored, lambda line: line.name == "loss")
    return list(dict.fromkeys(line for line in (first, second) if line))


def _first(lines: Sequence[MetricLine], test: Any) -> MetricLine | None:
    return next((line for line in lines if test(line)), None)


def _metrics(row: Row) -> Mapping[str, float | None]:
    return row.get("metrics") or {}


def _number(row: Row) -> int:
    """The epoch as a person counts."""
    return int(row.get("epoch", 0)) + 1


def thinned(rows: Sequence[Row], limit: int) -> list[Row]:
    """At most about `limit` of the rows, evenly chosen, the first and the last among them."""
    if len(rows) <= limit:
        return list(rows)
    step = (len(rows) - 1) / (limit - 1)
    return [rows[round(i * step)] for i in range(limit)]


def epochs_done(state: CardState, epochs: Sequence[Row]) -> int:
    """Finished epochs, those before `initial_epoch` included."""
    return max(int(state.get("epochs_done") or 0), int(state.get("initial_epoch") or 0), _number(epochs[-1]) if epochs else 0)


def how_far(state: CardState, epochs: Sequence[Row]) -> str:
    """ "20 epochs in 0:17", "epoch 3 of 50 after 0:31": what stands right of the name."""
    done, all_of_them = epochs_done(state, epochs), int(state.get("epochs") or 0)
    if state["state"] == "QUEUED":
        return f"place {state['queue']} in the queue" if state.get("queue") else "waiting for a worker"
    started, ended = state.get("started_ms") or 0, state.get("ended_ms") or 0
    spent = duration(ended - started) if started and ended else ""
    if state["state"] == "SUCCEEDED":
        amount = f"{done} of {all_of_them} epochs" if done < all_of_them else f"{done} epoch{'' if done == 1 else 's'}"
        return amount + (f" in {spent}" if spent else "") + (", stopped early" if state.get("stopped_early") else "")
    place = f"epoch {done} of {all_of_them}" if all_of_them else ""
    return f"{place} after {spent}" if state.get("terminal") and spent else place


def short_id(run_id: str) -> str:
    """ "digits-3f2a9c01b7d4" → "digits-3f2a" """
    return run_id[: run_id.rfind("-") + 5]


def place(at: Mapping[str, Any]) -> str:
    """ "after epoch 4", "at epoch 5, batch 12" """
    return f"at epoch {at['epoch'] + 1}, batch {at['step']}" if at["step"] > 0 else f"after epoch {at['epoch']}"


def steer(state: CardState, resume: str = "%kafka_resume") -> str:
    """What a person should know who has paused or cancelled it. `resume`: what they write to go on, where they read this."""
    if state["state"] == "PAUSED":
        where = f" {place(state['checkpoint'])}" if state.get("checkpoint") else ""
        return f"Paused{where}; {resume} {short_id(state['run_id'])} goes on."
    if state["state"] != "CANCELLED":
        return ""
    by = f" by {state['ended_by']}" if state.get("ended_by") else ""
    return f"Cancelled{by}{PROCESSES.get(state.get('process') or '', '')}."


def since(applied: Mapping[str, Any] | None) -> str:
    """ "learning_rate 0.0010 since epoch 5, batch 12" """
    settings = applied["settings"] if applied else {}
    named = ", ".join(f"{name} {metric(value)}" for name, value in settings.items() if isinstance(value, (int, float)))
    return f"{named} since epoch {applied['epoch'] + 1}, batch {applied['step']}" if applied and named else ""


def batch_of(rows: Sequence[Row]) -> Row | None:
    """The newest batch of the epoch that is under way; None where an epoch has ended since."""
    return next((row if row.get("type") == "batch" else None for row in reversed(rows) if row.get("type") in ("batch", "epoch")), None)


def fraction(state: CardState, epochs: Sequence[Row], batch: Row | None = None) -> float:
    """Share of the training that is done, 0..1."""
    if state["state"] == "SUCCEEDED":
        return 1.0
    first = int(state.get("initial_epoch") or 0)
    wanted = max(1, int(state.get("epochs") or 0) - first)
    return min(1.0, max(0.0, (epochs_done(state, epochs) - first + _part(state, batch)) / wanted))


def _part(state: CardState, batch: Row | None) -> float:
    """Of the epoch under way, 0..1."""
    steps = int((batch or {}).get("steps") or 0)
    return min(1.0, int(batch.get("step") or 0) / steps) if batch and steps > 0 and not state.get("terminal") else 0.0


def seconds_per_epoch(epochs: Sequence[Row]) -> float:
    """The middle one of the last five, so that the first (it compiles) and hiccups do not count. 0: nothing is known."""
    seconds = sorted(s for s in (float(row.get("seconds") or 0) for row in epochs[-5:]) if 0 < s < LONGEST_S)
    return seconds[len(seconds) // 2] if seconds else 0.0


def left_ms(state: CardState, epochs: Sequence[Row], batch: Row | None, now_ms: float) -> float | None:
    """ms until the last epoch should be over; None where nothing can be said yet."""
    seconds = seconds_per_epoch(epochs)
    if seconds:
        since_last = max(0.0, now_ms - float(epochs[-1].get("at_ms") or 0)) / (seconds * 1000)
        under_way = _part(state, batch) or min(0.95, since_last)
        return max(0.0, (int(state.get("epochs") or 0) - epochs_done(state, epochs) - under_way) * seconds * 1000)
    done, started = fraction(state, epochs, batch), float(state.get("started_ms") or 0)
    spent = now_ms - started
    return spent * (1 - done) / done if done > 0.01 and started and spent > 3000 else None


def under_way(state: CardState, epochs: Sequence[Row], batch: Row | None, now_ms: float) -> str:
    """ "epoch 2 of 20 · batch 20 of 40 · 18:30 left": how far a run is that moves. The front end's `when`."""
    if not state.get("attempt"):
        return f"{state['epochs']} epoch{'' if state['epochs'] == 1 else 's'}" if state.get("epochs") else ""
    of = f" of {state['epochs']}" if state.get("epochs") else ""
    parts, pace = [f"epoch {max(1, epochs_done(state, epochs))}{of}"], seconds_per_epoch(epochs)
    if batch and (not pace or pace >= SLOW_EPOCH_S):
        steps = f" of {batch['steps']}" if batch.get("steps") else ""
        parts = [f"epoch {_number(batch)}{of}", f"batch {batch.get('step', 0)}{steps}"]
    left = left_ms(state, epochs, batch, now_ms) if state["state"] == "RUNNING" else None
    return " · ".join([*parts, *([f"{duration(left + 999)} left"] if left is not None else [])])
