"""One `fit`, as the Task describes it: from files to a trained model and what there is to say about it."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.trainers.data_adapters import array_slicing  # how `fit` splits: no public names here
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter
from keras.src.trainers.data_adapters.data_adapter import DataAdapter
from keras.src.trainers.data_adapters.tf_dataset_adapter import TFDatasetAdapter

from kafka_jupyter.models import allowlist, byvalue, callbacks, data, probe, rebuild, state
from kafka_jupyter.protocol.task import FitArguments, Task
from kafka_jupyter.store import arrays
from kafka_jupyter.training import resume
from kafka_jupyter.training.adapter import OwnBatches, Passes, ResumedArrays, ResumedElements, ShuffledArrays
from kafka_jupyter.training.building import build_before
from kafka_jupyter.training.checkpoint import Checkpointer


@dataclasses.dataclass(frozen=True)
class Result:
    """`files`: `state` (the layout of the task's own state part) and `outcome` (JSON, see `_outcome`). `outputs`: what callbacks
    wrote, path as the person gave it → local file."""

    files: dict[str, str]
    outputs: dict[str, str]


class Fit:
    """A Task with its parts as local files. `run` may be called once."""

    def __init__(self, task: Task, inputs: Mapping[str, str], folder: str, files: Mapping[str, str] | None = None) -> None:
        """`inputs` may hold a `checkpoint` to go on from; `files` are those that callbacks had written then, by place below the folder.
        Raises StoreError."""
        self.task = task
        self._folder = pathlib.Path(folder)
        self._config = pathlib.Path(inputs["model"]).read_bytes()
        self._state = inputs["state"]
        self._inputs = inputs
        self._files = files or {}
        self.point = resume.read(inputs["checkpoint"]) if "checkpoint" in inputs else None
        self.structure = task.data.structure
        self.leaves = [arrays.load(inputs[f"data/{i}"]) for i in range(len(task.data.leaves))]

    @property
    def place(self) -> tuple[int, int]:
        """(epoch, step) where `run` begins."""
        return (self.point.epoch, self.point.step) if self.point else (self.task.fit.initial_epoch, 0)

    def run(self, reporter: keras.callbacks.Callback, checkpointer: Checkpointer, publish: bool = False) -> Result:
        """Trains; `reporter` is called behind all other callbacks, `checkpointer` behind it. `publish`: trains no more, ends as if the
        checkpoint had been the last word.

        Raises whatever Keras raises, CannotTravel, DoesNotFit, StoreError, Suspension.
        """
        by_value = self.task.code is not None and self.task.code.model
        document = rebuild.settings_of(self._config) if by_value else allowlist.check(self._config)
        keras.utils.set_random_seed(self.task.seed)  # seed generators come with the state; this is for what is made anew
        with rebuild.keras_globals(document):
            at = self.point.file if self.point else self._state
            if by_value:
                objects = self._objects(None)
                model = self._model = rebuild.settled(objects.get("model"), at)
            else:
                model = self._model = rebuild.build(self._config, at)
                objects = self._objects(model)
            built = callbacks.build(self.task.callbacks, self._folder, objects)
            # Keras would append its History behind our reporter, which must see the last word of everybody.
            history = next((c for c in built if isinstance(c, keras.callbacks.History)), None) or keras.callbacks.History()
            remembering = built if history in built else [*built, history]
            called = [*(c for c in built if c is not history), history, reporter, checkpointer]
            arguments, passes = self._arguments(model.steps_per_execution, objects)
            checkpointer.watch(remembering, passes)
            built_before = build_before(model, arguments["x"])
            if self.point is not None:
                if publish:  # Keras takes the averages of an optimizer as the weights after at least one epoch
                    arguments["epochs"] = arguments["initial_epoch"] = max(self.point.epoch, 1)
                if self.point.step and not built_before:
                    self._prepare(model, arguments)
                resume.bring_back(self._files, self._folder, built, early=True)
                params = {"verbose": 0, "epochs": self.task.fit.epochs, "steps": self.task.fit.steps_per_epoch or passes.batches}
                called = resume.ResumedCallbacks(
                    called, remembering, self.point, passes, (self._files, self._folder), model=model, **params
                )
            model.fit(**arguments, callbacks=called, verbose=0)
            return self._keep(model, built, history)

    def _objects(self, model: keras.Model | None) -> dict[str, Any]:
        """What came by value, opened now: this runs a person's code. `model`: the one that they may speak of, where it was built from
        data."""
        if self.task.code is None:
            return {}
        library = self._folder / "code"
        for path in self.task.code.files:
            target = library / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._inputs[f"code/{path}"], target)
        sys.path.insert(0, str(library))
        known = byvalue.known_in(model) if model is not None else None
        return byvalue.load(pathlib.Path(self._inputs["code"]).read_bytes(), known)

    def _arguments(self, at_once: int, objects: Mapping[str, Any]) -> tuple[dict[str, Any], Passes]:
        fields = data.load(self.structure, self.leaves, objects)
        return fit_arguments(self.task.fit, self.task.seed, fields, self.place if self.point else None, at_once)

    def _prepare(self, model: keras.Model, arguments: Mapping[str, Any]) -> None:
        """Within an epoch its metrics go on as well; what could not be built before exists only once the model has seen a batch."""
        assert self.point is not None
        batch = next(iter(arguments["x"].get_tf_dataset()))
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        model.test_on_batch(x, y, sample_weight)
        state.load_state(model, self.point.file)

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


def fit_arguments(
    fit: FitArguments, seed: int, fields: Mapping[str, Any], place: tuple[int, int] | None = None, at_once: int = 1
) -> tuple[dict[str, Any], Passes]:
    """The arguments of `Model.fit`, except callbacks and verbose, and how its epochs pass over the data. `fields`: x, y, sample_weight
    and validation_data as data.load has them. `place`: (epoch, step) to go on from. `at_once`: the model's steps per execution.

    The same call in any process gives the same training.
    """
    x, (y, sample_weight, validation) = fields["x"], (_usable(fields.get(name)) for name in ("y", "sample_weight", "validation_data"))
    if fit.validation_split and validation is None and not isinstance(x, (data.Elements, keras.utils.PyDataset)):
        # As `fit` does it: the last rows are split off before anything is shuffled.
        (x, y, sample_weight), validation = array_slicing.train_validation_split((_usable(x), y, sample_weight), fit.validation_split)
    adapter, passes = _adapter(fit, seed, (x, y, sample_weight), place, at_once)
    arguments: dict[str, Any] = {
        "x": adapter,
        "batch_size": fit.batch_size,
        "epochs": fit.epochs,
        "initial_epoch": place[0] if place else fit.initial_epoch,
        "steps_per_epoch": None if place else fit.steps_per_epoch,
        "shuffle": False,
        "validation_data": validation,
        "validation_freq": fit.validation_freq,
        "validation_steps": fit.validation_steps,
        "validation_batch_size": fit.validation_batch_size,
    }
    return arguments, passes


def _adapter(
    fit: FitArguments, seed: int, fields: tuple[Any, Any, Any], place: tuple[int, int] | None, at_once: int
) -> tuple[DataAdapter, Passes]:
    def passes(batches: int) -> Passes:
        return Passes(batches, fit.steps_per_epoch, fit.initial_epoch, at_once)

    x, y, sample_weight = fields
    steps, batch_size, class_weight = fit.steps_per_epoch, fit.batch_size, _class_weight(fit)
    if isinstance(x, data.Elements):  # batches already, in the order in which they were read
        whole = passes(len(x))
        if place:
            return ResumedElements(x, whole, *place, class_weight), whole
        return TFDatasetAdapter(x.dataset(), class_weight=class_weight), whole
    if isinstance(x, keras.utils.PyDataset):
        endless = (steps or 1) * max(1, fit.epochs - fit.initial_epoch)  # one pass over as many as the training takes
        whole = passes(endless if x.num_batches is None else x.num_batches)
        return OwnBatches(x, whole, seed if fit.shuffle else None, place, class_weight), whole
    arrays = (_usable(x), y, sample_weight)
    if place:
        resumed = ResumedArrays(
            *arrays,
            seed=seed if fit.shuffle else None,
            initial_epoch=place[0],
            skip=place[1],
            passes=passes,
            batch_size=batch_size,
            steps_per_epoch=steps,
            class_weight=class_weight,
        )
        return resumed, resumed.passes
    adapter: DataAdapter
    if fit.shuffle:
        adapter = ShuffledArrays(
            *arrays,
            seed=seed,
            initial_epoch=fit.initial_epoch,
            batch_size=batch_size,
            steps_per_epoch=steps,
            class_weight=class_weight,
        )
    else:
        adapter = ArrayDataAdapter(*arrays, batch_size=batch_size, steps=steps, class_weight=class_weight)
    return adapter, passes(adapter.num_batches)


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
