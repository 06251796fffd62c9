"""One `fit`, as the Task describes it: from files to a trained model and what there is to say about it."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.trainers.data_adapters import array_slicing  # how `fit` splits: no public name

from kafka_jupyter.models import allowlist, callbacks, data, probe, rebuild, state
from kafka_jupyter.protocol.task import FitArguments, Task
from kafka_jupyter.store import arrays
from kafka_jupyter.training.adapter import ShuffledArrays


@dataclasses.dataclass(frozen=True)
class Result:
    """`files`: `state` (the layout of the task's own state part) and `outcome` (JSON, see `_outcome`). `outputs`: what callbacks
    wrote, path as the person gave it → local file."""

    files: dict[str, str]
    outputs: dict[str, str]


class Fit:
    """A Task with its parts as local files. `run` may be called once."""

    def __init__(self, task: Task, inputs: Mapping[str, str], folder: str) -> None:
        self.task = task
        self._folder = pathlib.Path(folder)
        self._config = pathlib.Path(inputs["model"]).read_bytes()
        self._state = inputs["state"]
        self.structure = task.data.structure
        self.leaves = [arrays.load(inputs[f"data/{i}"]) for i in range(len(task.data.leaves))]

    def run(self, reporter: keras.callbacks.Callback) -> Result:
        """Trains; `reporter` is called behind all other callbacks. Raises whatever Keras raises, CannotTravel, DoesNotFit, StoreError."""
        document = allowlist.check(self._config)
        keras.utils.set_random_seed(self.task.seed)  # seed generators come with the state; this is for what is made anew
        with rebuild.keras_globals(document):
            model = self._model = rebuild.build(self._config, self._state)
            built = callbacks.build(self.task.callbacks, self._folder)
            # Keras would append its History behind our reporter, which must see the last word of everybody.
            history = next((c for c in built if isinstance(c, keras.callbacks.History)), None) or keras.callbacks.History()
            others = [c for c in built if c is not history]
            model.fit(
                **fit_arguments(self.task.fit, self.task.seed, data.load(self.structure, self.leaves)),
                callbacks=[*others, history, reporter],
                verbose=0,
            )
            return self._keep(model, built, history)

    def first_loss(self) -> float:
        """The loss of the first rows with the state from before the training, which does not notice: no second model is built.

        To be called once `run` has built the model. Raises whatever Keras raises, DoesNotFit, StoreError.
        """
        return probe.first_batch_loss(
            self._model,
            self.structure,
            self.leaves,
            class_weight=_class_weight(self.task.fit),
            values=state.values(self._model, self._state),
        )

    def _keep(self, model: keras.Model, built: Sequence[keras.callbacks.Callback], history: keras.callbacks.History) -> Result:
        files = {"state": os.fspath(self._folder / "state.safetensors"), "outcome": os.fspath(self._folder / "outcome.json")}
        state.save_state(model, files["state"])
        outcome = json.dumps(_outcome(model, built, history), allow_nan=False)
        pathlib.Path(files["outcome"]).write_text(outcome, "utf-8")
        return Result(files, callbacks.outputs(self.task.callbacks, self._folder))


def _outcome(model: keras.Model, built: Sequence[keras.callbacks.Callback], history: keras.callbacks.History) -> dict[str, Any]:
    """What the person's `History` and callbacks show afterwards. A value that is not finite is {"$float": "nan"}, an array a list."""
    (seen,) = callbacks.final_state([history])
    return {
        "history": seen["history"],
        "epoch": seen["epoch"],
        "params": {"epochs": history.params["epochs"], "steps": history.params["steps"]},
        "callbacks": callbacks.final_state(built),
        "stop_training": bool(model.stop_training),
    }


def fit_arguments(fit: FitArguments, seed: int, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `Model.fit`, except callbacks and verbose. `fields`: x, y, sample_weight and validation_data as data.load has them.

    The same call in any process gives the same training.
    """
    x, y, sample_weight, validation = (_usable(fields.get(name)) for name in ("x", "y", "sample_weight", "validation_data"))
    class_weight = _class_weight(fit)
    arguments: dict[str, Any] = {
        "batch_size": fit.batch_size,
        "epochs": fit.epochs,
        "initial_epoch": fit.initial_epoch,
        "steps_per_epoch": fit.steps_per_epoch,
        "shuffle": False,
        "validation_freq": fit.validation_freq,
        "validation_steps": fit.validation_steps,
        "validation_batch_size": fit.validation_batch_size,
    }
    if isinstance(x, tf.data.Dataset):  # batches already, in the order in which they were read
        return {**arguments, "x": x, "validation_data": validation, "class_weight": class_weight}
    if fit.validation_split and validation is None:
        # As `fit` does it: the last rows are split off before anything is shuffled.
        (x, y, sample_weight), validation = array_slicing.train_validation_split((x, y, sample_weight), fit.validation_split)
    arguments["validation_data"] = validation
    if not fit.shuffle:
        return {**arguments, "x": x, "y": y, "sample_weight": sample_weight, "class_weight": class_weight}
    shuffled = ShuffledArrays(
        x,
        y,
        sample_weight,
        seed=seed,
        initial_epoch=fit.initial_epoch,
        batch_size=fit.batch_size,
        steps_per_epoch=fit.steps_per_epoch,
        class_weight=class_weight,
    )
    return {**arguments, "x": shuffled}


def _class_weight(fit: FitArguments) -> dict[int, float] | None:
    """As Keras wants it: JSON has no whole numbers as keys."""
    return None if fit.class_weight is None else {int(key): value for key, value in fit.class_weight.items()}


def _usable(field: Any) -> Any:
    """Datasets as datasets, strings as tensors: Keras takes no arrays of Python objects, which is how strings are stored."""
    if isinstance(field, data.Elements):
        return field.dataset()
    return keras.tree.map_structure(
        lambda part: tf.convert_to_tensor(part, tf.string) if isinstance(part, np.ndarray) and part.dtype.hasobject else part, field
    )
