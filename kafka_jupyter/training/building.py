"""Building what `fit` would build while it traces its first step: it then traces once, not twice.

TensorFlow traces a function that makes variables (an optimizer's slots, metrics) a second time without them, which is half of what the
first step of a small model costs. Keras' other backends build like this before every `fit`; its TensorFlow one leaves it, for the sake
of models that can only be called.
"""

from __future__ import annotations

import keras
import tensorflow as tf
from keras.src.trainers.data_adapters.data_adapter import DataAdapter

from kafka_jupyter import redact
from kafka_jupyter.models.describe import has_own_step

_log = redact.logger(__name__)


def build_before(model: keras.Model, adapter: DataAdapter) -> bool:
    """Makes the metrics and the optimizer's variables of a compiled model for the batches of this adapter; no value changes.

    False if some of it is left to `fit`, whose error it then is: there is data that Keras has no symbols for.
    """
    if has_own_step(model):
        return False
    spec = adapter.get_tf_dataset().element_spec
    if not all(isinstance(part, tf.TensorSpec) and part.shape.rank is not None for part in tf.nest.flatten(spec)):
        return False
    try:
        model._symbolic_build(data_batch=spec)  # it asks only for shapes and types
    except (ValueError, TypeError, RuntimeError, AttributeError, KeyError, NotImplementedError) as error:
        _log.debug("left to fit: %s", error)
        return False
    return bool(model._compile_metrics is None or model._compile_metrics.built)
