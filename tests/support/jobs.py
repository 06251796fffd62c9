"""A `fit` as it would be captured, laid out as a worker's supervisor lays it out for a child: a Task and local files."""

from __future__ import annotations

import pathlib
from typing import Any

from kafka_jupyter.models import capture
from kafka_jupyter.protocol import codec, frames
from kafka_jupyter.protocol.parts import InlineText
from kafka_jupyter.protocol.task import ArraysData, Code, KerasModel, Task
from kafka_jupyter.store import arrays

NOWHERE = InlineText("")  # the parts are files already


def job(folder: pathlib.Path, model: Any, *args: Any, seed: int = 7, period_s: float = 0.25, **kwargs: Any) -> frames.Job:
    """The Job for `model.fit(*args, **kwargs)`, its files below `folder`."""
    return job_of(capture.capture_fit(model, args, kwargs), folder, seed, period_s)


def job_of(captured: capture.CapturedFit, folder: pathlib.Path, seed: int, period_s: float = 0.25) -> frames.Job:
    """The Job for what was captured; the child's own folder is `folder / "own"`."""
    inputs = {"model": _write(folder / "in/model.json", [captured.config]), "state": _write(folder / "in/state", [captured.state])}
    code = None
    if captured.code is not None:
        inputs["code"] = _write(folder / "in/code", [captured.code.objects])
        inputs |= {f"code/{path}": _write(folder / "in/modules" / path, [text.encode()]) for path, text in captured.code.files.items()}
        code = Code(NOWHERE, captured.code.model, dict.fromkeys(captured.code.files, NOWHERE), captured.code.own)
    for i, leaf in enumerate(captured.leaves):
        inputs[f"data/{i}"] = _write(folder / f"in/data-{i}", arrays.chunks(leaf)[1])
    task = Task(
        run_id="digits-3f2a9c01b7d4",
        name="digits",
        owner="ada@test",
        model=KerasModel(NOWHERE, NOWHERE, captured.model_name),
        data=ArraysData(captured.structure, [NOWHERE] * len(captured.leaves)),
        fit=captured.fit,
        callbacks=captured.callbacks,
        seed=seed,
        trusted_code=code is not None,
        code=code,
    )
    own = folder / "own"
    own.mkdir(parents=True)
    return frames.Job(codec.encode(task), inputs, str(own), progress_period_s=period_s, code=task.code is not None)


def _write(path: pathlib.Path, chunks: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
    return str(path)
