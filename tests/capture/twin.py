"""The other process: rebuilds what it is handed and trains it, with nothing of the notebook's code. One line of JSON a request."""

from __future__ import annotations

import json
import pathlib
import sys
import traceback
from typing import Any

import keras
import msgspec
import numpy as np

from kafka_jupyter.models import allowlist, callbacks, data, probe, rebuild, state
from kafka_jupyter.protocol.task import CallbackSpec, FitArguments
from kafka_jupyter.store import arrays


def train(folder: pathlib.Path) -> dict[str, Any]:
    task = json.loads((folder / "task.json").read_text())
    config = (folder / "config.json").read_bytes()
    leaves = [arrays.load(folder / f"leaf-{i}") for i in range(task["leaves"])]
    fit = msgspec.convert(task["fit"], FitArguments)
    specs = msgspec.convert(task["callbacks"], list[CallbackSpec])
    with rebuild.keras_globals(allowlist.check(config)):
        model = rebuild.build(config, folder / "state")
        state.save_state(model, folder / "state-built")
        weights = None if fit.class_weight is None else {int(k): v for k, v in fit.class_weight.items()}
        loss = probe.first_batch_loss(model, task["structure"], leaves, class_weight=weights)
        fields = data.load(task["structure"], leaves)
        x = fields["x"][0] if isinstance(fields["x"], data.Elements) else fields["x"]
        x = keras.utils.unpack_x_y_sample_weight(x)[0] if isinstance(fields["x"], data.Elements) else x
        np.save(folder / "forward.npy", forward(model, x))
        made = callbacks.build(specs, folder / "files")
        history = model.fit(**arguments(fields, fit, weights), callbacks=made, verbose=0, shuffle=False).history
    state.save_state(model, folder / "state-trained")
    outputs = callbacks.outputs(specs, folder / "files")
    return {"loss": loss, "history": plain(history), "final": callbacks.final_state(made), "outputs": outputs}


def forward(model: keras.Model, x: Any) -> np.ndarray[Any, Any]:
    """The outputs of a few rows as one array; states of stateful layers stay as they are."""
    rows = probe.fixed_rows(model) or 20
    x = keras.tree.map_structure(lambda a: a if hasattr(a, "row_splits") else keras.ops.convert_to_tensor(np.array(a[:rows])), x)
    with keras.StatelessScope():
        found = keras.tree.flatten(model(x, training=False))
    return np.concatenate([keras.ops.convert_to_numpy(keras.ops.cast(part, "float32")).reshape(-1) for part in found])


def arguments(fields: dict[str, Any], fit: FitArguments, class_weight: dict[int, float] | None) -> dict[str, Any]:
    given = {key: value for key, value in msgspec.to_builtins(fit).items() if key not in ("verbose", "shuffle", "class_weight")}
    given.update({key: opened(value) for key, value in fields.items()})
    if isinstance(fields["x"], data.Elements):
        given = {key: value for key, value in given.items() if key not in ("y", "sample_weight", "batch_size")}
    return {**given, "class_weight": class_weight}


def opened(value: Any) -> Any:
    return value.dataset() if isinstance(value, data.Elements) else value


def plain(history: dict[str, Any]) -> dict[str, Any]:
    return {key: np.asarray(values).tolist() for key, values in history.items()}


def main() -> None:
    for line in sys.stdin:
        try:
            answer = train(pathlib.Path(line.strip()))
        except Exception:  # noqa: BLE001 (the test shows it)
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
