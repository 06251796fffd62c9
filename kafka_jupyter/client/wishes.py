"""What a person asks of a run in a shell or in a notebook, and the sentence that answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kafka_jupyter.runs.state import State

if TYPE_CHECKING:
    from kafka_jupyter.client.handle import TrainingRun


def stop(run: TrainingRun, force: bool) -> str:
    if run.state == State.CANCELLING:
        return f"{run.id} is being cancelled: nothing of it will be kept."
    if run.ended:
        return _over(run)
    run.stop(force=force)
    return f"{run.id}: asked to stop."


def cancel(run: TrainingRun, force: bool) -> str:
    if run.ended:
        return _over(run)
    run.cancel(force=force)
    return f"{run.id}: asked to cancel."


def change(run: TrainingRun, wanted: dict[str, float], force: bool, timeout: float) -> str:
    """Waits so many seconds for the answer of a worker, where one trains it."""
    what = ", ".join(f"{name} {value:g}" for name, value in wanted.items())
    answer = run.set(**wanted, force=force, timeout=timeout if run.state == State.RUNNING else 0.0)
    if answer is None:
        return f"{run.id}: asked for {what}, from the end of its next batch or from its next start."
    return f"{run.id}: {what} since epoch {answer.epoch + 1}, batch {answer.step}."


def _over(run: TrainingRun) -> str:
    return f"{run.id} has already {run.state}."
