"""The child that trains each row of the table: a worker's own, which afterwards is looked at once more for what it began with."""

from __future__ import annotations

import os
import pathlib
import socket
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kafka_jupyter.models import allowlist, data, probe, rebuild, state
from kafka_jupyter.protocol import codec, frames
from kafka_jupyter.training import child
from kafka_jupyter.training.fit import Fit


def main(sock: socket.socket) -> None:
    _Twin(sock).run()


class _Twin(child._Child):
    def _train(self, job: frames.Job) -> frames.Frame:
        """The training is over before anything else happens in this process."""
        done = super()._train(job)
        look(Fit(codec.decode(job.task), job.inputs, job.folder), job.inputs, job.folder)
        return done


def look(fit: Fit, inputs: dict[str, str], folder: str) -> None:
    """Leaves `state-built` and `forward.npy` of the model as it arrived."""
    config = pathlib.Path(inputs["model"]).read_bytes()
    model = rebuild.build(config, inputs["state"])
    state.save_state(model, os.path.join(folder, "state-built"))
    with rebuild.keras_globals(allowlist.check(config)):
        np.save(os.path.join(folder, "forward.npy"), forward(model, first_x(fit.structure, fit.leaves)))


def first_x(structure: dict[str, Any], leaves: list[Any]) -> Any:
    x = data.load(structure, leaves)["x"]
    return keras.utils.unpack_x_y_sample_weight(x[0])[0] if isinstance(x, data.Elements) else x


def forward(model: keras.Model, x: Any) -> np.ndarray[Any, Any]:
    """The outputs of a few rows as one array; states of stateful layers stay as they are."""
    rows = probe.fixed_rows(model) or 20
    x = keras.tree.map_structure(lambda a: a if _is_composite(a) else keras.ops.convert_to_tensor(np.array(a[:rows])), x)
    with keras.StatelessScope():
        found = keras.tree.flatten(model(x, training=False))
    return np.concatenate([keras.ops.convert_to_numpy(keras.ops.cast(part, "float32")).reshape(-1) for part in found])


def _is_composite(part: Any) -> bool:
    return isinstance(part, (tf.RaggedTensor, tf.SparseTensor))
