"""Whether two pieces of code that go by value are the same training: a digest of their pickle without what differs from one run of the same
cell to the next, in this kernel or another one.

Left out are the ids of classes, the numbers that Keras counts up in names, the names of cells' files, and seeds that were drawn by
chance, as initial weights are. Where it cannot see that two are the same they count as different: a set of several strings stands in
any order.
"""

from __future__ import annotations

import hashlib
import pickle
import pickletools
import re
import types
from typing import Any

import cloudpickle
import keras
from keras.src.backend import Variable  # keras.Variable is this class under another name
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.initializers.random_initializers import RandomInitializer
from keras.src.ops.operation import Operation

LEAST_CHANCE = 100_000  # Keras draws seeds up to 10^9; people write smaller ones
_COUNTED = re.compile(r"_\d+(?=/|$)")
_FRAMING = frozenset({"PROTO", "FRAME"})


class Likeness:
    """`meet` is shown everything that is pickled."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._files: set[str] = set()
        self._seeds: set[int] = set()
        self._classes: list[type] = []

    def meet(self, thing: Any) -> None:
        if isinstance(thing, types.FunctionType):
            self._files.add(thing.__code__.co_filename)
        elif isinstance(thing, type):
            self._classes.append(thing)
        elif isinstance(thing, Variable):
            self._names |= {thing.name, thing.path}
        elif isinstance(thing, keras.random.SeedGenerator):
            self._drawn(thing._initial_seed)
            self._names.add(thing.name)
        elif isinstance(thing, RandomInitializer):
            self._drawn(thing.seed if thing._init_seed is None else None)
        elif isinstance(thing, (Operation, KerasTensor, keras.optimizers.Optimizer, keras.losses.Loss, keras.metrics.Metric)):
            named = (getattr(thing, name, None) for name in ("name", "path", "_path", "_parent_path"))
            self._names.update(name for name in named if isinstance(name, str))

    def _drawn(self, seed: Any) -> None:
        if type(seed) is int and seed >= LEAST_CHANCE:
            self._seeds.add(seed)

    def of(self, data: bytes) -> str:
        """sha256 of what `byvalue.dump` has just made of the things that were met."""
        inner, _sources = pickle.loads(data)  # our own bytes, of a moment ago: a tuple of bytes and texts
        tracked = cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS
        other: set[str | int] = {*self._files, *self._seeds, *(tracked[found] for found in self._classes if found in tracked)}
        digest, same = hashlib.sha256(), _Renaming()
        for operation, argument, _place in pickletools.genops(inner):
            if operation.name in _FRAMING:
                continue
            said = argument
            if type(argument) is str and argument in self._names:
                said = same.named(_COUNTED.sub("", argument), argument)
            elif type(argument) in (str, int) and argument in other:
                said = same.named("", argument)
            digest.update(f"{operation.name} {said!r}\n".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


class _Renaming:
    """What differs from run to run, by the order in which it is met among those with the same beginning."""

    def __init__(self) -> None:
        self._met: dict[str, dict[Any, int]] = {}

    def named(self, base: str, argument: Any) -> str:
        """The first keeps the bare beginning: in a fresh kernel Keras gives it no number, and attributes may be called the same."""
        met = self._met.setdefault(base, {})
        place = met.setdefault(argument, len(met))
        return f"{base}#{place}" if place else base
