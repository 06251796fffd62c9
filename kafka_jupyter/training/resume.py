"""Going on where a checkpoint was written, to the last bit as if the training had never been cut."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kafka_jupyter.errors import StoreError
from kafka_jupyter.models import callback_state, callbacks, state
from kafka_jupyter.protocol.rows import Metrics
from kafka_jupyter.training.adapter import Passes
from kafka_jupyter.training.checkpoint import VERSION

Array = np.ndarray[Any, np.dtype[Any]]


@dataclasses.dataclass(frozen=True)
class Point:
    """A checkpoint as it was read: `step` batches of `epoch` (counted from 0) are done."""

    file: str
    epoch: int
    step: int
    metrics: Metrics  # of the last epoch that ended
    states: Any
    arrays: dict[str, Array]


def read(file: str) -> Point:
    """Raises StoreError."""
    arrays, about = state.load_beside(file)
    if about.get("v") != VERSION or not all(type(about.get(name)) is int and about[name] >= 0 for name in ("epoch", "step")):
        raise StoreError(store=file, detail="this is not a checkpoint of this version")
    return Point(file, about["epoch"], about["step"], about.get("metrics") or {}, about.get("callbacks"), arrays)


def bring_back(files: Mapping[str, str], folder: pathlib.Path, built: Sequence[keras.callbacks.Callback], early: bool) -> None:
    """Puts the files that callbacks had written where they will look for them. BackupAndRestore would take its own for a reason to go
    back to them: those come when training has begun, all others early."""
    for place, file in files.items():
        index = callbacks.index_of(place)
        if index is None or index >= len(built):
            raise StoreError(store=place, detail="no callback of this task has written this file")
        if (index >= 0 and isinstance(built[index], keras.callbacks.BackupAndRestore)) is early:
            continue
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


class ResumedCallbacks(keras.callbacks.CallbackList):  # type: ignore[misc] # Keras has no types
    """All callbacks of a resumed `fit`: they are told the batches that they would have been told."""

    def __init__(
        self,
        called: Sequence[keras.callbacks.Callback],
        remembering: Sequence[keras.callbacks.Callback],
        point: Point,
        passes: Passes,
        files: tuple[Mapping[str, str], pathlib.Path],
        **params: Any,
    ) -> None:
        """`files`: those that callbacks had written, by place below the folder; and that folder. `params`: as CallbackList."""
        super().__init__(list(called), **params)
        self._remembering, self._point, self._passes, self._files = remembering, point, passes, files
        self._begun_anew = [c for c in remembering if isinstance(c, keras.callbacks.CSVLogger) and not c.append]
        self._skipped = self._epoch = 0
        self._cut = False

    def on_train_begin(self, logs: Any = None) -> None:
        for live in self._begun_anew:
            live.append = True  # it goes on with the file that was brought back
        super().on_train_begin(logs)  # some reset themselves here
        bring_back(*self._files, self._remembering, early=False)
        try:
            callback_state.restore(self._remembering, self._point.states, self._point.arrays)
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(store=self._point.file, detail=f"this is not a checkpoint of this task: {error}") from error

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self._epoch = epoch
        self._skipped = self._point.step if epoch == self._point.epoch else 0
        if self._skipped:
            state.load_metrics(self.model, self._point.file)  # `fit` has just reset them

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        super().on_train_batch_begin(batch + self._skipped, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        super().on_train_batch_end(batch + self._skipped, logs)
        # Keras would go on until `num_batches`, beyond the end of the data, and take one more step with nothing.
        if batch + 1 + self._skipped >= self._passes.of(self._epoch)[2] and not self.model.stop_training:
            self._cut = self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._cut:
            self._cut = self.model.stop_training = False
        super().on_epoch_end(epoch, logs)

    def on_train_end(self, logs: Any = None) -> None:
        super().on_train_end(logs)
        for live in self._begun_anew:
            live.append, live.append_header = False, True  # as it would be now
