"""The data arguments of `fit` ↔ a JSON structure and a list of plain arrays.

    structure   {"v": 1, "x": node, "y": node, "sample_weight": node, "validation_data": node}
    node        null | {"leaf": i} | {"dict": {name: node}} | {"list": [node]} | {"tuple": [node]}
                | {"ragged": {"values": node, "splits": node}} | {"sparse": {"indices": node, "values": node, "shape": [int]}}
                | {"dataset": {"elements": n, "element": node}} | {"object": name} (a PyDataset by value)

A leaf is an index into the arrays; one of a type that numpy does not know names it (`"dtype": "bfloat16"`). In a dataset each leaf is
a column `{"column": [values, shapes]}`: the values of all its elements one after the other, and one row of `shapes` per element.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import ml_dtypes
import numpy as np
import tensorflow as tf

from kafka_jupyter.errors import CannotTravel, StoreError
from kafka_jupyter.models import generators

Array = np.ndarray[Any, np.dtype[Any]]
Node = dict[str, Any] | None
Progress = Callable[[int, int | None], None]  # elements read so far, elements there are if known

FIELDS = ("x", "y", "sample_weight", "validation_data")
ELEMENTS_LIMIT = 10_000_000  # a dataset that has not ended by then is taken for endless
BYTES_LIMIT = 8 << 30  # of one dataset in the kernel's memory; the store has its own, smaller limit
_BITS = {"bfloat16": np.uint16}


@dataclasses.dataclass(frozen=True)
class Encoded:
    """`rows`: of x, where known. `notes`: what the snapshot freezes, a line each."""

    structure: dict[str, Any]
    leaves: list[Array]
    rows: int | None
    notes: list[str]
    objects: dict[str, Any] = dataclasses.field(default_factory=dict)  # what goes by value, by the name that `structure` gives it


def steps_taken(steps: int, at_once: int) -> int:
    """How many batches Keras takes for `steps` of them, `at_once` in each execution: it ends an epoch between two executions only."""
    return math.ceil(steps / at_once) * at_once


def encode(
    arguments: dict[str, Any],
    steps_per_epoch: int | None = None,
    epochs: int = 1,
    progress: Progress | None = None,
    code: bool = False,
) -> Encoded:
    """What stands in `arguments` under x, y, sample_weight and validation_data. Arrays are not copied. `steps_per_epoch`: batches that
    an epoch takes (`steps_taken`).

    A tf.data.Dataset or generator is read once; `progress(elements so far, elements if known)` is called on the way.
    Raises CannotTravel naming the argument and the place in it.
    """
    encoder = _Encoder(steps_per_epoch, epochs, progress, code)
    structure: dict[str, Any] = {"v": 1}
    for field in FIELDS:
        structure[field] = encoder.node(arguments.get(field), field)
    return Encoded(structure, encoder.leaves, encoder.rows(structure["x"]), encoder.notes, encoder.objects)


class _Encoder:
    def __init__(self, steps: int | None, epochs: int, progress: Progress | None, code: bool) -> None:
        self.objects: dict[str, Any] = {}
        self._code = code
        self.leaves: list[Array] = []
        self.notes: list[str] = []
        self._places: dict[int, tuple[int, Any]] = {}  # the same array as input and target travels once
        self._steps, self._epochs, self._progress = steps, epochs, progress

    def node(self, value: Any, where: str) -> Node:
        if value is None:
            return None
        if isinstance(value, dict):
            return {"dict": {_name(key, where): self.node(item, f"{where}[{key!r}]") for key, item in value.items()}}
        if isinstance(value, (list, tuple)):
            kind = "list" if isinstance(value, list) else "tuple"
            return {kind: [self.node(item, f"{where}[{i}]") for i, item in enumerate(value)]}
        if isinstance(value, tf.data.Dataset):
            return self._dataset(value, where)
        if generators.is_live(value):
            needed = self._steps and self._steps * self._epochs
            return self._dataset(generators.as_dataset(value, needed, self._epochs, where), where, "the generator")
        if isinstance(value, keras.utils.PyDataset) and self._code:
            self.objects[where] = value
            return {"object": where}
        if isinstance(value, tf.RaggedTensor):
            inner = self.node(value.values, where)
            return {"ragged": {"values": inner, "splits": self._leaf(value.row_splits.numpy(), where)}}
        if isinstance(value, tf.SparseTensor):
            parts = {name: self._leaf(getattr(value, name).numpy(), where) for name in ("indices", "values")}
            return {"sparse": {**parts, "shape": [int(n) for n in value.dense_shape.numpy()]}}
        return self._leaf(_array(value, where), where, value)

    def _leaf(self, array: Array, where: str, owner: Any = None) -> dict[str, Any]:
        known = self._places.get(id(owner)) if owner is not None else None
        if known is not None:
            return {"leaf": known[0], **_marker(array)}
        index = self._add(array, where)
        if owner is not None:
            self._places[id(owner)] = (index, owner)  # held, so that the id stays its own
        return {"leaf": index, **_marker(array)}

    def _add(self, array: Array, where: str) -> int:
        name = array.dtype.name
        if array.dtype.hasobject:
            _check_strings(array, where)
        elif name in _BITS:
            array = array.view(_BITS[name])
        elif array.dtype.kind not in "biufcSU":
            raise _refused(f"an array of type {array.dtype}", where, "Keras cannot train on it", "Convert it to numbers or strings.")
        self.leaves.append(array)
        return len(self.leaves) - 1

    def _dataset(self, dataset: tf.data.Dataset, where: str, what: str = "the tf.data.Dataset") -> dict[str, Any]:
        limit = self._elements(dataset, where)
        columns: list[tuple[list[Array], list[tuple[int, ...]]]] = []
        count = size = 0
        for element in dataset if limit is None else dataset.take(limit):
            parts = tf.nest.flatten(element, expand_composites=True)
            if not columns:
                columns = [([], []) for _ in parts]
            for (values, shapes), part in zip(columns, parts, strict=True):
                array = part.numpy() if hasattr(part, "numpy") else np.asarray(part)
                array = np.asarray(array, dtype=object if part.dtype == tf.string else None)
                values.append(array.reshape(-1))
                shapes.append(array.shape)
                size += array.nbytes
            count += 1
            if count > ELEMENTS_LIMIT or size > BYTES_LIMIT:
                raise _refused(
                    "a tf.data.Dataset", where, f"after {count} elements it has {size >> 20} MiB", "Train on a part of it: .take(n)."
                )
            if self._progress is not None:
                self._progress(count, limit)
        if not count:
            raise _refused("a tf.data.Dataset", where, "it has no elements", "Check what it is made from.")
        self.notes.append(f"{where}: {what} was read once ({count} elements); what is random in it is frozen.")
        flat = [{"column": self._column(values, shapes, where)} for values, shapes in columns]
        return {"dataset": {"elements": count, "element": _element(dataset.element_spec, iter(flat))}}

    def _column(self, values: list[Array], shapes: list[tuple[int, ...]], where: str) -> list[Any]:
        joined = np.concatenate(values)
        marker = _marker(joined)
        ranks = {len(shape) for shape in shapes}
        if len(ranks) != 1:
            raise _refused("a tf.data.Dataset", where, "its elements have different ranks", "Batch it so that they have one.")
        return [self._add(joined, where), self._add(np.array(shapes, dtype=np.int64), where), *marker.values()]

    def _elements(self, dataset: tf.data.Dataset, where: str) -> int | None:
        """How many elements to read; None: all."""
        known = int(dataset.cardinality())
        training = where == "x"
        needed = self._steps * self._epochs if training and self._steps else None
        if known == tf.data.INFINITE_CARDINALITY and needed is None:
            say = "steps_per_epoch" if training else "validation data that end"
            raise _refused("an endless tf.data.Dataset", where, "it never ends", f"Give {say}, or .take(n).")
        if known == tf.data.UNKNOWN_CARDINALITY and needed is None:
            raise _refused(
                "a tf.data.Dataset of unknown length",
                where,
                "Keras would train one step too many on it elsewhere",
                "Give steps_per_epoch, or say its length: .apply(tf.data.experimental.assert_cardinality(n)).",
            )
        return needed if known < 0 else known if needed is None else min(known, needed)

    def rows(self, node: Node) -> int | None:
        """Of the first array of x; of a dataset all its elements together."""
        while node is not None and "leaf" not in node:
            if "object" in node:
                return None
            if "dataset" in node:
                column = _first_column(node["dataset"]["element"])
                shapes = self.leaves[column[1]]
                return int(shapes[:, 0].sum()) if shapes.shape[1] else len(shapes)
            if "ragged" in node:
                return len(self.leaves[node["ragged"]["splits"]["leaf"]]) - 1
            if "sparse" in node:
                return int(node["sparse"]["shape"][0])
            inner = next(iter(node.values()))
            node = next(iter(inner.values() if isinstance(inner, dict) else inner), None)
        if node is None:
            return None
        shape = self.leaves[node["leaf"]].shape
        return int(shape[0]) if shape else None


def _name(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise _refused(f"the key {key!r}", where, "names of inputs and outputs are strings", "Use strings as keys.")
    return key


def _array(value: Any, where: str) -> Array:
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, keras.utils.PyDataset) or callable(getattr(value, "__next__", None)) or generators.is_loader(value):
        raise _refused(
            f"a {type(value).__name__}", where, "its batches are made by code that runs here", "Pass arrays or a finite tf.data.Dataset."
        )
    if type(value).__module__.partition(".")[0] == "pandas":
        array: Array = value.to_numpy()
        return array[:, np.newaxis] if array.ndim == 1 else array  # a Series is a column to Keras
    if hasattr(value, "__array__"):
        return np.asarray(value)
    raise _refused(f"{type(value).__name__} {str(value)[:40]!r}", where, "Keras trains on arrays", "Wrap it: np.asarray(…).")


def _check_strings(array: Array, where: str) -> None:
    for item in array.reshape(-1):
        if not isinstance(item, (str, bytes)):
            raise _refused(
                f"an array that holds Python objects ({type(item).__name__})",
                where,
                "only numbers and strings travel",
                "Convert it: array.astype('float32'), or one column per array.",
            )


def _marker(array: Array) -> dict[str, str]:
    return {"dtype": array.dtype.name} if array.dtype.name in _BITS else {}


def _element(spec: Any, flat: Iterator[dict[str, Any]]) -> Node:
    """The structure of one element, its components taken from `flat` in the order of tf.nest."""
    if spec is None:
        return None
    if isinstance(spec, dict):
        made = {key: _element(spec[key], flat) for key in sorted(spec)}  # tf.nest goes by sorted keys
        return {"dict": {key: made[key] for key in spec}}
    if isinstance(spec, (list, tuple)):
        return {"list" if isinstance(spec, list) else "tuple": [_element(item, flat) for item in spec]}
    if isinstance(spec, tf.RaggedTensorSpec):
        node: Node = next(flat)
        splits = [next(flat) for _ in range(spec.ragged_rank)]
        for split in reversed(splits):
            node = {"ragged": {"values": node, "splits": split}}
        return node
    if isinstance(spec, tf.SparseTensorSpec):
        return {"sparse": {"indices": next(flat), "values": next(flat), "shape": next(flat)}}
    return next(flat)


def _first_column(node: Any) -> list[int]:
    while "column" not in node:
        inner = next(iter(node.values()))
        node = next(iter(inner.values() if isinstance(inner, dict) else inner))
    column: list[int] = node["column"]
    return column


def _refused(what: str, where: str, why: str, way_out: str) -> CannotTravel:
    return CannotTravel(what=what, where=where, why=why, way_out=way_out)


# --- the way back


def load(structure: dict[str, Any], leaves: Sequence[Array], objects: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """x, y, sample_weight and validation_data as `fit` takes them: arrays as they are stored, strings as tensors, datasets as `Elements`.

    Raises StoreError for a structure that `encode` did not write.
    """
    try:
        if structure.get("v") != 1:
            raise ValueError(f"version {structure.get('v')!r}")
        fields = {field: structure.get(field) for field in FIELDS}
        by_value = {field: (objects or {})[node["object"]] for field, node in fields.items() if node and "object" in node}
        return {field: by_value[field] if field in by_value else _value(node, leaves) for field, node in fields.items()}
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError, tf.errors.OpError) as error:
        raise StoreError(store="the task", detail=f"its data cannot be put together: {error}") from error


def _value(node: Node, leaves: Sequence[Array]) -> Any:
    if node is None:
        return None
    (kind, inner), *_ = node.items()
    if kind == "leaf":
        return _typed(leaves[inner], node.get("dtype"))
    if kind == "dict":
        return {key: _value(item, leaves) for key, item in inner.items()}
    if kind in ("list", "tuple"):
        items = [_value(item, leaves) for item in inner]
        return items if kind == "list" else tuple(items)
    if kind == "ragged":
        return tf.RaggedTensor.from_row_splits(_value(inner["values"], leaves), _value(inner["splits"], leaves))
    if kind == "sparse":
        return tf.SparseTensor(_value(inner["indices"], leaves), _value(inner["values"], leaves), inner["shape"])
    if kind == "dataset":
        return Elements(inner["element"], int(inner["elements"]), leaves)
    raise ValueError(f"an unknown node {kind!r}")


def _typed(array: Array, dtype: str | None) -> Any:
    if array.dtype.hasobject:
        return tf.constant(array.tolist(), tf.string, array.shape)  # Keras takes object arrays of one dimension only
    if dtype is None:
        return array
    if dtype not in _BITS:
        raise ValueError(f"an unknown type {dtype!r}")
    return array.view(getattr(ml_dtypes, dtype))


class Elements(Sequence[Any]):
    """The stored elements of a tf.data.Dataset: `elements[i]` is the i-th, as arrays, or as tensors where it has strings, ragged or
    sparse parts."""

    def __init__(self, node: Node, count: int, leaves: Sequence[Array]) -> None:
        self._node, self._count = node, count
        self._columns = {id(column): _Column(column, count, leaves) for column in _columns(node)}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._at(self._node, int(index))

    def _at(self, node: Any, i: int) -> Any:
        if node is None:
            return None
        (kind, inner), *_ = node.items()
        if kind == "column":
            return self._columns[id(inner)][i]
        if kind == "dict":
            return {key: self._at(item, i) for key, item in inner.items()}
        if kind in ("list", "tuple"):
            items = [self._at(item, i) for item in inner]
            return items if kind == "list" else tuple(items)
        if kind == "ragged":
            return tf.RaggedTensor.from_row_splits(self._at(inner["values"], i), self._at(inner["splits"], i))
        return tf.SparseTensor(*(self._at(inner[part], i) for part in ("indices", "values", "shape")))

    def dataset(self, rows: Callable[[], Iterable[int]] | None = None) -> tf.data.Dataset:
        """As a tf.data.Dataset of known length; or of those elements that `rows` names whenever it is iterated anew."""
        signature = _signature(self._node, self._columns, self._tensors(0))
        some = rows or (lambda: range(self._count))
        made = tf.data.Dataset.from_generator(lambda: (self._tensors(i) for i in some()), output_signature=signature)
        return made if rows else made.apply(tf.data.experimental.assert_cardinality(self._count))

    def _tensors(self, i: int) -> Any:
        return tf.nest.map_structure(lambda part: tf.constant(part) if isinstance(part, np.ndarray) else part, self[i])


class _Column:
    def __init__(self, column: list[Any], count: int, leaves: Sequence[Array]) -> None:
        self._values = _typed(leaves[column[0]], column[2] if len(column) > 2 else None)
        self._shapes = [tuple(int(n) for n in row) for row in leaves[column[1]]]
        self._ends = np.cumsum([0] + [math.prod(shape) for shape in self._shapes])
        if len(self._shapes) != count or self._ends[-1] != len(self._values):
            raise ValueError("a column that does not fit its shapes")

    def common_shape(self) -> list[int | None]:
        return [sizes.pop() if len(sizes) == 1 else None for sizes in (set(column) for column in zip(*self._shapes, strict=True))]

    def __getitem__(self, i: int) -> Any:
        flat = self._values[self._ends[i] : self._ends[i + 1]]
        return tf.reshape(flat, self._shapes[i]) if tf.is_tensor(flat) else flat.reshape(self._shapes[i])


def _columns(node: Any) -> Iterator[list[Any]]:
    if isinstance(node, dict):
        for key, inner in node.items():
            if key == "column":
                yield inner
            else:
                yield from _columns(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _columns(inner)


def _signature(node: Any, columns: dict[int, _Column], first: Any) -> Any:
    """The element's type: a dimension is fixed where it is the same in all elements (the last batch is often shorter)."""
    if node is None:
        return None
    (kind, inner), *_ = node.items()
    if kind == "dict":
        return {key: _signature(item, columns, first[key]) for key, item in inner.items()}
    if kind in ("list", "tuple"):
        items = [_signature(item, columns, part) for item, part in zip(inner, first, strict=True)]
        return items if kind == "list" else tuple(items)
    if kind == "column":
        return tf.TensorSpec(columns[id(inner)].common_shape(), first.dtype)
    if kind == "ragged":
        return tf.RaggedTensorSpec([None] * first.shape.rank, first.dtype, first.ragged_rank, first.row_splits.dtype)
    return tf.SparseTensorSpec([None, *first.shape[1:]], first.dtype)
