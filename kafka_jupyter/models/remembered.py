"""What a callback that a person wrote has noted in its attributes ↔ JSON: numbers, text, lists, dicts and arrays, nested as they like.

Only values travel this way, never code: what comes back from a worker, or out of a checkpoint, is set on an object of the person's own
class. Attributes that hold anything else are left alone.
"""

from __future__ import annotations

import collections
import math
import numbers
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

LIMIT = 1 << 20  # values of one attribute; more of them are no notes
DEPTH = 16
# Keras' own, and what ties a callback to its process.
_NOT_NOTES = frozenset({"_model", "model", "params", "validation_data", "_chief_worker_only", "_supports_tf_logs"})
_SEQUENCES: dict[str, Any] = {"$tuple": tuple, "$set": set, "$frozenset": frozenset, "$deque": collections.deque}


class _NoValue(Exception):
    """It is no plain value."""


def notes(live: keras.callbacks.Callback) -> dict[str, Any]:
    """The attributes of a callback that are plain, as JSON."""
    found = {}
    for name, value in vars(live).items():
        if name not in _NOT_NOTES:
            try:
                found[name] = _packed(value, _Room())
            except _NoValue:
                continue
    return found


def bring_back(live: keras.callbacks.Callback, packed: Any) -> None:
    """Sets what `notes` gave. Raises ValueError if it is not that; methods, properties and attributes that hold no value now are left."""
    if not isinstance(packed, dict):
        raise ValueError("these are no notes of a callback")
    known = set(notes(live))
    for name, value in packed.items():
        is_new = name not in vars(live) and not hasattr(type(live), name)
        if isinstance(name, str) and name not in _NOT_NOTES and not name.startswith("__") and (name in known or is_new):
            setattr(live, name, _live(value, 0))


class _Room:
    def __init__(self) -> None:
        self.left = LIMIT

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise _NoValue


def _packed(value: Any, room: _Room, depth: int = 0) -> Any:
    room.take(1)
    if depth > DEPTH:
        raise _NoValue
    if value is None or isinstance(value, (bool, str)):
        room.take(len(value) // 8 if isinstance(value, str) else 0)
        return value
    if keras.ops.is_tensor(value) and not hasattr(value, "numpy"):
        raise _NoValue
    if keras.ops.is_tensor(value) or isinstance(value, (np.ndarray, np.generic)):
        return _array(np.asarray(value), room, "$item" if isinstance(value, np.generic) else "$array")
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else {"$float": repr(float(value))}
    if type(value) is list:
        return [_packed(item, room, depth + 1) for item in value]
    for mark, kind in _SEQUENCES.items():
        if type(value) is kind:
            return {mark: [_packed(item, room, depth + 1) for item in value]}
    if type(value) in (dict, collections.OrderedDict, collections.defaultdict):
        return {"$dict": [[_packed(key, room, depth + 1), _packed(item, room, depth + 1)] for key, item in value.items()]}
    raise _NoValue


def _array(array: np.ndarray[Any, Any], room: _Room, mark: str) -> Any:
    room.take(array.size)
    if array.dtype.kind not in "biuf" or array.dtype.name not in np.sctypeDict:
        raise _NoValue
    values = [repr(number) if not math.isfinite(number) else number for number in array.reshape(-1).tolist()]
    return {mark: [array.dtype.name, list(array.shape), values]}


def _live(packed: Any, depth: int) -> Any:
    if depth > DEPTH + 1:
        raise ValueError("notes of a callback are nested too deeply")
    if isinstance(packed, list):
        return [_live(item, depth + 1) for item in packed]
    if not isinstance(packed, dict):
        return packed
    ((mark, inner),) = packed.items()
    if mark in _SEQUENCES:
        return _SEQUENCES[mark](_live(item, depth + 1) for item in inner)
    match mark:
        case "$float":
            return float(inner)
        case "$dict":
            return dict(_pairs(inner, depth))
        case "$array" | "$item":
            name, shape, values = inner
            array = np.array([float(value) if isinstance(value, str) else value for value in values], dtype=np.dtype(str(name)))
            array = array.reshape(shape)
            return array[()] if mark == "$item" else array
    raise ValueError(f"an unknown kind of note {str(mark)[:40]!r}")


def _pairs(packed: Any, depth: int) -> Iterator[tuple[Any, Any]]:
    for key, value in packed:
        yield _live(key, depth + 1), _live(value, depth + 1)
