"""What built-in callbacks remember between epochs ↔ JSON and arrays, so that a resumed training goes on with it.

A list of what is carried, not of what is not: a checkpoint comes from outside, and must not be able to set where a callback writes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kafka_jupyter.models import remembered
from kafka_jupyter.models.callbacks import is_keras_own

Array = np.ndarray[Any, np.dtype[Any]]

_REMEMBERED = {
    "EarlyStopping": ("wait", "stopped_epoch", "best", "best_epoch", "best_weights"),
    "ReduceLROnPlateau": ("wait", "cooldown_counter", "best"),
    "ModelCheckpoint": ("best", "_batches_seen_since_last_saving", "_last_batch_seen", "_current_epoch"),
    "BackupAndRestore": ("_batches_seen_since_last_saving", "_last_batch_seen", "_current_epoch"),
    "SwapEMAWeights": ("_ema_weights_in_model",),
    "CSVLogger": ("keys",),
    "History": ("history", "epoch"),
    "TensorBoard": ("_global_train_batch", "_global_test_batch", "_previous_epoch_iterations"),
}


def collect(callbacks: Sequence[keras.callbacks.Callback]) -> tuple[list[dict[str, Any]], dict[str, Array]]:
    """The state of each, as JSON and as arrays by name."""
    arrays: dict[str, Array] = {}
    states = []
    for place, live in enumerate(callbacks):
        state: dict[str, Any] = {"class": type(live).__name__}
        if not is_keras_own(live):
            states.append(state | {"notes": remembered.notes(live)})
            continue
        for name in _REMEMBERED.get(state["class"], ()):
            if name in vars(live):  # some are made in the course of the training only
                state[name] = _packed(vars(live)[name], f"callback/{place}/{name}", arrays)
        states.append(state)
    return states, arrays


def restore(callbacks: Sequence[keras.callbacks.Callback], states: Any, arrays: Mapping[str, Array]) -> None:
    """Puts back what `collect` gave; to be called behind their `on_train_begin`, which resets some of it.

    Raises ValueError if these are not the states of these callbacks.
    """
    names = [type(live).__name__ for live in callbacks]
    if not isinstance(states, list) or [state.get("class") if isinstance(state, dict) else None for state in states] != names:
        raise ValueError("the checkpoint is that of other callbacks")
    for live, state in zip(callbacks, states, strict=True):
        if not is_keras_own(live):
            remembered.bring_back(live, state.get("notes"))
            continue
        for name in _REMEMBERED.get(type(live).__name__, ()):
            if name in state:
                setattr(live, name, _unpacked(state[name], arrays))


def _packed(value: Any, name: str, arrays: dict[str, Array]) -> Any:
    """JSON keeps Python's numbers to the last bit; what numpy made keeps its type as an array, and a tensor becomes one."""
    if keras.ops.is_tensor(value):
        value = keras.ops.convert_to_numpy(value)
    if isinstance(value, (np.ndarray, np.generic)):
        arrays[name] = np.array(value, copy=True, order="C")
        return {"$array" if isinstance(value, np.ndarray) else "$item": name}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(value)}
    if isinstance(value, dict):
        return {"$dict": [[key, _packed(item, f"{name}/{i}", arrays)] for i, (key, item) in enumerate(value.items())]}
    if isinstance(value, (list, tuple)):
        return [_packed(item, f"{name}/{i}", arrays) for i, item in enumerate(value)]
    return value


def _unpacked(value: Any, arrays: Mapping[str, Array]) -> Any:
    if isinstance(value, list):
        return [_unpacked(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    match kind:
        case "$array":
            return arrays[inner]
        case "$item":
            return arrays[inner][()]
        case "$float":
            return float(inner)
        case _:
            return {key: _unpacked(item, arrays) for key, item in inner}
