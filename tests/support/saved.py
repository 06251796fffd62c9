"""Saved notebooks with cards in them, as a kernel leaves them while its runs go on, and what the log says of these runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kafka_jupyter.outputs.bundle import WIDGET_VIEW, bundle

RUN = "digits-3f2a9c01b7d4"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"


def state(word: str = "SUCCEEDED", run: str = RUN, **fields: Any) -> dict[str, Any]:
    """A card state."""
    known = {"v": 1, "run_id": run, "short": "3f2a", "name": "digits", "state": word, "attempt": 1, "upto": 7, "epochs": 3}
    known |= {"epochs_done": 3, "worker": "box", "started_ms": 1000, "ended_ms": 4000, "terminal": word in ("SUCCEEDED", "FAILED")}
    return known | fields


def rows(count: int = 3) -> list[dict[str, Any]]:
    return [{"type": "epoch", "attempt": 1, "seq": i, "epoch": i, "metrics": {"val_loss": 1 / (i + 1)}} for i in range(count)]


def live(*runs: str, model: str = "") -> dict[str, Any]:
    """The output of a cell whose kernel has gone while the runs went on."""
    states = [state("RUNNING", run, epochs_done=None, ended_ms=None) for run in runs or (RUN,)]
    view = {WIDGET_VIEW: {"model_id": model, "version_major": 2, "version_minor": 1}} if model else {}
    return display(bundle(states, {run: rows(1) for run in runs or (RUN,)}, live=True) | view)


def final(*runs: str) -> dict[str, Any]:
    """What that output should become."""
    return display(bundle([state(run=run) for run in runs or (RUN,)], {run: rows() for run in runs or (RUN,)}, live=False))


def display(data: dict[str, Any]) -> dict[str, Any]:
    return {"data": data, "metadata": {}, "output_type": "display_data"}


def cell(source: str, *outputs: dict[str, Any]) -> dict[str, Any]:
    return {"cell_type": "code", "execution_count": 1, "id": source[:8], "metadata": {}, "outputs": list(outputs), "source": [source]}


def notebook(*cells: dict[str, Any], widgets: dict[str, Any] | None = None, minor: int = 5) -> dict[str, Any]:
    """`widgets`: model id → its state."""
    metadata: dict[str, Any] = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    if widgets is not None:
        metadata["widgets"] = {WIDGET_STATE: {"state": widgets, "version_major": 2, "version_minor": 0}}
    return {"cells": list(cells), "metadata": metadata, "nbformat": 4, "nbformat_minor": minor}


def log(*states: dict[str, Any]) -> Any:
    """A lookup in a log that holds these runs."""
    known = {each["run_id"]: each for each in states}

    def lookup(run_id: str) -> tuple[dict[str, Any], Sequence[dict[str, Any]]] | None:
        return (known[run_id], rows()) if run_id in known else None

    return lookup
