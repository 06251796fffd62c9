"""The loss of the first rows, in the notebook and on the worker: a net for what nobody thought of when a model was captured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.trainers.compile_utils import CompileLoss  # Keras has no public way to a loss without touching the model

from kafka_jupyter.models import data as data_room

RTOL = {"float16": 2e-2, "bfloat16": 6e-2}
RTOL_FLOAT32 = 1e-3


def rtol(model: keras.Model) -> float:
    """How far the two losses may be apart, by the coarsest type that the model computes in."""
    return max(RTOL.get(layer.compute_dtype, RTOL_FLOAT32) for layer in model._flatten_layers())


def first_batch_loss(
    model: keras.Model,
    structure: dict[str, Any],
    leaves: Sequence[Any],
    rows: int = 2,
    class_weight: dict[int, float] | None = None,
    values: Sequence[tuple[keras.Variable, Any]] = (),
) -> float:
    """The loss of the first `rows` rows (of a dataset: its first element) with training off, without any trace in the model.

    `structure` and `leaves` are what data.encode gave; both sides compute from the same. `values`: what variables are to have had
    instead of what they have now (`state.values`), so that a model in the middle of its training tells what it arrived with.
    """
    x, y, sample_weight = _first(data_room.load({**structure, "validation_data": None}, leaves), fixed_rows(model) or rows)
    if class_weight is not None and sample_weight is None:
        sample_weight = _class_weights(y, class_weight)
    # Assignments stay in the scope; it needs the values, because regularizers ask only the scope for them.
    with keras.StatelessScope(state_mapping=[*((v, v.value) for v in model.variables), *values]):
        y_pred = model(x, training=False)
        total = keras.ops.sum([keras.ops.cast(loss, "float32") for loss in model.losses] or [0.0])
    given = model._compile_config.config
    if given["loss"] is not None:
        loss = CompileLoss(given["loss"], given["loss_weights"], output_names=getattr(model, "output_names", None))
        total = total + keras.ops.cast(loss(y, y_pred, sample_weight), "float32")
    return float(keras.ops.convert_to_numpy(total))


def fixed_rows(model: keras.Model) -> int | None:
    """The batch size that a model insists on, as stateful RNNs do."""
    return next((tensor.shape[0] for tensor in keras.tree.flatten(model.inputs) if tensor.shape and tensor.shape[0]), None)


def _first(fields: dict[str, Any], rows: int) -> tuple[Any, Any, Any]:
    if isinstance(fields["x"], data_room.Elements):
        element = keras.tree.map_structure(_tensor, fields["x"][0], none_is_leaf=False)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(element)
        return x, y, sample_weight
    x, y, weight = (
        None if fields[field] is None else keras.tree.map_structure(lambda a: _tensor(_head(a, rows)), fields[field], none_is_leaf=False)
        for field in ("x", "y", "sample_weight")
    )
    return x, y, weight


def _head(part: Any, rows: int) -> Any:
    """The first rows of an array or tensor; a sparse one has no index."""
    if isinstance(part, tf.SparseTensor):
        return tf.sparse.slice(part, [0] * part.shape.rank, [rows, *part.shape[1:]])
    return part[:rows]


def _tensor(part: Any) -> Any:
    """As Keras' data adapters give it to the model: floats as floatx."""
    if isinstance(part, (tf.RaggedTensor, tf.SparseTensor)):
        return part
    made = tf.convert_to_tensor(np.array(part))
    return tf.cast(made, keras.config.floatx()) if made.dtype.is_floating else made


def _class_weights(y: Any, class_weight: dict[int, float]) -> Any:
    classes = keras.ops.convert_to_numpy(y)
    if classes.ndim > 1:
        classes = classes.argmax(axis=-1) if classes.shape[-1] != 1 else classes[..., 0]
    return np.array([class_weight.get(int(c), 1.0) for c in classes.reshape(-1)], dtype=keras.config.floatx()).reshape(classes.shape)
