"""What a person asks of a run in a shell or in a notebook, and the sentence that answers."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from kafka_jupyter.runs.state import State

if TYPE_CHECKING:
    from kafka_jupyter.client.events import RunEvent
    from kafka_jupyter.client.handle import TrainingRun


@dataclasses.dataclass(frozen=True)
class Answer:
    """`asked`: whether anything was asked for. `applied`: where a change holds from, if its worker has said so."""

    text: str
    asked: bool = True
    applied: RunEvent | None = None

    def __str__(self) -> str:
        return self.text


def stop(run: TrainingRun, force: bool) -> Answer:
    if run.state == State.CANCELLING:
        return Answer(f"{run.id} is being cancelled: nothing of it will be kept.", asked=False)
    if run.ended:
        return _over(run)
    run.stop(force=force)
    return Answer(f"{run.id}: asked to stop.")


def cancel(run: TrainingRun, force: bool) -> Answer:
    if run.ended:
        return _over(run)
    run.cancel(force=force)
    return Answer(f"{run.id}: asked to cancel.")


def change(run: TrainingRun, wanted: dict[str, float], force: bool, timeout: float) -> Answer:
    """Waits so many seconds for the answer of a worker, where one trains it."""
    what = ", ".join(f"{name} {value:g}" for name, value in wanted.items())
    answer = run.set(**wanted, force=force, timeout=timeout if run.state == State.RUNNING else 0.0)
    if answer is None:
        return Answer(f"{run.id}: asked for {what}, from the end of its next batch or from its next start.")
    return Answer(f"{run.id}: {what} since epoch {answer.epoch + 1}, batch {answer.step}.", applied=answer)


def _over(run: TrainingRun) -> Answer:
    return Answer(f"{run.id} has already {run.state}.", asked=False)
