"""A captured fit → a Task: what is small stands in the record, what is large goes to the store first."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from kafka_jupyter import redact
from kafka_jupyter.capture.options import Options, Place
from kafka_jupyter.protocol import parts
from kafka_jupyter.protocol.parts import INLINE_LIMIT, InlineBytes, Part
from kafka_jupyter.protocol.task import TASK_LIMIT, ArraysData, Code, KerasModel, Task
from kafka_jupyter.store import Store, arrays, digest

if TYPE_CHECKING:
    from kafka_jupyter.models.capture import CapturedCode, CapturedFit

INLINE_BUDGET = 224 << 10  # bytes of all inline parts together: as base64, with the rest of the task, they stay below TASK_LIMIT
SOURCE_LIMIT = 64 << 10  # characters of the cell's source
assert INLINE_BUDGET * 4 // 3 + 2 * SOURCE_LIMIT < TASK_LIMIT

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One array as it is stored. `inline`: its bytes, where it is small."""

    size: int  # bytes
    sha256: str
    inline: bytes | None


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A captured fit with its data hashed; nothing has been sent."""

    captured: CapturedFit
    leaves: list[Leaf]
    digest: str

    @property
    def bytes_to_store(self) -> int:
        return sum(leaf.size for leaf in self.leaves if leaf.inline is None)


def prepare(captured: CapturedFit) -> Prepared:
    budget = INLINE_BUDGET - sum(size for size in (len(captured.config), len(captured.state)) if size <= INLINE_LIMIT)
    leaves = []
    for array in captured.leaves:
        size, chunks = arrays.chunks(array)
        if size <= min(INLINE_LIMIT, budget):
            data = b"".join(chunks)
            leaves.append(Leaf(size, InlineBytes(data).sha256, data))
            budget -= size
        else:
            sha256, size = digest(chunks)
            leaves.append(Leaf(size, sha256, None))
    return Prepared(captured, leaves, captured.digest([leaf.sha256 for leaf in leaves]))


def build_task(prepared: Prepared, store: Callable[[], Store], run_id: str, name: str, owner: str, options: Options, place: Place) -> Task:
    """Puts what is large into the store and makes the Task. Raises ArtifactTooLarge, BrokerError, StoreUnavailable; the task was not
    submitted then."""
    captured = prepared.captured
    leaves = [_leaf_part(store, captured, i, leaf) for i, leaf in enumerate(prepared.leaves)]
    return Task(
        run_id=run_id,
        name=name,
        owner=owner,
        model=KerasModel(
            config=_part(store, "model", captured.config, text=True),
            state=_part(store, "state", captured.state),
            model_name=captured.model_name,
            parameters=captured.parameters,
            check_rtol=captured.check_rtol if options.check else None,
        ),
        data=ArraysData(captured.structure, leaves, captured.rows, " ".join(captured.notes)),
        fit=captured.fit,
        trusted_code=captured.code is not None,
        code=None if captured.code is None else _code(store, captured.code),
        callbacks=captured.callbacks,
        seed=captured.seed,
        versions=captured.versions,
        dtype_policy=captured.dtype_policy,
        requirements=captured.requirements,
        digest=prepared.digest,
        notebook=place.notebook,
        cell=place.cell,
        source=redact.clean(place.source)[:SOURCE_LIMIT],
        submitted_ms=int(time.time() * 1000),
    )


def _code(store: Callable[[], Store], code: CapturedCode) -> Code:
    files = {path: _part(store, f"code/{path}", text.encode(), text=True) for path, text in code.files.items()}
    return Code(_part(store, "code", code.objects), code.model, files, code.own)


def describe(prepared: Prepared, name: str) -> str:
    """What `--dry-run` says."""
    captured = prepared.captured
    stored = [leaf for leaf in prepared.leaves if leaf.inline is None]
    inline = sum(leaf.size for leaf in prepared.leaves if leaf.inline is not None)
    lines = [
        f"{name}: nothing was sent, the model is as it was. This would travel:",
        f"  model     {captured.model_name}, {captured.parameters:,} parameters, config {_size(len(captured.config))}, "
        f"state {_size(len(captured.state))}",
        f"  data      {len(prepared.leaves)} arrays, {captured.rows if captured.rows is not None else '?'} rows: "
        f"{_size(sum(leaf.size for leaf in stored))} through the store, {_size(inline)} in the record",
        f"  fit       epochs {captured.fit.epochs}, batch size {captured.fit.batch_size or 32}, "
        f"callbacks {', '.join(spec.class_name for spec in captured.callbacks) or 'none'}",
        f"  needs     {', '.join(_needs(captured))}",
        f"  digest    {prepared.digest}",
    ]
    if captured.code is not None:
        lines.insert(
            -1, f"  your code {_size(len(captured.code.objects))}: {', '.join(captured.code.own) or 'no class or function of a name'}"
        )
        lines[-1:-1] = [f"  module    {path}, {_size(len(text.encode()))}" for path, text in captured.code.files.items()]
    return "\n".join(lines + [f"  note      {note}" for note in captured.notes])


def _needs(captured: CapturedFit) -> list[str]:
    needs = captured.requirements
    python = f"Python {'.'.join(needs.python.split('.')[:2])}" if needs.python else ""
    packages = [f"{name} {version.removeprefix('==')}" for name, version in needs.packages.items() if name != "keras"]
    return [text for text in (f"keras {needs.keras}", needs.backend, needs.device, python, *packages) if text]


def _part(store: Callable[[], Store], what: str, data: bytes, text: bool = False) -> Part:
    if len(data) <= INLINE_LIMIT:
        return parts.inline(data, text)
    return store().put(what, len(data), [data])


def _leaf_part(store: Callable[[], Store], captured: CapturedFit, index: int, leaf: Leaf) -> Part:
    if leaf.inline is not None:
        return InlineBytes(leaf.inline)
    array = captured.leaves[index]
    return store().put_data(f"data/{index}", leaf.size, lambda: arrays.chunks(array)[1], leaf.sha256)


def _size(count: int) -> str:
    if count < 1 << 10:
        return f"{count} B"
    return f"{count / 1024:,.1f} KiB" if count < 1 << 20 else f"{count / (1 << 20):,.1f} MiB"


@contextlib.contextmanager
def progress_of(say: Say) -> Iterator[Callable[[int, int | None], None]]:
    """Tells once that a tf.data.Dataset is being read, if that takes a while."""
    started, told = time.monotonic(), False

    def progress(done: int, of: int | None) -> None:
        nonlocal told
        if not told and time.monotonic() - started > 2:
            told = True
            say(f"Reading the tf.data.Dataset: {done} of {of if of is not None else 'many'} elements so far.")

    yield progress
