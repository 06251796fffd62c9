"""Submit, follow, control: `Client` and `TrainingRun`, in notebooks and in plain scripts."""

from __future__ import annotations

from collections.abc import Collection

from kafka_jupyter.client.client import Client
from kafka_jupyter.client.events import RunEvent
from kafka_jupyter.client.handle import TrainingRun

__all__ = ["Client", "RunEvent", "TrainingRun", "attach", "runs"]


def runs(
    *, state: str | Collection[str] | None = None, name: str | None = None, owner: str | None = None, limit: int | None = None
) -> list[TrainingRun]:
    """The runs in the log, newest first, narrowed down by what is given. `state`: one, or several of them."""
    return Client().runs(state=state, name=name, owner=owner, limit=limit)


def attach(run: str) -> TrainingRun:
    """The run that `run` names: an id, a unique beginning of one, or my newest run of that name."""
    return Client().attach(run)
