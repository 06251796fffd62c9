"""One sha256 over what a run learns from: `--attach` adopts an earlier run whose digest is the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from kafka_jupyter.protocol.task import CallbackSpec, FitArguments


def digest(
    document: dict[str, Any],
    structure: dict[str, Any],
    leaf_sha256s: Sequence[str],
    fit: FitArguments,
    callbacks: Iterable[CallbackSpec] = (),
    iterations: int = 0,
) -> str:
    """Over the model's document, the data, the arguments of `fit`, the callbacks and the steps the optimizer has already made.

    Names that Keras counts up within a process (`dense_7`) are replaced by their order, and initial weights are left out: running
    the same cells again, in this kernel or a new one, gives the same digest.
    """
    parts = [_unnamed(document), structure, list(leaf_sha256s), msgspec.to_builtins(fit), [msgspec.to_builtins(c) for c in callbacks]]
    return hashlib.sha256(json.dumps([*parts, iterations], sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _unnamed(document: dict[str, Any]) -> Any:
    order: dict[str, str] = {}
    _collect(document, order)
    return _renamed(document, order)


def _collect(node: Any, order: dict[str, str]) -> None:
    if isinstance(node, dict):
        config = node.get("config")
        if isinstance(config, dict) and isinstance(config.get("name"), str) and "class_name" in node:
            order.setdefault(config["name"], f"#{len(order)}")
        for value in node.values():
            _collect(value, order)
    elif isinstance(node, list):
        for value in node:
            _collect(value, order)


def _renamed(node: Any, order: dict[str, str]) -> Any:
    if isinstance(node, dict):
        return {order.get(key, key): _renamed(value, order) for key, value in node.items()}
    if isinstance(node, list):
        return [_renamed(value, order) for value in node]
    return order.get(node, node) if isinstance(node, str) else node
