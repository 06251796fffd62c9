"""Keras is patched once: `fit` asks whether a session captures, and what a pending model must not do is refused.

Nothing here imports Keras: a finder waits until somebody does, so that a cell may import Keras itself and `%load_ext` stays quick.
"""

from __future__ import annotations

import contextvars
import functools
import importlib.machinery
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from kafka_jupyter import errors
from kafka_jupyter.client import TrainingRun, targets
from kafka_jupyter.runs.state import State

GUARDED = (
    "evaluate", "predict", "compile", "save", "save_weights", "export", "set_weights", "load_weights",
    "train_on_batch", "test_on_batch", "predict_on_batch",
)  # fmt: skip
_MARK = "_kafka_jupyter_patched"


class Captures(Protocol):
    """What the context flag holds."""

    closed: bool

    def fit(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...


current: contextvars.ContextVar[Captures | None] = contextvars.ContextVar("kafka_jupyter_session", default=None)


@contextmanager
def suspended() -> Iterator[None]:
    """A `fit` in here is Keras' own."""
    token = current.set(None)
    try:
        yield
    finally:
        current.reset(token)


def install() -> None:
    """Patches Keras now if it is there, else as soon as it has been imported. May be called again and again."""
    keras = sys.modules.get("keras")
    if keras is not None and hasattr(keras, "Model"):
        patch(keras)
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def patch(keras: types.ModuleType) -> None:
    model = keras.Model
    if _MARK in vars(model):
        return
    model.fit = _capturing(model.fit)
    for name in GUARDED:
        # Keras compares `type(model).compile` with that of its own base class to find overridden ones, so it is replaced there.
        home = next(kind for kind in model.__mro__ if name in vars(kind)) if name == "compile" else model
        setattr(home, name, _guarding(getattr(home, name)))
    setattr(model, _MARK, True)


def guard(model: Any) -> None:
    """Raises RunPending while a run trains this model; a run that ended badly raises its own error here, once."""
    target = targets.pending(model)
    if target is None:
        return
    run = TrainingRun(target.client, target.run_id, submitted=True)
    if run.state in (State.FAILED, State.DEAD):
        targets.settle(target)
        error = run.error
        assert error is not None
        raise error
    if run.state is State.CANCELLED:
        targets.settle(target)
        return
    if run.state is State.SUCCEEDED:
        raise errors.RunPending(
            "Run {run_id} has trained {model} and SUCCEEDED ({progress}); `run.result()` loads what it learned, "
            "`run.release()` lets the model go as it was.",
            model=f"model {model.name!r}", run_id=run.short, progress=run.progress,
        )  # fmt: skip
    raise errors.RunPending(model=f"Model {model.name!r}", run_id=run.short, progress=run.progress)


def _capturing(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def fit(self: Any, *args: Any, **kwargs: Any) -> Any:
        session = current.get()
        if session is not None and not session.closed:
            return session.fit(self, args, kwargs)
        guard(self)
        return original(self, *args, **kwargs)

    return fit


def _guarding(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        guard(self)
        return original(self, *args, **kwargs)

    return method


class _Finder:
    """Finds nothing itself: it lets the others find Keras and patches what they load."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "keras":
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                self._watch(spec.loader)
                return spec
        return None

    def _watch(self, loader: Any) -> None:
        execute = loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            execute(module)
            patch(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)

        loader.exec_module = exec_module
