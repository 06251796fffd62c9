"""The JSON document and the state → a compiled Keras model, exactly as it was."""

from __future__ import annotations

import os
from typing import Any

import keras
from keras.src.saving.serialization_lib import SafeModeScope  # without a public name

from kafka_jupyter.errors import CannotTravel, DoesNotFit
from kafka_jupyter.models import allowlist
from kafka_jupyter.models.describe import keras_globals, optimizers_of
from kafka_jupyter.models.state import load_state

__all__ = ["build", "keras_globals"]


def settings_of(config: bytes) -> dict[str, Any]:
    """Under which settings of Keras a model was made that comes by value: the document that `keras_globals` takes. Raises CannotTravel."""
    return allowlist.check_globals(config)


def build(config: bytes, state_path: str | os.PathLike[str]) -> keras.Model:
    """The model, compiled, with its variables, optimizer slots and seed generators as they were captured.

    `fit` should run inside `keras_globals(allowlist.check(config))` as well: metrics and data are cast to floatx.
    Raises CannotTravel (allow-list, or Keras cannot make it), DoesNotFit and StoreError (the state).
    """
    document = allowlist.check(config)
    # Not only `safe_mode=True`: Keras lets what is set for the process, such as enable_unsafe_deserialization, go before its arguments.
    with SafeModeScope(True), keras_globals(document):
        model = _architecture(document)
        _apply_flags(model, document)
        _compile(model, document)
        load_state(model, state_path)
    return model


def settled(model: Any, state_path: str | os.PathLike[str]) -> keras.Model:
    """A model that came by value, with its variables and optimizer slots. Raises CannotTravel, DoesNotFit, StoreError."""
    if not isinstance(model, keras.Model):
        raise CannotTravel(what="the model", where="the task", why="its code holds no model", way_out="Submit it again.")
    load_state(model, state_path)
    return model


def _architecture(document: dict[str, Any]) -> keras.Model:
    try:
        model = keras.saving.deserialize_keras_object(document["model"], custom_objects={}, safe_mode=True)
    except (TypeError, ValueError, KeyError, AttributeError, ImportError, RuntimeError, NotImplementedError) as error:
        raise _unbuildable(str(error)) from error
    if not isinstance(model, keras.Model) or not model.built:
        raise _unbuildable("it is not the configuration of a built model")
    return model


def _unbuildable(why: str) -> CannotTravel:
    return CannotTravel(what="the model", where="the task", why=why[:500], way_out="Check the Keras versions of notebook and worker.")


def _apply_flags(model: keras.Model, document: dict[str, Any]) -> None:
    layers, flags = model._flatten_layers(), document["trainable"]
    if len(layers) != len(flags["layers"]) or len(model.variables) != len(flags["variables"]):
        raise DoesNotFit(
            detail=f"{len(layers)} layers and {len(model.variables)} variables were rebuilt, "
            f"{len(flags['layers'])} and {len(flags['variables'])} were captured"
        )
    for i, policy in document["policies"]:
        layers[i]._dtype_policy = keras.dtype_policies.deserialize(policy)
    for layer, flag in zip(layers, flags["layers"], strict=True):
        layer._trainable = flag  # the property would set all layers below as well
    for variable, flag in zip(model.variables, flags["variables"], strict=True):
        if variable.trainable != flag:
            variable.trainable = flag


def _compile(model: keras.Model, document: dict[str, Any]) -> None:
    arguments = keras.saving.deserialize_keras_object(document["compile"], custom_objects={}, safe_mode=True)
    model.compile(**arguments)
    if document["no_decay"]:
        excluded = [model.variables[i] for i in document["no_decay"]]
        optimizers_of(model)[-1].exclude_from_weight_decay(var_list=excluded)
