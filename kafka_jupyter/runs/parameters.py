"""What a Task trains, as a flat table for people: `{"epochs": 20, "optimizer": "Adam", "optimizer.learning_rate": 0.001, …}`.

Read from the Task and its model's JSON without Keras. Both are somebody else's bytes: what is not as expected is left out, and the
table is bounded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from kafka_jupyter.protocol.task import CallbackSpec, Task

Value = str | int | float | bool

ROWS_LIMIT = 200  # of the table
TEXT_LIMIT = 200  # characters of a name or value
CONFIG_LIMIT = 8 << 20  # bytes of a model's JSON that are read for this
# Of a layer's arguments those that people choose; initializers and the like would drown them.
_TOLD = ("units", "filters", "kernel_size", "strides", "pool_size", "rate", "activation", "input_dim", "output_dim", "num_heads",
         "key_dim", "return_sequences", "axis", "batch_shape", "padding", "use_bias")  # fmt: skip
# Left out where they are as they nearly always are: what is false, and these.
_USUAL = {"ema_momentum": 0.99, "reduction": "sum_over_batch_size", "axis": -1}
_DULL = {"activation": ("linear",), "strides": ([1, 1], [1]), "padding": ("valid",), "use_bias": (True,), "return_sequences": (False,)}


def parameters(task: Task, config: bytes = b"") -> dict[str, Value]:
    """The table, in the order in which a person looks for things. `config`: the model's JSON; empty leaves the model out."""
    table: dict[str, Value] = {}
    for name, value in _pairs(task, config):
        if len(table) >= ROWS_LIMIT:
            break
        shown = _value(value)
        if shown is not None:
            table[name[:TEXT_LIMIT]] = shown
    return table


def _pairs(task: Task, config: bytes) -> Iterator[tuple[str, Any]]:
    fit = msgspec.to_builtins(task.fit)
    yield "epochs", task.fit.epochs
    yield "batch_size", task.fit.batch_size
    document = _document(config)
    compilation = _mapping(document.get("compile"))
    yield from _object("optimizer", compilation.get("optimizer"))
    yield from _object("loss", compilation.get("loss"))
    yield "metrics", _names(compilation.get("metrics"))
    for spec in task.callbacks:
        yield f"callback {spec.class_name}", _arguments(spec)
    for name, value in fit.items():
        if name not in ("epochs", "batch_size", "verbose"):
            yield name, value
    yield "rows", task.data.rows
    yield "seed", task.seed
    yield "model", task.model.model_name
    for i, (name, told) in enumerate(_layers(document), 1):
        yield f"layer {i} {name}", told
    yield "dtype_policy", task.dtype_policy
    for name, wanted in msgspec.to_builtins(task.requirements).items():
        yield f"needs {name}", wanted
    for name, label in task.labels.items():
        yield f"label {name}", label


def _document(config: bytes) -> Mapping[str, Any]:
    try:
        return _mapping(json.loads(config)) if config else {}
    except (ValueError, RecursionError):
        return {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _object(name: str, node: Any) -> Iterator[tuple[str, Any]]:
    """A serialized Keras object: its class, then each argument that is a plain value."""
    if not isinstance(node, dict):
        yield name, node
        return
    yield name, node.get("class_name")
    for key, value in _mapping(node.get("config")).items():
        if key != "name" and isinstance(value, (int, float, str)) and value is not False and value != _USUAL.get(key):
            yield f"{name}.{key}", value
        elif isinstance(value, dict) and "class_name" in value:  # a schedule in place of a number
            yield from _object(f"{name}.{key}", value)


def _names(node: Any) -> str | None:
    if not isinstance(node, list):
        return None
    named = [item if isinstance(item, str) else _mapping(item).get("class_name") for item in node]
    return ", ".join(name for name in named if isinstance(name, str)) or None


def _arguments(spec: CallbackSpec) -> str:
    told = {name: value for name, value in spec.arguments.items() if isinstance(value, (int, float, str)) and value not in ("auto", "")}
    return ", ".join(f"{name}={value}" for name, value in told.items()) or "yes"


def _layers(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    layers = _mapping(_mapping(document.get("model")).get("config")).get("layers")
    for node in layers if isinstance(layers, list) else ():
        layer = _mapping(node)
        config = _mapping(layer.get("config"))
        told = [f"{name}={_plain(config[name])}" for name in _TOLD if _is_told(name, config.get(name))]
        yield str(layer.get("class_name") or "?"), ", ".join(told) or "–"


def _is_told(name: str, value: Any) -> bool:
    return isinstance(value, (int, float, str, list)) and value not in _DULL.get(name, ())


def _plain(value: Any) -> str:
    return "×".join("?" if part is None else str(part) for part in value) if isinstance(value, list) else str(value)


def _value(value: Any) -> Value | None:
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return float(f"{value:.6g}")  # 0.001 travels as 0.0010000000474974513
    return (value if isinstance(value, str) else json.dumps(value, default=str))[:TEXT_LIMIT]
