"""A call of `fit` → everything that a worker needs to do it, as plain data."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import platform
import secrets
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend import compute_output_spec  # what `fit` builds an unbuilt model with
from keras.src.trainers.data_adapters import array_slicing, get_data_adapter  # how it looks at its data
from keras.src.utils.rng_utils import get_random_seed  # no public name

from kafka_jupyter.errors import CannotTravel
from kafka_jupyter.models import allowlist, callbacks, data, describe, precheck, probe, state
from kafka_jupyter.models.digest import digest
from kafka_jupyter.protocol.task import CallbackSpec, FitArguments, Requirements


@dataclasses.dataclass(frozen=True)
class CapturedFit:
    """`config` and `state` as rebuild.build takes them; `structure` and `leaves` as data.load does. Leaves are the person's own arrays."""

    config: bytes
    state: bytes
    structure: dict[str, Any]
    leaves: list[data.Array]
    rows: int | None
    fit: FitArguments
    callbacks: list[CallbackSpec]
    live_callbacks: list[Any]
    model: keras.Model
    optimizer: Any
    model_name: str
    parameters: int
    seed: int
    dtype_policy: str
    check_rtol: float
    requirements: Requirements
    versions: dict[str, str]
    notes: list[str]  # what the snapshot freezes, a line each
    document: dict[str, Any]
    iterations: int

    def digest(self, leaf_sha256s: list[str]) -> str:
        """What --attach compares; the store knows the sha256 of each leaf."""
        return digest(self.document, self.structure, leaf_sha256s, self.fit, self.callbacks, self.iterations)


def capture_fit(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], progress: data.Progress | None = None) -> CapturedFit:
    """What `model.fit(*args, **kwargs)` would train. Nothing in the model changes, but an unbuilt one is built as `fit` would build it.

    `progress(elements, of)` is called while a tf.data.Dataset is read. Raises CannotTravel; TypeError and ValueError as `fit` does.
    """
    arguments = _bound(args, kwargs)
    if isinstance(model, keras.Model) and not model.compiled:
        raise ValueError("You must call `compile()` before calling `fit()`.")
    precheck.check(model)
    _check_dataset(arguments)
    specs = callbacks.capture(arguments["callbacks"])
    fit = _fit_arguments(arguments)
    steps = data.steps_taken(fit.steps_per_epoch, model.steps_per_execution) if fit.steps_per_epoch else None
    encoded = data.encode(arguments, steps, fit.epochs - fit.initial_epoch, progress)
    _build(model, encoded, fit)
    document = describe.describe(model)
    config = describe.to_json(document)
    allowlist.check(config)
    return CapturedFit(
        config=config,
        state=state.dump(model),
        structure=encoded.structure,
        leaves=encoded.leaves,
        rows=encoded.rows,
        fit=fit,
        callbacks=specs,
        live_callbacks=callbacks.flat(arguments["callbacks"]),
        model=model,
        optimizer=model.optimizer,
        model_name=model.name,
        parameters=model.count_params(),
        seed=_seed(),
        dtype_policy=model.dtype_policy.name,
        check_rtol=probe.rtol(model),
        requirements=_requirements(model, encoded.leaves),
        versions=versions(),
        notes=encoded.notes,
        document=document,
        iterations=int(keras.ops.convert_to_numpy(model.optimizer.iterations)) if model.optimizer is not None else 0,
    )


def _bound(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    bound = _signature().bind(None, *args, **kwargs)
    bound.apply_defaults()
    return {name: value for name, value in bound.arguments.items() if name != "self"}


@functools.cache
def _signature() -> inspect.Signature:
    return inspect.signature(keras.Model.fit)


def _check_dataset(arguments: dict[str, Any]) -> None:
    """What `fit` does not take beside a tf.data.Dataset raises what it raises there: what was captured would be trained without it."""
    fields = arguments["x"], arguments["y"], arguments["sample_weight"]
    if isinstance(arguments["x"], tf.data.Dataset):
        if arguments["validation_split"] and arguments["validation_data"] is None:
            array_slicing.train_validation_split(fields, arguments["validation_split"])
        get_data_adapter(*fields)


def _fit_arguments(arguments: dict[str, Any]) -> FitArguments:
    weights = arguments["class_weight"]
    frequency = arguments["validation_freq"]
    return FitArguments(
        epochs=int(arguments["epochs"]),
        batch_size=_whole(arguments["batch_size"]),
        initial_epoch=int(arguments["initial_epoch"]),
        steps_per_epoch=_whole(arguments["steps_per_epoch"]),
        shuffle=bool(arguments["shuffle"]),
        verbose=str(arguments["verbose"]),
        validation_split=float(arguments["validation_split"] or 0.0),
        validation_freq=int(frequency) if isinstance(frequency, (int, np.integer)) else [int(n) for n in frequency],
        validation_steps=_whole(arguments["validation_steps"]),
        validation_batch_size=_whole(arguments["validation_batch_size"]),
        class_weight=None if weights is None else {str(int(key)): float(value) for key, value in weights.items()},
    )


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _build(model: keras.Model, encoded: data.Encoded, fit: FitArguments) -> None:
    """As `fit` does it: on the shapes of the first batch, without running it."""
    if all(layer.built for layer in model._flatten_layers()):
        return
    x = data.load({**encoded.structure, "y": None, "sample_weight": None, "validation_data": None}, encoded.leaves)["x"]
    if isinstance(x, data.Elements):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(x[0])
        rows = None
    else:
        rows = min(fit.batch_size or 32, encoded.rows or 1)
    compute_output_spec(model, keras.tree.map_structure(lambda a: _symbolic(a, rows), x), training=False)
    if not model.built:
        raise CannotTravel(
            what=f"model {model.name!r}", where="the cell", why="it cannot be built", way_out="Call it on one row before `fit`."
        )


def _symbolic(array: Any, rows: int | None) -> keras.KerasTensor:
    shape = tuple(array.shape) if rows is None else (rows, *array.shape[1:])
    name = "string" if getattr(array.dtype, "kind", "") in ("S", "U") else array.dtype.name
    return keras.KerasTensor(shape, keras.config.floatx() if keras.backend.is_float_dtype(name) else name)


_UNBUILT_SLOTS = 2  # of an optimizer that has not made its own yet: Adam's number


def _requirements(model: keras.Model, leaves: list[data.Array]) -> Requirements:
    """The backend's version is left open: what travels is Keras' own format, which is the same on each of them.

    Memory is what the training needs in any case: the data once, the weights, a gradient and the optimizer's slots for those that
    are trained. Activations are left out, because a run must not wait for memory that it would never have used.
    """
    trained = _bytes(model.trainable_variables)
    optimizer = model.optimizer
    slots = _bytes(optimizer.variables) if optimizer is not None and optimizer.built else _UNBUILT_SLOTS * trained
    memory = sum(leaf.nbytes for leaf in leaves) + _bytes(model.variables) + trained + slots
    return Requirements(keras=keras.__version__, backend=keras.config.backend(), memory=memory)


def _bytes(variables: list[Any]) -> int:
    return sum(math.prod(v.shape) * tf.as_dtype(v.dtype).size for v in variables)


def _seed() -> int:
    """The person's own (keras.utils.set_random_seed), else a new one: it gives the order of the rows in each epoch."""
    known = get_random_seed()
    return int(known) if known is not None else secrets.randbits(31)


@functools.cache
def _versions() -> tuple[tuple[str, str], ...]:
    import tensorflow

    return (
        ("keras", keras.__version__),
        (keras.config.backend(), tensorflow.__version__),
        ("python", platform.python_version()),
        ("numpy", np.__version__),
    )


def versions() -> dict[str, str]:
    return dict(_versions())
