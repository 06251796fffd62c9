"""Where a run's result goes in this kernel: the captured model, its optimizer, its callbacks, the paths of its files.

A model is *pending* while a run trains it and its weights have not come back. The registry holds models and runs weakly: what keeps a
target alive is its model, what keeps the model alive is the person (or the handle).
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import weakref
from collections.abc import Sequence
from typing import Any

from kafka_jupyter.protocol.task import CallbackSpec


@dataclasses.dataclass(eq=False)
class Target:
    """`folder`: the working directory at submit, to which relative paths belong. `optimizer` is the captured object: a model that was
    compiled anew meanwhile keeps its new one as it is."""

    client: Any  # that of the submit
    run_id: str
    model_ref: weakref.ref[Any]
    optimizer: Any
    callbacks: Sequence[Any]
    specs: Sequence[CallbackSpec]
    folder: pathlib.Path
    pending: bool = True

    @property
    def model(self) -> Any:
        return self.model_ref()

    def place_of(self, path: str) -> pathlib.Path | None:
        """Where a file of the run goes; None for one that no callback of this `fit` was told to write (records are not to be trusted)."""
        if not any(_belongs(path, spec) for spec in self.specs):
            return None
        return self.folder / path


def _belongs(path: str, spec: CallbackSpec) -> bool:
    climbs = ".." in pathlib.PurePath(path).parts and ".." not in pathlib.PurePath(spec.path).parts
    if not spec.path_argument or climbs:
        return False
    given = os.path.normpath(spec.path)
    found = os.path.normpath(path)
    if found == given or found.startswith(given + os.sep):
        return True
    if "{" not in given:
        return False
    literal = (re.escape(text) for text in re.split(r"\{[^{}]*\}", given))
    return re.fullmatch(f"[^{os.sep}]*".join(literal), found) is not None


_by_model: weakref.WeakKeyDictionary[Any, Target] = weakref.WeakKeyDictionary()
_by_run: weakref.WeakValueDictionary[str, Target] = weakref.WeakValueDictionary()
_let_go: weakref.WeakKeyDictionary[Any, set[str]] = weakref.WeakKeyDictionary()  # model → runs whose result it never got


def keep(target: Target) -> None:
    model = target.model
    if model is not None:
        _by_model[model] = target
        _by_run[target.run_id] = target


def pending(model: Any) -> Target | None:
    """The target of the run that trains this model now."""
    target = _by_model.get(model)
    return target if target is not None and target.pending else None


def of_run(run_id: str) -> Target | None:
    return _by_run.get(run_id)


def let_go(target: Target) -> None:
    """Its model stays as it was."""
    model = target.model
    if target.pending and model is not None:
        _let_go.setdefault(model, set()).add(target.run_id)
    settle(target)


def was_let_go(model: Any, run_id: str) -> bool:
    return run_id in _let_go.get(model, ())


def settle(target: Target) -> None:
    """The weights have come back, or the model was let go."""
    target.pending = False
    model = target.model
    if model is not None and _by_model.get(model) is target:
        del _by_model[model]
