"""What a worker lets Keras make from JSON. A pure walk that needs no Keras: the supervisor runs it before a child sees the bytes.

The names come from `allowlist.json`, which `python -m kafka_jupyter.models.allowlist_build` writes.
"""

from __future__ import annotations

import functools
import json
import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from kafka_jupyter.errors import CannotTravel

SIZE_LIMIT = 64 << 20  # bytes of JSON; vocabularies stand in it
DEPTH_LIMIT = 64
OBJECT_LIMIT = 10_000  # of Keras' own: layers, initializers, …; a model of 500 layers has about 3,000
NODE_LIMIT = 50_000  # JSON objects and lists that hold more than plain values; a model of 500 layers has about 10,000
SHAPE_LIMIT = 1 << 31  # elements of an array whose shape is declared, a batch of 1 for what is left open
SIZE_OF_ONE = 1 << 28  # of a number that makes an array as long: units, filters, words of an embedding

_DATA_CLASSES = frozenset({"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__slice__", "__ellipsis__"})
# A string under one of these keys would be opened as a file.
_FILE_KEYS = frozenset({"vocabulary", "idf_weights", "filepath", "filename", "path", "file", "weights"})
_SHAPES = frozenset({"shape", "batch_shape", "input_shape", "output_shape", "target_shape", "kernel_size", "pool_size"})
_LENGTHS = frozenset({
    "units", "filters", "input_dim", "output_dim", "num_bins", "num_tokens", "max_tokens", "key_dim", "value_dim", "num_heads",
    "depth_multiplier", "n", "rank", "output_sequence_length", "state_size", "size", "target_size", "height", "width",
})  # fmt: skip
_PATH = re.compile(r"[/~\\]|[A-Za-z]:[\\/]|(.*[\\/])?\.\.([\\/]|\Z)")
_WORDS = "vocabulary"  # a list of whatever people have written
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# Half of a surrogate pair: JSON can spell it, but no record and no frame can carry it.
_BROKEN = re.compile("[\ud800-\udfff]")
_NOT_UNICODE = "it is not Unicode"
_FIELDS = {"model": dict, "compile": dict, "globals": dict, "trainable": dict, "policies": list, "no_decay": list}
_WAY_OUT = "Only built-in Keras objects travel as data; what you wrote yourself travels with `--trust code`."


@functools.cache
def names() -> tuple[frozenset[tuple[str, str]], frozenset[str]]:
    """Allowed classes as (module, name), and allowed functions by name."""
    listed = json.loads(pathlib.Path(__file__).with_name("allowlist.json").read_text("utf-8"))
    classes = frozenset((module, name) for module, found in listed["classes"].items() for name in found)
    return classes, frozenset(listed["functions"])


def check(config: bytes) -> dict[str, Any]:
    """The document in `config`, if all of it is allowed. Raises CannotTravel naming what is not, and where it stands."""
    document = _read(config, _FIELDS)
    _walk(document)
    return document


def check_globals(config: bytes) -> dict[str, Any]:
    """As `check`, of a model that goes by value: the document holds no more than Keras' settings."""
    document = _read(config, {"globals": dict, "by_value": bool})
    _walk(document)
    return document


def _read(config: bytes, fields: Mapping[str, type]) -> dict[str, Any]:
    if len(config) > SIZE_LIMIT:
        raise _refused("the configuration", "the task", f"it has {len(config)} bytes, at most {SIZE_LIMIT} are taken")
    try:
        document = json.loads(config)
    except (ValueError, RecursionError) as error:
        raise _refused("the configuration", "the task", f"it is not JSON: {str(error)[:100]}") from error
    if not isinstance(document, dict) or document.get("v") != 1:
        raise _refused("the configuration", "the task", "it is not of version 1")
    for field, kind in fields.items():
        if not isinstance(document.get(field), kind):
            raise _refused("the configuration", "the task", f"its field {field!r} is missing or malformed")
    return document


def _walk(document: dict[str, Any]) -> None:
    waiting: list[tuple[Any, tuple[str | int, ...]]] = [(document, ())]
    nodes = objects = 0
    while waiting:
        node, path = waiting.pop()
        if isinstance(node, str):
            if _BROKEN.search(node):
                raise _refused(f"the text {node[:80]!r}", _spelled(path), _NOT_UNICODE)
            _check_text(node, path)
            continue
        if not isinstance(node, (dict, list)):
            continue
        inner: list[tuple[str | int, Any]] = list(node.items() if isinstance(node, dict) else enumerate(node))
        if isinstance(node, dict):
            for key in node:
                if _BROKEN.search(key):
                    raise _refused(f"the name {key[:80]!r}", _spelled(path), _NOT_UNICODE)
            _check_object(node, path)
            _check_sizes(node, path)
            objects += "class_name" in node
        if isinstance(node, dict) or any(isinstance(value, (dict, list)) for _, value in inner):
            nodes += 1
        if len(path) >= DEPTH_LIMIT or nodes > NODE_LIMIT:
            raise _refused("the configuration", _spelled(path), f"it is deeper than {DEPTH_LIMIT} or larger than {NODE_LIMIT} nodes")
        if objects > OBJECT_LIMIT:
            raise _refused("the configuration", _spelled(path), f"it holds more than {OBJECT_LIMIT} objects")
        waiting.extend((value, (*path, key)) for key, value in inner)


def _check_text(text: str, path: tuple[str | int, ...]) -> None:
    """Nothing that Keras could open or fetch. The words of a vocabulary may be anything."""
    if _WORDS in path and isinstance(path[-1], int):
        return
    if _URL.match(text):
        raise _refused(f"the address {text[:80]!r}", _spelled(path), "nothing is fetched while a model is built")
    if _PATH.match(text):
        raise _refused(f"the path {text[:80]!r}", _spelled(path), "no file is read while a model is built")


def _check_sizes(node: dict[str, Any], path: tuple[str | int, ...]) -> None:
    """What is declared here must not ask for more memory than a model has."""
    for key in _SHAPES & node.keys():
        if isinstance(node[key], list) and _product(node[key]) > SHAPE_LIMIT:
            raise _refused(f"{key}={str(node[key])[:80]}", _spelled(path), f"an array has at most {SHAPE_LIMIT} elements here")
    lengths = [node[key] for key in _LENGTHS & node.keys()]
    if _product(lengths) > SHAPE_LIMIT or any(type(length) is int and length > SIZE_OF_ONE for length in lengths):
        found = {key: node[key] for key in sorted(_LENGTHS & node.keys())}
        raise _refused(str(found)[:120], _spelled(path), f"it asks for more than {SHAPE_LIMIT} numbers")


def _product(lengths: list[Any]) -> int:
    return math.prod(abs(length) for length in lengths if type(length) is int and length != 0)


def _check_object(node: dict[str, Any], path: tuple[str | int, ...]) -> None:
    for key in _FILE_KEYS & node.keys():
        if isinstance(node[key], str):
            raise _refused(f"{key}={node[key][:80]!r}", _spelled(path), "no file is read while a model is built")
    if "class_name" not in node:
        return
    name, module, config = node["class_name"], node.get("module"), node.get("config")
    where = _spelled(path)
    if isinstance(name, str) and name in _DATA_CLASSES and module is None:
        return
    if not isinstance(name, str) or not isinstance(module, str):
        raise _refused(f"{module}.{name}"[:200], where, "it is not named as Keras names its objects")
    classes, functions = names()
    if name == "function":
        if not isinstance(config, str) or config not in functions or module.partition(".")[0] not in ("keras", "builtins"):
            raise _refused(f"the function {module}.{config}"[:200], where, "it is not a function of Keras")
        known: tuple[Any, ...] = (None, config, "function")
    else:
        if (module, name) not in classes:
            raise _refused(f"the class {module}.{name}"[:200], where, "it is not on the list of built-in classes that travel")
        if not isinstance(config, dict):
            raise _refused(f"the class {module}.{name}"[:200], where, "it has no configuration")
        known = (None, name)
    if node.get("registered_name") not in known:
        raise _refused(f"{module}.{name} registered as {node['registered_name']!r}"[:200], where, "it stands for user code")


def _spelled(path: tuple[str | int, ...]) -> str:
    return "/".join(str(part) for part in path)[-200:] or "the task"


def _refused(what: str, where: str, why: str) -> CannotTravel:
    what, where, why = (text.encode("utf-8", "backslashreplace").decode() for text in (what, where, why))
    return CannotTravel(what=what, where=where, why=why, way_out=_WAY_OUT)
