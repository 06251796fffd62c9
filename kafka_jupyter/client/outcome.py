"""What a run that SUCCEEDED left: state, history, callback states and files → the objects and paths of the person."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from kafka_jupyter.client.connection import Connection
from kafka_jupyter.client.targets import Target
from kafka_jupyter.errors import ArtifactMissing, BadRecord, NotRebuilt, StoreError
from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.task import CallbackSpec, Task
from kafka_jupyter.runs.state import RunState


def deliver(connection: Connection, state: RunState, target: Target) -> Any:
    """Files to their paths, weights and optimizer state into the captured objects, callbacks to how they ended. The History object.

    Raises DoesNotFit, StoreError, BrokerError; then no variable was assigned.
    """
    from kafka_jupyter.models import callbacks
    from kafka_jupyter.models import state as states

    end = _succeeded(state)
    outcome = read_outcome(connection, state)
    for file in end.files:
        place = target.place_of(file.path)
        if place is not None:
            put_file(connection, file, place)
    with _state_file(connection, state) as path:
        states.load_into(target.model, target.optimizer, path, state.run_id)
    callbacks.restore_final_state(target.callbacks, outcome.get("callbacks", []))
    own = next((live for live in target.callbacks if type(live).__name__ == "History"), None)
    return _give_history(target.model, outcome, own)


def load(connection: Connection, state: RunState, model: Any) -> None:
    """The result into any model of the same shape. Raises DoesNotFit (nothing was assigned then)."""
    from kafka_jupyter.models import state as states

    outcome = read_outcome(connection, state)
    with _state_file(connection, state) as path:
        states.load_into(model, model.optimizer, path, state.run_id)
    _give_history(model, outcome, None)


def rebuild(connection: Connection, state: RunState) -> Any:
    """A new model, compiled, as the run left it. Raises NotRebuilt for one that a person wrote: nothing of a log is run here."""
    from kafka_jupyter.models import rebuild as models

    task = read_task(connection, state)
    if task.code is not None and task.code.model:
        raise NotRebuilt(run_id=state.run_id, model=task.model.model_name)
    config = connection.store.read(task.model.config, f"the model of run {state.run_id}")
    outcome = read_outcome(connection, state)
    with _state_file(connection, state) as path:
        model = models.build(config, path)
    _give_history(model, outcome, None)
    return model


def read_task(connection: Connection, state: RunState) -> Task:
    if state.task is None:
        raise ArtifactMissing(name=f"the task of run {state.run_id}", detail="nobody has told where it stands")
    return connection.log.read_task(state.task, state.run_id)


def read_outcome(connection: Connection, state: RunState) -> dict[str, Any]:
    part = _succeeded(state).parts.get("outcome")
    if part is None:
        return {}
    try:
        outcome = json.loads(connection.store.read(part, f"the outcome of run {state.run_id}"))
    except ValueError as error:
        raise StoreError(store=connection.store.url, detail=f"the outcome of run {state.run_id} is no JSON: {error}") from error
    if not isinstance(outcome, dict):
        raise StoreError(store=connection.store.url, detail=f"the outcome of run {state.run_id} is no JSON object")
    return outcome


def put_file(connection: Connection, file: control.OutputFile, place: pathlib.Path) -> None:
    """Whole or not at all: readers never see a part of it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f".{place.name}.{os.getpid()}")
    with connection.store.lease() as lease:
        shutil.copyfile(lease.fetch(file.part, file.path), partial)
    os.replace(partial, place)


def fetch_files(connection: Connection, state: RunState, folder: pathlib.Path) -> list[pathlib.Path]:
    """All files of the run below `folder`; a path that would lead out of it becomes its last name."""
    placed = []
    for file in _succeeded(state).files:
        path = pathlib.PurePath(file.path)
        inside = not path.is_absolute() and ".." not in path.parts
        place = folder / (path if inside else path.name)
        put_file(connection, file, place)
        placed.append(place)
    return placed


@contextlib.contextmanager
def _state_file(connection: Connection, state: RunState) -> Iterator[pathlib.Path]:
    part = _succeeded(state).parts.get("state")
    if part is None:
        raise ArtifactMissing(name=f"the weights of run {state.run_id}", detail="the record of its end names none")
    with connection.store.lease() as lease:
        yield lease.fetch(part, f"the weights of run {state.run_id}")


def _succeeded(state: RunState) -> control.Succeeded:
    if not isinstance(state.end, control.Succeeded):
        raise BadRecord(topic="run_control", partition=-1, offset=state.upto, why=f"run {state.run_id} has no result")
    return state.end


def _give_history(model: Any, outcome: dict[str, Any], own: Any) -> Any:
    """Keras' History object, as `fit` would have left it: that of the person if they had passed one."""
    from kafka_jupyter.models import callbacks

    history = callbacks.build([CallbackSpec("History")], ".")[0] if own is None else own
    history.history = {name: [_number(value) for value in values] for name, values in outcome.get("history", {}).items()}
    history.epoch = list(outcome.get("epoch", []))
    history.set_params(dict(outcome.get("params", {})))
    history.set_model(model)
    model.history = history
    model.stop_training = bool(outcome.get("stop_training", False))
    return history


def _number(value: Any) -> Any:
    """What is not finite is no JSON number: it travels as null or spelled out."""
    if value is None:
        return math.nan
    return float(value["$float"]) if isinstance(value, dict) else value
