"""The numbers of a model ↔ safetensors: variables by index, so that seed generators and optimizer slots go with them.

    model/<i>             model.variables
    optimizer/<i>         optimizer.variables
    extra/rnn/<layer>/<i> states of stateful RNNs, which `model.variables` leaves out
    extra/idf/<layer>     inverse document frequencies of lookups
    other/<layer>/<name>/<i>  variables of other optimizers, that a model with its own `train_step` has as attributes
    metric/<i>            model.metrics_variables, in a checkpoint only: `fit` resets them at each epoch
    beside/<…>            what else a checkpoint holds (models/callback_state.py)

Keys count in the order of `model.variables` and of the flattened layers; both are the same wherever the same config is built.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from kafka_jupyter.errors import CannotTravel, DoesNotFit, StoreError
from kafka_jupyter.models.describe import has_own_step

Array = np.ndarray[Any, np.dtype[Any]]

# safetensors.numpy knows none of these: they travel as unsigned integers of their width, under a marker in the header.
_AS_BITS = {"bfloat16": np.uint16, "float8_e4m3fn": np.uint8, "float8_e5m2": np.uint8}
_MARK = "kafka_jupyter"
_VERSION = 1


def dump(model: keras.Model) -> bytes:
    """The state of `model` and its optimizer as it is now."""
    tensors, metadata = _packed(*_collect(model), **_about_others(model))
    return bytes(safetensors.numpy.save(tensors, metadata))


def save_state(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """As `dump`, into a file."""
    tensors, metadata = _packed(*_collect(model), **_about_others(model))
    safetensors.numpy.save_file(tensors, path, metadata)


def save_checkpoint(model: keras.Model, path: str | os.PathLike[str], beside: Mapping[str, Array], about: Mapping[str, Any]) -> None:
    """As `save_state`, with the metrics as they stand, other arrays by name, and JSON. Whatever reads a state reads this as well."""
    arrays, over = _collect(model)
    arrays.update((f"metric/{i}", _array(v)) for i, v in enumerate(model.metrics_variables))
    arrays.update((f"beside/{name}", array) for name, array in beside.items())
    tensors, metadata = _packed(arrays, over, about=about, **_about_others(model))
    safetensors.numpy.save_file(tensors, path, metadata)


def load_beside(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Any]]:
    """The other arrays of a checkpoint and its JSON. Raises StoreError."""
    stored, mark = _read(path)
    if not isinstance(mark.get("about"), dict):
        raise StoreError(store=os.fspath(path), detail="this is not a checkpoint")
    return {key.removeprefix("beside/"): array for key, array in stored.items() if key.startswith("beside/")}, mark["about"]


def load_metrics(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """The metrics of a checkpoint into a model whose metrics have been made. Raises DoesNotFit, StoreError."""
    stored, _ = _read(path)
    for variable, value in _matched(list(model.metrics_variables), _numbered(stored, "metric/", ""), "the metrics", ""):
        variable.assign(value)


def load_state(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """The state in the file into a model as `rebuild` made it. Raises DoesNotFit or StoreError, and then nothing was assigned."""
    load_into(model, model.optimizer, path)


def load_into(model: keras.Model, optimizer: Any, path: str | os.PathLike[str], run_id: str = "") -> None:
    """The state in the file into this model and this optimizer object (None: weights only), so that a following `fit` goes on exactly.

    Count, shapes and types are compared before anything is assigned. Raises DoesNotFit, StoreError.
    """
    stored, metadata = _read(path)
    plan = _plan_model(model, stored, run_id)
    if optimizer is not None:
        plan += _plan_optimizer(model, optimizer, stored, metadata.get("over"), "optimizer/", run_id)
    for key, other in others(model):
        over = metadata.get("others", {}).get(key)
        if over is not None:
            plan += _plan_optimizer(model, other, stored, over, f"other/{key}/", run_id)
    for variable, value in plan:
        variable.assign(value)
    if optimizer is not None and metadata.get("over") is None and not optimizer.built and not has_own_step(model):
        optimizer.build(model.trainable_variables)
    for index, layer in enumerate(model._flatten_layers()):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # mean and variance are constants that it derives from its variables
        if f"extra/idf/{index}" in stored:
            layer.idf_weights_const = layer.idf_weights.value()


def values(model: keras.Model, path: str | os.PathLike[str]) -> list[tuple[keras.Variable, Array]]:
    """What the file holds for each variable of the model, which stays as it is. Raises DoesNotFit, StoreError."""
    stored, _ = _read(path)
    # Lookups keep TensorFlow's own variables, which no training changes.
    return [(variable, value) for variable, value in _plan_model(model, stored, "") if isinstance(variable, keras.Variable)]


def _collect(model: keras.Model) -> tuple[dict[str, Array], list[int] | None]:
    """Arrays by key, and which variables the optimizer was built for."""
    arrays = {f"model/{i}": _array(v) for i, v in enumerate(model.variables)}
    optimizer = model.optimizer
    over = None
    if optimizer is not None:
        arrays.update((f"optimizer/{i}", _array(v)) for i, v in enumerate(optimizer.variables))
        over = _trained_indices(model, optimizer) if optimizer.built else None
    arrays.update((key, _array(v)) for key, v in _extras(model))
    for key, other in others(model):
        arrays.update((f"other/{key}/{i}", _array(v)) for i, v in enumerate(other.variables))
    return arrays, over


def others(model: keras.Model) -> list[tuple[str, Any]]:
    """The optimizers of a model beside that of `compile`, by where they hang: a GAN has one for each of its halves."""
    found: dict[int, tuple[str, Any]] = {}
    for index, layer in enumerate(model._flatten_layers()):
        for name, value in vars(layer).items():
            if isinstance(value, keras.optimizers.Optimizer) and name not in ("_optimizer", "optimizer"):
                found.setdefault(id(value), (f"{index}/{name}", value))
    return list(found.values())


def _about_others(model: keras.Model) -> dict[str, Any]:
    """For the metadata: which variables each of them was built for."""
    about = {key: _trained_indices(model, other) for key, other in others(model) if other.built}
    return {"others": about} if about else {}


def _packed(arrays: dict[str, Array], over: list[int] | None, **more: Any) -> tuple[dict[str, Array], dict[str, str]]:
    """What safetensors writes: tensors and metadata."""
    dtypes = {key: array.dtype.name for key, array in arrays.items() if array.dtype.name in _AS_BITS}
    tensors = {key: array.view(_AS_BITS[dtypes[key]]) if key in dtypes else array for key, array in arrays.items()}
    # One key: safetensors writes several in any order, and the same state should be the same bytes.
    return tensors, {_MARK: json.dumps({"v": _VERSION, "dtypes": dtypes, "over": over, **more}, sort_keys=True)}


def _array(variable: Any) -> Array:
    """A contiguous array; not ascontiguousarray, which makes a 0-d variable 1-d."""
    value = variable.value if isinstance(variable, keras.Variable) else variable
    return np.asarray(value.numpy(), order="C")


def _trained_indices(model: keras.Model, optimizer: Any) -> list[int]:
    """Which of the model's variables the optimizer was built for: `trainable` may have changed since."""
    places = {id(v): i for i, v in enumerate(model.variables)}
    try:
        return [places[id(v)] for v in optimizer._trainable_variables]
    except KeyError:
        raise CannotTravel(
            what=f"the optimizer {optimizer.name!r}",
            where=f"model {model.name!r}",
            why="it was built for variables of another model",
            way_out="Compile the model with a new optimizer.",
        ) from None


def _extras(model: keras.Model) -> Iterator[tuple[str, Any]]:
    for index, layer in enumerate(model._flatten_layers()):
        states = getattr(layer, "states", None)
        if states is not None:
            for i, state in enumerate(keras.tree.flatten(states)):
                yield f"extra/rnn/{index}/{i}", state
        if getattr(layer, "output_mode", None) == "tf_idf" and hasattr(layer, "idf_weights"):
            yield f"extra/idf/{index}", layer.idf_weights


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Any]]:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            mark = json.loads((file.metadata() or {}).get(_MARK, "{}"))
            if mark.get("v") != _VERSION:
                raise ValueError(f"its version is {mark.get('v')!r}")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
            for key, name in mark["dtypes"].items():
                if name not in _AS_BITS:
                    raise ValueError(f"an unknown type {name!r}")
                tensors[key] = tensors[key].view(getattr(ml_dtypes, name))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, safetensors.SafetensorError) as error:
        raise StoreError(store=os.fspath(path), detail=f"this is not the state of a model: {error}") from error
    return tensors, mark


def _numbered(stored: dict[str, Array], prefix: str, run_id: str) -> list[Array]:
    count = sum(key.startswith(prefix) for key in stored)
    try:
        return [stored[f"{prefix}{i}"] for i in range(count)]
    except KeyError as missing:
        raise DoesNotFit(run_id=run_id, detail=f"{missing} is missing in it") from None


def _matched(variables: list[Any], values: list[Array], what: str, run_id: str) -> list[tuple[Any, Array]]:
    if len(variables) != len(values):
        raise DoesNotFit(run_id=run_id, detail=f"{what} has {len(variables)} variables, the result {len(values)}")
    for variable, value in zip(variables, values, strict=True):
        here = (tuple(variable.shape), keras.backend.standardize_dtype(variable.dtype))
        if here != (value.shape, value.dtype.name):
            name = getattr(variable, "path", getattr(variable, "name", "?"))
            raise DoesNotFit(run_id=run_id, detail=f"{name} is {here[1]}{list(here[0])}, in the result {value.dtype}{list(value.shape)}")
    return list(zip(variables, values, strict=True))


def _plan_model(model: keras.Model, stored: dict[str, Array], run_id: str) -> list[tuple[Any, Array]]:
    plan = _matched(list(model.variables), _numbered(stored, "model/", run_id), f"model {model.name!r}", run_id)
    live = dict(_extras(model))
    for key in sorted(key for key in stored if key.startswith("extra/")):
        if key not in live:
            raise DoesNotFit(run_id=run_id, detail=f"model {model.name!r} has no place for {key}")
        plan += _matched([live[key]], [stored[key]], key, run_id)
    return plan


def _plan_optimizer(
    model: keras.Model, optimizer: Any, stored: dict[str, Array], over: Any, prefix: str, run_id: str
) -> list[tuple[Any, Array]]:
    values = _numbered(stored, prefix, run_id)
    if over is not None and not optimizer.built:
        if not isinstance(over, list) or any(type(i) is not int or not 0 <= i < len(model.variables) for i in over):
            raise DoesNotFit(run_id=run_id, detail="its optimizer was built for other variables")
        optimizer.build([model.variables[i] for i in over])  # an unbuilt optimizer would silently take nothing
    return _matched(list(optimizer.variables), values, f"optimizer {optimizer.name!r}", run_id)
