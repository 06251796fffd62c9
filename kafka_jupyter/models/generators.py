"""A live generator of batches → a tf.data.Dataset of what a training takes of it. It cannot be copied, so it is read here, once."""

from __future__ import annotations

import itertools
import types
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kafka_jupyter.errors import CannotTravel

BYTES_LIMIT = 2 << 30  # of all batches together, in the kernel's memory


def is_live(value: Any) -> bool:
    return isinstance(value, types.GeneratorType)


def is_loader(value: Any) -> bool:
    """Whether it is another framework's own way of making batches."""
    return type(value).__module__.partition(".")[0] in ("torch", "grain") and not hasattr(value, "__array__")


def as_dataset(generator: Any, needed: int | None, epochs: int, where: str) -> tf.data.Dataset:
    """`needed`: how many batches the training takes; None: all that there are, of which it can make one epoch.

    Raises CannotTravel where it is endless, empty, or too much; whatever it raises itself.
    """
    if where != "x":
        raise _refused(where, "only the training's own batches are read from a generator", "Pass arrays or a finite tf.data.Dataset.")
    if needed is None and epochs > 1:
        raise _refused(where, f"it is used up after one of {epochs} epochs", "Give steps_per_epoch.")
    batches = list(_bounded(itertools.islice(generator, needed) if needed is not None else generator, where))
    if not batches:
        raise _refused(where, "it has no batches", "Make it anew: one that was read is used up.")
    made = tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=_signature(batches))
    return made.apply(tf.data.experimental.assert_cardinality(len(batches)))


def _bounded(batches: Iterator[Any], where: str) -> Iterator[Any]:
    size = 0
    for count, batch in enumerate(batches, 1):
        if not isinstance(batch, (tuple, list)) or not 1 <= len(batch) <= 3:
            way_out = "Give tuples (x, y) or (x, y, sample_weight) of arrays, or pass a finite tf.data.Dataset."
            raise _refused(where, f"it gives a {type(batch).__name__}", way_out)
        parts = keras.tree.map_structure(np.asarray, tuple(batch))
        size += sum(part.nbytes for part in keras.tree.flatten(parts))
        if size > BYTES_LIMIT:
            raise _refused(
                where, f"after {count} batches it has {size >> 20} MiB", "Give steps_per_epoch, or write it as a keras.utils.PyDataset."
            )
        yield parts


def _signature(batches: list[Any]) -> Any:
    """A dimension is fixed where it is the same in all batches: the last one is often shorter."""

    def spec(*parts: Any) -> tf.TensorSpec:
        shapes = {part.shape for part in parts}
        if len({len(shape) for shape in shapes}) != 1:
            raise _refused("x", "its batches have different ranks", "Give all of them one.")
        common = [sizes.pop() if len(sizes) == 1 else None for sizes in map(set, zip(*shapes, strict=True))]
        return tf.TensorSpec(common, tf.as_dtype(parts[0].dtype))

    return keras.tree.map_structure(spec, *batches)


def _refused(where: str, why: str, way_out: str) -> CannotTravel:
    return CannotTravel(what="a generator", where=where, why=why, way_out=way_out)
