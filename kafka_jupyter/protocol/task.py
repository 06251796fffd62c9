"""The Task: all that is needed to train one model, one record in the `task` topic.

Every byte string it needs is a *part* with a name (`Task.parts()`); the worker's supervisor brings each to a local file and
hands the child a table name → path, so that the child never sees a store.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from kafka_jupyter.protocol.ids import version_1
from kafka_jupyter.protocol.parts import Part

TASK_LIMIT = 512 << 10  # bytes of one task record


class FitArguments(msgspec.Struct, frozen=True, omit_defaults=True):
    """The arguments of `fit` that are plain values; arrays are in `Task.data`. Names and meanings are those of Keras."""

    epochs: int = 1
    batch_size: int | None = None
    initial_epoch: int = 0
    steps_per_epoch: int | None = None
    shuffle: bool = True
    verbose: str = "auto"
    validation_split: float = 0.0
    validation_freq: int | list[int] = 1
    validation_steps: int | None = None
    validation_batch_size: int | None = None
    class_weight: dict[str, float] | None = None  # JSON keys are strings; the child turns them back into ints


class CallbackSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """A built-in callback: its class name under `keras.callbacks`, its JSON arguments, the argument that names a file it writes. Or one
    that a person wrote (`by_value`): it lies in the task's code, here is only its name."""

    class_name: str
    arguments: dict[str, Any] = {}
    path_argument: str = ""  # e.g. "filepath": the child writes into its own folder, the client puts the file back at `path`
    path: str = ""  # as the person gave it
    state: dict[str, Any] = {}  # JSON attributes of a callback object that had been used before
    by_value: bool = False


MODULE = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_]{0,99}/){0,9}[A-Za-z_][A-Za-z0-9_]{0,99}\.py\Z")  # the path of one that is sent along
MODULES_LIMIT = 500


class Code(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a person wrote themselves. Whoever opens `objects` (models/byvalue.py) runs whatever it says: only a child does, only of a task
    that a key with the role `code` has signed, and only where the worker was started to do so.

    `model`: the model lies in it; its `config` is not more than Keras' global settings then. `files`: modules that are sent along, by their
    path below one folder, from which they can be imported. `own`: what people called what they wrote, to be shown.
    """

    objects: Part
    model: bool = False
    files: dict[str, Part] = {}
    own: list[str] = []


class KerasModel(msgspec.Struct, frozen=True, tag_field="kind", tag="keras"):
    """A Keras model as data. `config`: JSON written by models/ (architecture, compile, what JSON misses). `state`: safetensors,
    variables by index (`model/0`, …, `optimizer/0`, …, extras). `check` (rows, rtol) asks for the first-batch loss."""

    config: Part
    state: Part
    model_name: str = ""
    parameters: int = 0
    check_rtol: float | None = None


class ArraysData(msgspec.Struct, frozen=True, tag_field="kind", tag="arrays"):
    """Arrays in the store. `structure` is JSON (fields x, y, sample_weight, validation_…) whose leaves point into `leaves` by index."""

    structure: dict[str, Any]
    leaves: list[Part]
    rows: int | None = None
    note: str = ""  # what this snapshot freezes, in one line


class Requirements(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker must have. Empty means: anything. Versions are compared as described in runs/choose.py."""

    keras: str = ""  # e.g. "3.15.1"
    backend: str = ""  # "tensorflow"
    backend_version: str = ""
    device: str = ""  # "" or "gpu"
    memory: int = 0  # bytes in the machine
    network: bool = False  # a training that speaks to somebody: Keras' RemoteMonitor
    code: bool = False  # it was started to run code of tasks
    python: str = ""  # e.g. "3.12": bytecode of one is nothing to another
    packages: dict[str, str] = {}  # distribution → version, e.g. "3.1.0", or "==3.15.1" where the patch matters too


class ResumePoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a retried run goes on: a checkpoint of the run before (see control.Checkpointed)."""

    epoch: int
    step: int
    state: Part
    files: dict[str, Part] = {}


class Task(msgspec.Struct, frozen=True, tag_field="type", tag="task", omit_defaults=True):
    run_id: str
    name: str
    owner: str
    model: KerasModel
    data: ArraysData
    fit: FitArguments
    v: int = msgspec.field(default_factory=version_1)
    trainer: str = "keras"
    callbacks: list[CallbackSpec] = []
    seed: int = 0
    versions: dict[str, str] = {}  # keras, backend, python, … of the kernel
    dtype_policy: str = "float32"
    requirements: Requirements = Requirements()
    priority: str = "normal"
    labels: dict[str, str] = {}
    parent: str = ""
    retry_of: str = ""
    resume: ResumePoint | None = None
    digest: str = ""  # of model config, data and fit arguments: what --attach compares
    notebook: str = ""
    cell: str = ""
    source: str = ""
    submitted_ms: int = 0  # the client's clock, to be shown, never compared
    trusted_code: bool = False  # it has `code`: what an older worker, which does not know that field, refuses
    code: Code | None = None

    def parts(self) -> dict[str, Part]:
        """Every part by name: `model`, `state`, `data/0`, `data/1`, …, `code`, `code/helpers.py`, …"""
        named: dict[str, Part] = {"model": self.model.config, "state": self.model.state}
        named.update((f"data/{i}", leaf) for i, leaf in enumerate(self.data.leaves))
        if self.code is not None:
            named["code"] = self.code.objects
            named.update((f"code/{path}", part) for path, part in self.code.files.items())
        return named
