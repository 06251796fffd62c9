"""What is said about a run in one line. Pure."""

from __future__ import annotations

from kafka_jupyter.client.find import owner_of
from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.rows import Metrics
from kafka_jupyter.runs.state import RunState, State
from kafka_jupyter.runs.view import History


def progress(state: RunState | None, history: History | None, unread: State | None = None) -> str:
    """ "queued", "epoch 4 of 20", "20 epochs": for messages and `repr`. `unread`: its state, if known, while nothing has been read."""
    if state is None and unread is None:
        return "connecting"
    if state is None or state.submitted is None:
        return "just submitted" if state is None or state.open is None else str(state.state).lower()
    if isinstance(state.end, control.Succeeded):
        return f"{state.end.epochs} epochs" + (", stopped early" if state.end.stopped_early else "")
    if state.terminal or state.open is None or not state.open.started:
        return str(state.state).lower()
    done = history.epochs[-1].epoch + 1 if history and history.epochs else state.submitted.initial_epoch
    return f"epoch {min(done + 1, state.submitted.epochs)} of {state.submitted.epochs}"


def newest_metrics(state: RunState | None, history: History | None) -> Metrics:
    """Of the last ended epoch; while the first one runs, of its last batches."""
    if state is not None and isinstance(state.end, control.Succeeded):
        return dict(state.end.metrics)
    if history is None:
        return {}
    if history.epochs:
        return dict(history.epochs[-1].metrics)
    return dict(history.progress.metrics) if history.progress else {}


def state_line(run_id: str, state: RunState | None, history: History | None, unread: State | None = None) -> str:
    """`digits-3f2a9c01b7d4 RUNNING, epoch 4 of 20, loss 0.0731`"""
    shown = state.state if state else unread
    word = progress(state, history, unread)
    parts = [f"{run_id} {shown}"] if shown else [run_id]
    if word != str(shown).lower():
        parts.append(word)
    parts += [f"{name} {value:.4g}" for name, value in newest_metrics(state, history).items() if value is not None][:4]
    if state is not None and state.state in (State.FAILED, State.RETRYING) and state.last_failure is not None:
        parts.append(f"{state.last_failure.error or state.last_failure.reason}: {state.last_failure.message[:80]}")
    return ", ".join(parts)


def is_mine(state: RunState, owner: str) -> bool:
    return owner_of(state) in ("", owner)
