"""A live Keras model → the JSON document from which `rebuild` makes the same model elsewhere.

`keras.saving.serialize_keras_object` says most of it. What it leaves out or gets wrong stands beside it in the document:

    globals    dtype policy, floatx, epsilon and image data format under which the model was made
    compile    the arguments of `compile`, from the live attributes (they may have been set afterwards)
    trainable  the flags of layers and of single variables
    policies   dtype policies of (nested) models, which a Functional's config does not hold
    no_decay   the variables that are excluded from weight decay
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import keras
from keras.src.saving.serialization_lib import ObjectSharingScope  # what Keras' own saving uses: no public name

from kafka_jupyter.errors import CannotTravel

VERSION = 1
_LOOKUPS = ("TextVectorization", "StringLookup", "IntegerLookup")

Node = dict[str, Any]


def describe(model: keras.Model) -> Node:
    """The document. The model must be built and compiled, and have passed the pre-check."""
    with ObjectSharingScope():
        architecture = _serialized(model, f"model {model.name!r}")
    _settle_sharing(model, architecture)
    _drop_nested_compilation(architecture)
    _fill_vocabularies(model, architecture)
    layers = model._flatten_layers()
    return {
        "v": VERSION,
        "model": architecture,
        "compile": _compilation(model),
        "globals": _globals(model),
        "trainable": {"layers": [bool(x._trainable) for x in layers], "variables": [bool(v.trainable) for v in model.variables]},
        "policies": [
            [i, keras.dtype_policies.serialize(layer.dtype_policy)] for i, layer in enumerate(layers) if isinstance(layer, keras.Model)
        ],
        "no_decay": _excluded_from_decay(model),
    }


def has_own_step(model: keras.Model) -> bool:
    """Whether a person has written how a batch is trained: which optimizer is used for which variables, nobody else knows then."""
    step = next(vars(kind)["train_step"] for kind in type(model).__mro__ if "train_step" in vars(kind))
    return not str(step.__module__).startswith("keras.")


def globals_only(model: keras.Model) -> Node:
    """The document of a model that goes by value: under which settings of Keras it was made."""
    return {"v": VERSION, "by_value": True, "globals": _globals(model)}


def _globals(model: keras.Model) -> Node:
    return {
        "dtype_policy": keras.dtype_policies.serialize(model.dtype_policy),
        "floatx": keras.config.floatx(),
        "epsilon": keras.config.epsilon(),
        "image_data_format": keras.config.image_data_format(),
    }


def to_json(document: Node) -> bytes:
    try:
        return json.dumps(document, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise CannotTravel(
            what="the configuration", where="the model", why=f"it is not plain data: {error}", way_out="Use plain values as arguments."
        ) from error


def optimizers_of(model: keras.Model) -> list[Any]:
    """The optimizer and those inside it: a LossScaleOptimizer wraps the one that applies weight decay."""
    found = []
    optimizer = model.optimizer
    while optimizer is not None:
        found.append(optimizer)
        optimizer = getattr(optimizer, "inner_optimizer", None)
    return found


def _serialized(thing: Any, where: str) -> Any:
    try:
        return keras.saving.serialize_keras_object(thing)
    except (TypeError, ValueError, NotImplementedError, AttributeError) as error:
        raise CannotTravel(
            what="an object without a configuration", where=where, why=str(error)[:300], way_out="Use a built-in equivalent."
        ) from error


def _compilation(model: keras.Model) -> Node:
    given = model._compile_config.config
    automatic = model.jit_compile == (not model.run_eagerly and model._resolve_auto_jit_compile())
    loss = _serialized(given["loss"], "the loss")
    _fill_loss_arguments(given["loss"], loss)
    return {
        "optimizer": _serialized(model.optimizer, "the optimizer"),  # as it is: a LossScaleOptimizer already stands in it
        "auto_scale_loss": False,
        "loss": loss,
        "loss_weights": _serialized(given["loss_weights"], "the loss weights"),
        "metrics": _serialized(given["metrics"], "the metrics"),
        "weighted_metrics": _serialized(given["weighted_metrics"], "the weighted metrics"),
        "run_eagerly": bool(model.run_eagerly),
        "steps_per_execution": int(model.steps_per_execution),
        # What "auto" means here says nothing about the worker's device.
        "jit_compile": "auto" if automatic else bool(model.jit_compile),
    }


def _fill_loss_arguments(live: Any, config: Any) -> None:
    """`Huber.get_config` forgets delta (a Keras bug): take the arguments of the loss function from the live object."""
    if isinstance(live, dict):
        for key, value in live.items():
            _fill_loss_arguments(value, config[key])
    elif isinstance(live, (list, tuple)):
        for value, part in zip(live, config, strict=True):
            _fill_loss_arguments(value, part)
    elif isinstance(config, dict) and isinstance(live, keras.losses.Loss):
        for key, value in getattr(live, "_fn_kwargs", {}).items():
            config["config"].setdefault(key, _serialized(value, "the loss"))


def _dicts(node: Any) -> Iterator[Node]:
    """Every JSON object in `node`, outer ones first."""
    waiting = [node]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            yield found
            waiting.extend(reversed(list(found.values())))
        elif isinstance(found, (list, tuple)):
            waiting.extend(reversed(found))


def _settle_sharing(model: keras.Model, architecture: Node) -> None:
    """Refuse layers that nested models share, and drop Keras' marks of shared objects.

    Keras marks an object from its second appearance on, but often on a copy of the first one's config, so that the first stays
    unmarked: a shared layer would silently come back twice. (Within one graph a layer appears once, however often it is called.)
    All other objects in a config are stateless, and a mark is an id of this process, which may be that of an object long gone.
    """
    for found in _dicts(architecture):
        if found.pop("shared_object_id", None) is None or not isinstance(found.get("config"), dict):
            continue
        if str(found["module"]).startswith(("keras.layers", "keras.src.models")) or found["class_name"] == "Sequential":
            raise CannotTravel(
                what=f"layer {found['config'].get('name')!r}",
                where=f"model {model.name!r}",
                why="two nested models share it, and Keras cannot write that down",
                way_out="Call the shared layer in one graph, or make it a model of its own that the outer model calls.",
            )


def _drop_nested_compilation(architecture: Node) -> None:
    """How a nested model was compiled does not matter to the outer `fit`, and ours stands in `compile`."""
    for found in _dicts(architecture):
        found.pop("compile_config", None)


def _fill_vocabularies(model: keras.Model, architecture: Node) -> None:
    """Put what a lookup has learned, or read from a file, into its config as a list."""
    layers: dict[str, list[Any]] = {}
    for layer in model._flatten_layers():
        if type(layer).__name__ in _LOOKUPS:
            layers.setdefault(layer.name, []).append(layer)
    for found in _dicts(architecture):
        if found.get("class_name") not in _LOOKUPS:
            continue
        named = layers.get(found["config"]["name"], [])
        if len(named) != 1:
            raise CannotTravel(
                what=f"the layer {found['config']['name']!r}",
                where=f"model {model.name!r}",
                why=f"{len(named)} lookup layers have this name",
                way_out="Give each layer its own name.",
            )
        vocabulary, idf = learned(named[0])
        if vocabulary:
            found["config"]["vocabulary"] = vocabulary
            found["config"]["idf_weights"] = idf


def learned(layer: Any) -> tuple[list[Any], list[float] | None]:
    """The vocabulary of a lookup, and the inverse document frequencies where it has them."""
    lookup = getattr(layer, "_lookup_layer", layer)
    words = [word.item() if hasattr(word, "item") else word for word in lookup.get_vocabulary(include_special_tokens=False)]
    if lookup.output_mode != "tf_idf" or not words:
        return words, None
    weights = keras.ops.convert_to_numpy(lookup.idf_weights)
    start = lookup._token_start_index()
    return words, [float(weight) for weight in weights[start : start + len(words)]]


def _excluded_from_decay(model: keras.Model) -> list[int]:
    """Indices into `model.variables`; the optimizer's own record of it is by object identity or by name pattern."""
    choosers = [
        o
        for o in optimizers_of(model)
        if getattr(o, "_exclude_from_weight_decay", None) or getattr(o, "_exclude_from_weight_decay_pattern", None) is not None
    ]
    return [i for i, v in enumerate(model.variables) if any(not o._use_weight_decay(v) for o in choosers)]


@contextlib.contextmanager
def keras_globals(document: Node) -> Iterator[None]:
    """Keras as it was set where the model was made; what was set here comes back afterwards."""
    wanted = document["globals"]
    before = (keras.config.dtype_policy(), keras.config.floatx(), keras.config.epsilon(), keras.config.image_data_format())
    _set_globals(keras.dtype_policies.deserialize(wanted["dtype_policy"]), wanted["floatx"], wanted["epsilon"], wanted["image_data_format"])
    try:
        yield
    finally:
        _set_globals(*before)


def _set_globals(policy: Any, floatx: str, epsilon: float, image_data_format: str) -> None:
    keras.config.set_floatx(floatx)
    keras.config.set_epsilon(epsilon)
    keras.config.set_image_data_format(image_data_format)
    keras.config.set_dtype_policy(policy)
