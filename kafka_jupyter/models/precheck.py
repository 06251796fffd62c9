"""What cannot travel is refused in the cell, by name and place.

`serialize_keras_object` never fails on user code and sometimes replaces it silently (a user's `relu` becomes Keras' own), so the
live objects are walked instead: layers, operations, optimizer, loss, metrics, and what hangs on them.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Iterator
from typing import Any, NoReturn

import keras
from keras.src.models.functional import Functional  # the class of keras.Model(inputs, outputs), without a public name

from kafka_jupyter.errors import CannotTravel
from kafka_jupyter.models import allowlist
from kafka_jupyter.models.describe import optimizers_of

TRUST = "or let it travel: `--trust code`"
# tf.nn functions that compute what Keras' activation of the same name does; by that name they travel.
_TENSORFLOW_ACTIVATIONS = frozenset(
    {"relu", "relu6", "elu", "selu", "silu", "swish", "softmax", "softplus", "softsign", "sigmoid", "tanh", "log_softmax"}
    | {"leaky_relu", "gelu"}
)
_ATTRIBUTES_WITH_CODE = (
    keras.layers.Layer,
    keras.initializers.Initializer,
    keras.regularizers.Regularizer,
    keras.constraints.Constraint,
    keras.optimizers.schedules.LearningRateSchedule,
    keras.optimizers.Optimizer,
    keras.losses.Loss,
    keras.metrics.Metric,
    keras.quantizers.Quantizer,
)
# Keras sets these on every instance, over the class's own.
_SET_BY_KERAS = frozenset({"build", "quantize", "loss"})
_METHODS_THAT_TRAIN = (
    "call", "build", "__call__", "train_step", "test_step", "compute_loss", "compute_metrics", "update_step", "apply_gradients",
    "update_state", "result", "get_config",
)  # fmt: skip


def check(model: Any) -> None:
    """Raises CannotTravel for the first thing in a compiled model that is not Keras' own."""
    if not isinstance(model, keras.Model):
        _refuse(type(model).__name__, "the cell", "it is not a Keras 3 model", "Use a keras.Model.")
    whole = f"model {model.name!r}"
    _check_class(model, whole, "the cell")
    _check_replaced(model, whole, "the cell")
    if not isinstance(model, (keras.Sequential, Functional)):
        _refuse(whole, "the cell", "it is a model without a graph", f"Build it as Sequential or Functional, {TRUST}.")
    for layer, where in _placed_layers(model):
        _check_part(layer, f"layer {layer.name!r}", where)
    for operation in _operations(model):
        _check_operation(operation, whole)
    _check_compilation(model, whole)


def _placed_layers(model: keras.Model) -> Iterator[tuple[Any, str]]:
    """Every layer below `model` with where a person finds it."""
    top = {id(layer): place for place, layer in enumerate(model.layers, 1)}
    for layer in model._flatten_layers(include_self=False):
        place = top.get(id(layer))
        yield layer, f"model {model.name!r}" if place is None else f"the {ordinal(place)} layer of model {model.name!r}"


def ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _operations(model: keras.Model) -> Iterator[Any]:
    for part in model._flatten_layers():
        if isinstance(part, Functional):
            yield from part.operations
        elif isinstance(part, keras.Sequential) and part._functional is not None:
            yield from part._functional.operations


def _check_operation(operation: Any, where: str) -> None:
    """`keras.ops` in a Functional: their classes, and functions among their arguments."""
    if not isinstance(operation, keras.layers.Layer):
        _check_class(operation, f"operation {operation.name!r}", where)
        for name, value in vars(operation).items():
            _check_value(value, f"operation {operation.name!r}", f"{where}, {name}")
    for node in operation._inbound_nodes:
        for value in keras.tree.flatten((node.arguments.args, node.arguments.kwargs)):
            if inspect.isroutine(value) or isinstance(value, functools.partial):
                _check_function(value, f"{where}, an argument of {operation.name!r}")


def _check_compilation(model: keras.Model, whole: str) -> None:
    config = model._compile_config.config
    for optimizer in optimizers_of(model):
        _check_part(optimizer, f"optimizer {type(optimizer).__name__}", whole)
    for field in ("loss", "metrics", "weighted_metrics"):
        for path, value in keras.tree.flatten_with_path(config[field]) if config[field] is not None else ():
            where = f"{whole}, compile({field}=…)" + ("" if not path else " at " + "/".join(map(str, path)))
            if callable(value) and not isinstance(value, (keras.losses.Loss, keras.metrics.Metric)):
                _check_function(value, where)
            elif isinstance(value, (keras.losses.Loss, keras.metrics.Metric)):
                _check_part(value, f"{field} {type(value).__name__}", where)


def _check_part(part: Any, what: str, where: str, depth: int = 0) -> None:
    """A Keras object, its replaced methods, and the code that hangs on its attributes."""
    _check_class(part, what, where)
    _check_replaced(part, what, where)
    if depth > 8:
        return
    for name, value in vars(part).items():
        if name.startswith("__") or name in _SET_BY_KERAS or isinstance(value, keras.layers.Layer):
            continue  # layers below are met by the walk over all layers
        for item in value if isinstance(value, (list, tuple)) and len(value) <= 64 else (value,):
            _check_value(item, what, f"{where}, {name.lstrip('_')}", depth)


def _check_value(value: Any, what: str, where: str, depth: int = 0) -> None:
    if isinstance(value, _ATTRIBUTES_WITH_CODE) and not isinstance(value, keras.layers.Layer):
        _check_part(value, f"{type(value).__name__} of {what}", where, depth + 1)
    elif isinstance(value, types.FunctionType | functools.partial) or (inspect.ismethod(value) and _root(value) != "keras"):
        _check_function(value, f"{what}, {where}", exact=where.endswith("activation"))
    elif callable(value) and hasattr(value, "get_config") and _root(type(value)) != "keras":
        _check_class(value, f"{type(value).__name__} of {what}", where)


def _root(thing: Any) -> str:
    return str(getattr(thing, "__module__", "") or "").partition(".")[0]


def _check_class(part: Any, what: str, where: str) -> None:
    kind = type(part)
    if _root(kind) != "keras":
        _refuse(f"{what} of the class {kind.__name__}", where, f"{kind.__module__}.{kind.__name__} is user code", _use_builtin())
    if kind.__name__ in ("Lambda", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer"):
        _refuse(f"{what} (a {kind.__name__})", where, "it holds code", _use_builtin("keras.ops in a Functional model"))
    patched = _patched_method(kind)
    if patched:
        _refuse(what, where, f"{kind.__name__}.{patched} has been replaced in its class", f"Restore Keras' own {patched}, {TRUST}.")


def _patched_method(kind: type) -> str:
    """The name of a training method that somebody has put over Keras' own in its class, or ""."""
    for cls in kind.__mro__:
        if _root(cls) == "keras":
            for name in _METHODS_THAT_TRAIN:
                method = vars(cls).get(name)
                if isinstance(method, types.FunctionType) and _root(method) != "keras":
                    return name
    return ""


def _check_replaced(part: Any, what: str, where: str) -> None:
    """A method that was set on the instance: Keras drops it without a word."""
    kind = type(part)
    for name, value in vars(part).items():
        # `loss` holds the loss of a compiled model, over an abstract method of that name.
        original = _of_class(kind, name) if callable(value) and name != "loss" else None
        if not isinstance(original, types.FunctionType):
            continue
        inner = inspect.unwrap(value)  # Keras itself wraps `build` on every instance
        if getattr(inner, "__func__", inner) is not original:
            _refuse(f"{what}, method {name}", where, "it was replaced on this object", f"Use an unchanged {kind.__name__}, {TRUST}.")


def _of_class(kind: type, name: str) -> Any:
    """What the class has under this name: inspect.getattr_static, ten times as fast."""
    return next((vars(cls)[name] for cls in kind.__mro__ if name in vars(cls)), None)


def _check_function(function: Any, where: str, exact: bool = True) -> None:
    """`exact`: Keras finds it again by the name that it writes down, so that name must lead back to this very function."""
    name = getattr(function, "__name__", repr(function))
    if name == "<lambda>":
        _refuse("a lambda", where, "it is user code", _use_builtin())
    root = _root(function)
    if root == "tensorflow" and name in _TENSORFLOW_ACTIVATIONS:
        return
    if root != "keras":
        same = f"; it only shares its name with Keras' {name!r}" if name in allowlist.names()[1] else ""
        _refuse(f"the function {name!r}", where, f"{getattr(function, '__module__', '?')}.{name} is user code{same}", _use_builtin())
    if exact and isinstance(function, types.FunctionType) and not _found_by_name(function):
        _refuse(f"the function {name!r}", where, "Keras finds another function under this name", "Use keras.activations.")


def _found_by_name(function: types.FunctionType) -> bool:
    """Whether what Keras writes down for `function` leads back to it (keras.ops.gelu comes back as keras.activations.gelu)."""
    try:
        written = keras.activations.serialize(function)
        if isinstance(written, str):
            return keras.activations.deserialize(written) is function
        return keras.saving.deserialize_keras_object(written, safe_mode=True) is function
    except (TypeError, ValueError):
        return False


def _use_builtin(what: str = "a built-in equivalent") -> str:
    return f"Use {what}, {TRUST}."


def _refuse(what: str, where: str, why: str, way_out: str) -> NoReturn:
    raise CannotTravel(what=what, where=where, why=why, way_out=way_out)
