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
import msgspec
import numpy as np
import tensorflow as tf
from keras.src.backend import compute_output_spec  # what `fit` builds an unbuilt model with
from keras.src.trainers.data_adapters import array_slicing, get_data_adapter  # how it looks at its data
from keras.src.utils.rng_utils import get_random_seed  # no public name

from kafka_jupyter.errors import CannotTravel
from kafka_jupyter.models import allowlist, byvalue, callbacks, data, describe, precheck, probe, state, usercode
from kafka_jupyter.models.digest import digest
from kafka_jupyter.protocol.task import CallbackSpec, FitArguments, Requirements


@dataclasses.dataclass(frozen=True)
class CapturedCode:
    """What goes by value. `objects`: as byvalue.load takes them. `model`: the model is among them."""

    objects: bytes
    model: bool
    own: list[str]
    files: dict[str, str]  # of the modules that are sent along: path below their folder → text
    like: str  # the same for the same code and objects (models/likeness.py)


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
    check_rtol: float | None
    requirements: Requirements
    versions: dict[str, str]
    notes: list[str]  # what the snapshot freezes, a line each
    document: dict[str, Any]
    iterations: int
    code: CapturedCode | None = None

    def digest(self, leaf_sha256s: list[str]) -> str:
        """What --attach compares; the store knows the sha256 of each leaf."""
        document = self.document
        if self.code is not None:
            document = {**document, "code": [self.code.like, self.code.files]}
        return digest(document, self.structure, leaf_sha256s, self.fit, self.callbacks, self.iterations)


def capture_fit(
    model: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    progress: data.Progress | None = None,
    trusted: usercode.Included | None = None,
) -> CapturedFit:
    """What `model.fit(*args, **kwargs)` would train. Nothing in the model changes, but an unbuilt one is built as `fit` would build it.

    `progress(elements, of)` is called while a tf.data.Dataset is read. `trusted`: what a person wrote themselves may travel, with these
    modules; without it only what Keras itself can be told as data. Raises CannotTravel; TypeError and ValueError as `fit` does.
    """
    arguments = _bound(args, kwargs)
    if isinstance(model, keras.Model) and not model.compiled:
        raise ValueError("You must call `compile()` before calling `fit()`.")
    by_value = None if trusted is None else ByValue(trusted)
    as_code = not _is_data(model, by_value)
    _check_dataset(arguments)
    own_callbacks: dict[str, Any] | None = None if by_value is None else {}
    specs = callbacks.capture(arguments["callbacks"], own_callbacks)
    fit = _fit_arguments(arguments)
    steps = data.steps_taken(fit.steps_per_epoch, model.steps_per_execution) if fit.steps_per_epoch else None
    encoded = data.encode(arguments, steps, fit.epochs - fit.initial_epoch, progress, by_value is not None)
    _build(model, encoded, fit)
    document, as_code = _described(model, as_code, by_value)
    config = describe.to_json(document)
    code = None
    if by_value is not None:
        code = by_value.captured(model if as_code else None, model, {**(own_callbacks or {}), **encoded.objects})
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
        parameters=sum(math.prod(variable.shape) for variable in model.weights),
        seed=_seed(),
        dtype_policy=model.dtype_policy.name,
        check_rtol=None if as_code or encoded.objects else probe.rtol(model),  # what a person wrote may count its calls
        requirements=_requirements(model, encoded.leaves, specs, by_value if code is not None else None),
        versions=versions(),
        notes=encoded.notes,
        document=document,
        iterations=int(keras.ops.convert_to_numpy(model.optimizer.iterations)) if model.optimizer is not None else 0,
        code=code,
    )


class ByValue:
    """What a person wrote themselves, on its way into one piece of bytes."""

    def __init__(self, included: usercode.Included) -> None:
        self._included = included
        self.travelling = usercode.Travelling(included.modules)

    def captured(self, own_model: keras.Model | None, model: keras.Model, others: dict[str, Any]) -> CapturedCode | None:
        """None if there is nothing. `own_model`: the model, if it goes by value; else what others say of `model` is found on the other
        side, where it was built from data. Raises CannotTravel."""
        things = {**({} if own_model is None else {"model": own_model}), **others}
        if not things:
            return None
        beside = [*model.variables, *(model.optimizer.variables if model.optimizer is not None else ())]
        known = {} if own_model is not None else byvalue.tokens(model)
        pickled = usercode.pickled(things, beside, known, self.travelling)
        like = self.travelling.likeness.of(pickled)
        return CapturedCode(pickled, own_model is not None, list(self.travelling.own), self._included.files, like)


def _is_data(model: Any, by_value: ByValue | None) -> bool:
    """Whether all of it is Keras' own. Raises CannotTravel where it has to be."""
    try:
        precheck.check(model)
    except CannotTravel:
        if by_value is None or not isinstance(model, keras.Model):
            raise
        return False
    return True


def _described(model: keras.Model, as_code: bool, by_value: ByValue | None) -> tuple[dict[str, Any], bool]:
    """The document of the model, and whether the model itself has to go by value."""
    if not as_code:
        try:
            document = describe.describe(model)
            allowlist.check(describe.to_json(document))
        except CannotTravel:
            if by_value is None:
                raise
        else:
            return document, False
    return describe.globals_only(model), True


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
    alone = {**encoded.structure, "y": None, "sample_weight": None, "validation_data": None}
    x = data.load(alone, encoded.leaves, encoded.objects)["x"]
    if isinstance(x, (data.Elements, keras.utils.PyDataset)):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(x[0])
        rows = None
    else:
        rows = min(fit.batch_size or 32, encoded.rows or 1)
    symbolic = keras.tree.map_structure(lambda a: _symbolic(a, rows), x)
    try:
        compute_output_spec(model, symbolic, training=False)
    except NotImplementedError:  # a model that is only trained, by its own `train_step`: what it is made of may be built
        if all(layer.built for layer in model._flatten_layers(include_self=False)):
            return
        raise
    if not model.built:
        raise CannotTravel(
            what=f"model {model.name!r}", where="the cell", why="it cannot be built", way_out="Call it on one row before `fit`."
        )


def _symbolic(array: Any, rows: int | None) -> keras.KerasTensor:
    shape = tuple(array.shape) if rows is None else (rows, *array.shape[1:])
    name = "string" if getattr(array.dtype, "kind", "") in ("S", "U") else array.dtype.name
    return keras.KerasTensor(shape, keras.config.floatx() if keras.backend.is_float_dtype(name) else name)


_UNBUILT_SLOTS = 2  # of an optimizer that has not made its own yet: Adam's number


def _requirements(model: keras.Model, leaves: list[data.Array], specs: list[CallbackSpec], by_value: ByValue | None = None) -> Requirements:
    """The backend's version is left open: what travels is Keras' own format, which is the same on each of them.

    Memory is what the training needs in any case: the data once, the weights, a gradient and the optimizer's slots for those that
    are trained. Activations are left out, because a run must not wait for memory that it would never have used.
    """
    trained = _bytes(model.trainable_variables)
    optimizer = model.optimizer
    slots = _bytes(optimizer.variables) if optimizer is not None and optimizer.built else _UNBUILT_SLOTS * trained
    memory = sum(leaf.nbytes for leaf in leaves) + _bytes(model.variables) + trained + slots
    network = any(spec.class_name == "RemoteMonitor" for spec in specs)
    needs = Requirements(keras=keras.__version__, backend=keras.config.backend(), memory=memory, network=network)
    if by_value is None:
        return needs
    # What is pickled is Keras' insides, which may be others in the next patch.
    packages = {**by_value.travelling.packages(), "keras": f"=={keras.__version__}"}
    return msgspec.structs.replace(needs, code=True, python=platform.python_version(), packages=packages)


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
