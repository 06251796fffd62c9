"""The callback that writes checkpoints: whatever a training needs to go on elsewhere as if nothing had happened.

A checkpoint is one file (`models.state.save_checkpoint`): variables, optimizer, seed generators and metrics, what the callbacks
remember, and where it was written; and beside it copies of the files that callbacks have written so far.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import safetensors
import tensorflow as tf

from kafka_jupyter.models import callback_state, callbacks, state
from kafka_jupyter.protocol import frames
from kafka_jupyter.runs import view
from kafka_jupyter.training.adapter import Passes
from kafka_jupyter.training.reporter import flat_metrics

VERSION = 1
Signature = tuple[int, int, int]


class Suspension(BaseException):
    """Unwinds `fit`: its checkpoint is written. No Exception, which callbacks might catch."""


class Checkpointer(keras.callbacks.Callback):  # type: ignore[misc] # Keras has no types
    """Stands behind the Reporter: what was asked for at a batch's end is in the checkpoint of that batch.

    `suspend` is called by the thread that listens; everything else happens in the one that trains.
    """

    def __init__(self, send: Callable[[frames.Frame], None], folder: str, cadence: frames.Cadence) -> None:
        super().__init__()
        self._send, self._folder, self._cadence = send, pathlib.Path(folder), cadence
        self._suspended = False
        self._epoch = 0
        self._count = 0
        self._copies: dict[str, tuple[Signature, str]] = {}  # place below the folder → what it was, its copy
        self._saved_s = 0.0  # when the last checkpoint was written, or the training began
        self._cost_s = 0.0  # of the last one

    def watch(self, remembering: Sequence[keras.callbacks.Callback], passes: Passes) -> None:
        """Whose state goes along, and how long epochs are."""
        self._remembering, self._passes = remembering, passes

    def suspend(self) -> None:
        self._suspended = True

    # --- called by Keras

    def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002
        self._saved_s = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        step = batch + 1
        if step >= self._passes.of(self._epoch)[2] or self.model.stop_training:
            return  # the end of the epoch follows
        if self._suspended:
            self._save(self._epoch, step, {})
            raise Suspension
        if self._due(self._cadence.every_s):
            self._save(self._epoch, step, {})

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.model.stop_training or epoch + 1 >= self.params["epochs"]:
            return  # the result follows
        if self._suspended:
            self._save(epoch + 1, 0, logs or {})
            raise Suspension
        if self._due(self._cadence.gap_s):
            self._save(epoch + 1, 0, logs or {})

    # --- writing

    def _due(self, after_s: float) -> bool:
        return time.monotonic() - self._saved_s >= max(after_s, self._cost_s / self._cadence.share if self._cadence.share < 1 else 0.0)

    def _save(self, epoch: int, step: int, logs: Mapping[str, Any]) -> None:
        begun_s = time.monotonic()
        self._count += 1
        file = self._folder / f"checkpoint-{self._count}.safetensors"
        try:
            states, arrays = callback_state.collect(self._remembering)
            about = {"v": VERSION, "epoch": epoch, "step": step, "callbacks": states, "metrics": flat_metrics(self._last(logs))}
            state.save_checkpoint(self.model, file, arrays, about)
            outputs = self._outputs()
        except (OSError, safetensors.SafetensorError, tf.errors.OpError, TypeError, ValueError) as error:
            # A full disk, or a state that is no JSON: the training is worth more than a checkpoint.
            print(f"No checkpoint of epoch {epoch}, step {step} could be written: {error}", file=sys.stderr)
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
        else:
            metric, value, mode = self._value(logs)
            self._send(frames.Saved(epoch, step, str(file), outputs, metric, value, mode))
        self._saved_s = time.monotonic()
        self._cost_s = self._saved_s - begun_s

    def _last(self, logs: Mapping[str, Any]) -> Mapping[str, Any]:
        """The numbers of the last epoch that ended."""
        if logs:
            return logs
        (history,) = (c for c in self._remembering if isinstance(c, keras.callbacks.History))
        return {name: values[-1] for name, values in history.history.items() if values}

    def _value(self, logs: Mapping[str, Any]) -> tuple[str, float | None, str]:
        """How good the model is, by what its callbacks look at."""
        numbers = flat_metrics(logs)
        watched = [str(c.monitor) for c in self._remembering if hasattr(c, "monitor")]
        name = next((name for name in (*watched, "val_loss", "loss") if name in numbers), "")
        return name, numbers.get(name), "max" if view.grows(name) else "min"

    def _outputs(self) -> dict[str, str]:
        """Copies: a callback may write the same file again while this one is on its way to the store."""
        callbacks.flush(self._remembering)
        found: dict[str, str] = {}
        for place in callbacks.written(self._folder):
            original = self._folder / place
            stat = original.stat()
            signature = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            known = self._copies.get(place)
            if known is None or known[0] != signature:
                copy = self._folder / "copies" / f"{self._count}-{len(found)}"
                copy.parent.mkdir(exist_ok=True)
                shutil.copyfile(original, copy)
                known = self._copies[place] = (signature, os.fspath(copy))
            found[place] = known[1]
        return found
