"""What a page shows of one run beside its card: what it trains, from which cell, its attempts, and what it has stored."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from kafka_jupyter.errors import KafkaJupyterError
from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.parts import InlineBytes, InlineText, KafkaRef, Part
from kafka_jupyter.protocol.task import Task
from kafka_jupyter.runs.parameters import CONFIG_LIMIT, parameters
from kafka_jupyter.runs.state import RunState

SOURCE_LIMIT = 100_000  # characters of a cell


def details(state: RunState, task: Task | None, read: Callable[[Part, str], bytes], root: str = "") -> dict[str, Any]:
    """`root`: the server's folder. `task` is None where it has left the log. `read(part, name)` brings the model's JSON; it raises
    KafkaJupyterError."""
    notebook = state.submitted.notebook if state.submitted is not None else ""
    shown: dict[str, Any] = {
        "run_id": state.run_id,
        "path": path_within(root, notebook),
        "attempts": list(_attempts(state)),
        "artifacts": list(_artifacts(state, task)),
    }
    if task is None:
        return shown | {"parameters": {}, "source": "", "versions": {}, "task": False}
    config = b""
    if task.model.config.size <= CONFIG_LIMIT:
        with contextlib.suppress(KafkaJupyterError):  # the table goes without the model
            config = read(task.model.config, "the model")
    return shown | {"parameters": parameters(task, config), "source": task.source[:SOURCE_LIMIT], "versions": task.versions, "task": True}


def path_within(root: str, notebook: str) -> str:
    """The path of the notebook as the server's contents have it (slashes, relative to `root`); empty if it lies elsewhere.

    A kernel knows its notebook by its place in the file system, a page by its place below the server's folder.
    """
    if not root or not notebook or "\0" in notebook:
        return ""
    folder = os.path.abspath(os.path.expanduser(root))
    place = os.path.normpath(os.path.join(folder, notebook))
    if os.path.commonpath([folder, place]) != folder or place == folder:
        return ""
    return pathlib.PurePath(os.path.relpath(place, folder)).as_posix()


def _attempts(state: RunState) -> Iterator[dict[str, Any]]:
    """Those that started, the first one first; `ended`: the next one began, or the run's own end."""
    for i, start in enumerate(state.starts):
        last = i == len(state.starts) - 1
        ended = (str(state.state) if state.terminal else "") if last else "superseded"
        yield {
            "n": start.n, "worker": start.worker, "host": start.host, "device": start.device, "epoch": start.epoch, "step": start.step,
            "started_ms": start.at_ms, "ended": ended,
        }  # fmt: skip


def _artifacts(state: RunState, task: Task | None) -> Iterator[dict[str, Any]]:
    """Results first, then checkpoints, then what the task brought along."""
    if isinstance(state.end, control.Succeeded):
        for name, part in state.end.parts.items():
            yield _artifact({"state": "weights"}.get(name, name), "result", part)
        for file in state.end.files:
            yield _artifact(file.path, "file", file.part)
    kept = {id(c): c for c in (*state.checkpoints, *((state.best,) if state.best else ()))}
    for checkpoint in kept.values():
        at = f"epoch {checkpoint.epoch}" + (f", batch {checkpoint.step}" if checkpoint.step else "")
        for part in checkpoint.parts.values():
            yield _artifact(at, "checkpoint", part)
    for name, part in task.parts().items() if task is not None else ():
        yield _artifact(name, "input", part)


def _artifact(name: str, kind: str, part: Part) -> dict[str, Any]:
    """`where`: "record", "kafka" or "url"."""
    where = "record" if isinstance(part, (InlineText, InlineBytes)) else "kafka" if isinstance(part, KafkaRef) else "url"
    return {"name": name, "kind": kind, "size": part.size, "sha256": part.sha256, "where": where}
