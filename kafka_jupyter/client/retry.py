"""`retry` (rule 11): a run that has ended badly → the Task of a new run, which goes on from its last checkpoint. Pure, but for `read`
and `submit`.

What comes out is a function of the old run's records: two people, or a double click, make one run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import time
from collections.abc import Callable
from typing import Any

import msgspec

from kafka_jupyter import errors
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol import codec, control, ids
from kafka_jupyter.protocol.parts import InlineBytes, InlineText, Part
from kafka_jupyter.protocol.task import TASK_LIMIT, ResumePoint, Task
from kafka_jupyter.runs import changes
from kafka_jupyter.runs.choose import PRIORITIES
from kafka_jupyter.runs.state import RunState, State
from kafka_jupyter.store import Store

RETRYABLE = frozenset({State.FAILED, State.CANCELLED, State.DEAD})
DEVICES = ("any", "gpu")  # what `device` may be


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edits:
    """What shall be different; None: as it was. `memory` in bytes; `labels` are added to those of the run, an empty one goes away."""

    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    device: str | None = None
    memory: int | None = None
    priority: str | None = None
    labels: dict[str, str] | None = None


def id_of(state: RunState) -> str:
    """The id of the retry of this run. Raises CannotRetry."""
    if state.state not in RETRYABLE or state.end_offset is None:
        raise errors.CannotRetry(run_id=state.run_id, state=str(state.state))
    return ids.retry_id(state.run_id, state.end_offset)


def read(log: Log, state: RunState) -> Task:
    """The Task of a run. Raises TaskGone, BrokerError."""
    if state.task is None:
        raise errors.TaskGone(run_id=state.run_id, detail="nobody has told where it stands.")
    try:
        return log.read_task(state.task, state.run_id)
    except errors.OffsetGone as gone:
        raise errors.TaskGone(run_id=state.run_id, detail="it has left the log, which is not kept for ever.") from gone
    except errors.RecordError as bad:
        way_out = f"`kafka-jupyter dlq redrive {state.run_id} --edit` repairs it."
        raise errors.TaskGone("The task of run {run_id} cannot be read: {detail}", run_id=state.run_id, detail=f"{bad}. {way_out}") from bad


def again(old: Task, state: RunState) -> Task:
    """The Task of the retry: the same training, from the newest checkpoint that the run has left. Raises CannotRetry."""
    return msgspec.structs.replace(old, run_id=id_of(state), retry_of=state.run_id, resume=resume_point(state) or old.resume)


def resume_point(state: RunState) -> ResumePoint | None:
    checkpoint = _last_checkpoint(state)
    if checkpoint is None:
        return None
    return ResumePoint(checkpoint.epoch, checkpoint.step, checkpoint.parts["state"], dict(checkpoint.files))


def _last_checkpoint(state: RunState) -> control.Checkpointed | None:
    return next((checkpoint for checkpoint in reversed(state.checkpoints) if "state" in checkpoint.parts), None)


def rate_left(state: RunState) -> float | None:
    """The learning rate that people asked for last, if the checkpoint that a retry goes on from does not hold it."""
    again = [change.settings for change in changes.to_replay(state, _last_checkpoint(state))]
    waiting = [request.settings for request in state.settings if request.request_id not in state.applied]
    for wanted in reversed([*again, *waiting]):
        with contextlib.suppress(errors.BadWish):  # requests come from anybody
            return learning_rate(state.run_id, wanted.get("learning_rate"))
    return None


def edited(task: Task, edits: Edits) -> Task:
    """The Task with what a person wants to be different. Raises BadWish. (The learning rate is no part of a Task: see `settings`.)"""
    fit, needs = task.fit, task.requirements
    _check(task.run_id, edits)
    if edits.epochs is not None:
        fit = msgspec.structs.replace(fit, epochs=edits.epochs)
    if edits.batch_size is not None:
        fit = msgspec.structs.replace(fit, batch_size=edits.batch_size)
    if edits.device is not None:
        needs = msgspec.structs.replace(needs, device="gpu" if edits.device == "gpu" else "")
    if edits.memory is not None:
        needs = msgspec.structs.replace(needs, memory=edits.memory)
    labels = {name: value for name, value in {**task.labels, **(edits.labels or {})}.items() if value}
    changed = msgspec.structs.replace(task, fit=fit, requirements=needs, labels=labels, priority=edits.priority or task.priority)
    return may_follow(changed, task)


def may_follow(task: Task, before: Task) -> Task:
    """`task`, if it can go on where `before` would have. Raises BadWish."""
    fit, resume = task.fit, task.resume
    if fit == before.fit:
        return task
    first = max(fit.initial_epoch, resume.epoch if resume is not None else 0)
    if fit.epochs != before.fit.epochs and fit.epochs <= first:
        raise errors.BadWish(run_id=task.run_id, what=f"{fit.epochs} epochs", why=f"it goes on behind epoch {first}")
    if fit.batch_size != before.fit.batch_size:
        why = ""
        if _in_batches(task.data.structure.get("x")):
            why = "it was trained from a tf.data.Dataset or PyDataset, whose batches are made already"
        elif resume is not None and resume.step > 0:
            why = f"its checkpoint lies in the middle of epoch {resume.epoch + 1}, whose first {resume.step} batches are done"
        if why:
            raise errors.BadWish(run_id=task.run_id, what=f"a batch size of {fit.batch_size}", why=why)
    return msgspec.structs.replace(task, digest="")  # it is not the `fit` of any cell any more


def _in_batches(node: Any) -> bool:
    """Whether a node of the data's structure (models/data.py) is a dataset or a PyDataset, or holds one."""
    if isinstance(node, list):
        return any(map(_in_batches, node))
    if not isinstance(node, dict):
        return False
    named = node.get("dict")
    inner = [node.get("list"), node.get("tuple"), list(named.values()) if isinstance(named, dict) else None]
    return "dataset" in node or "object" in node or any(map(_in_batches, inner))


def learning_rate(run_id: str, value: Any) -> float:
    """Raises BadWish."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value >= 0):
        raise errors.BadWish(run_id=run_id, what=f"a learning rate of {value!r}", why="it must be a number, at least 0")
    return float(value)


def _check(run_id: str, edits: Edits) -> None:
    for name in ("epochs", "batch_size", "memory"):
        value = getattr(edits, name)
        if value is not None and value < 1:
            raise errors.BadWish(run_id=run_id, what=f"{name}={value}", why="it must be at least 1")
    for name, allowed in (("device", DEVICES), ("priority", tuple(PRIORITIES))):
        value = getattr(edits, name)
        if value is not None and value not in allowed:
            raise errors.BadWish(run_id=run_id, what=f"{name}={value!r}", why=f"it must be one of {', '.join(allowed)}")
    if edits.learning_rate is not None:
        learning_rate(run_id, edits.learning_rate)


def settings(
    run_id: str, edits: Edits, by: str, before: RunState | None = None, known: RunState | None = None
) -> control.SettingsRequested | None:
    """The request for the learning rate; the same wish has the same id, however often it is made. Where nobody makes one, the retry
    (`known`, if it is there already) goes on with what was asked of the run `before` it, unless it was asked for another one itself."""
    rate = edits.learning_rate
    ruled = known is not None and (known.terminal or any("learning_rate" in request.settings for request in known.settings))
    if rate is None and before is not None and not ruled:
        rate = rate_left(before)
    if rate is None:
        return None
    value = float(rate)
    request_id = f"retry-{hashlib.sha256(f'{run_id} {value!r}'.encode()).hexdigest()[:16]}"
    return control.SettingsRequested(run_id=run_id, request_id=request_id, by=by, settings={"learning_rate": value})


def submit(
    log: Log,
    store: Callable[[], Store],
    task: Task,
    known: RunState | None,
    keep_days: float,
    announce: Callable[[control.Record], object],
    more: control.SettingsRequested | None = None,
) -> None:
    """Writes the Task and announces it; of one that is there already (`known`) only what is new.

    Raises RetriedAlready where that one is another training or has ended without what is new, SubmitUnknown, TaskTooLarge, BrokerError.
    """
    if known is not None and known.task is not None:
        if not _same(log.read_task(known.task, task.run_id), task):
            raise errors.RetriedAlready(run_id=task.retry_of, new=task.run_id)
        if more is not None and known.terminal and more.request_id not in {request.request_id for request in known.settings}:
            message = (
                "Run {run_id} was retried before as {new}, which is over ({state}): no learning rate reaches it any more. "
                "If it ended badly, retry {new} itself."
            )
            raise errors.RetriedAlready(message, run_id=task.retry_of, new=task.run_id, state=str(known.state))
        if more is not None and not known.terminal:
            announce(more)
        return
    task = _fitting(msgspec.structs.replace(task, submitted_ms=int(time.time() * 1000)), store)
    try:
        place = log.write_task(task)
    except errors.DeliveryUnknown as unknown:
        message = (
            "Whether run {run_id} was submitted is unknown: {detail}. Retry again: it is the same run, there will never be a second one."
        )
        raise errors.SubmitUnknown(message, run_id=task.run_id, detail=str(unknown)) from unknown
    announce(submitted_of(task, place, keep_days))
    if more is not None:
        announce(more)


def _same(one: Task, other: Task) -> bool:
    """Whether both train the same. (Where a checkpoint is stored says nothing, and it is that of the same run.)"""
    bare = [msgspec.structs.replace(task, submitted_ms=0, resume=None, source="") for task in (one, other)]
    return bare[0] == bare[1]


def _fitting(task: Task, store: Callable[[], Store]) -> Task:
    """A checkpoint that stood in a record of its own may be too much for a Task that is full already: then it goes to the store."""
    if task.resume is None or len(codec.encode(task)) <= TASK_LIMIT:
        return task

    def stored(name: str, part: Part) -> Part:
        if not isinstance(part, InlineBytes | InlineText):
            return part
        data = part.data if isinstance(part, InlineBytes) else part.text.encode()
        return store().put(name, len(data), [data], limited=False)

    resume = task.resume
    files = {name: stored(name, part) for name, part in resume.files.items()}
    return msgspec.structs.replace(task, resume=msgspec.structs.replace(resume, state=stored("checkpoint", resume.state), files=files))


def submitted_of(task: Task, place: control.TaskPlace, keep_days: float) -> control.Submitted:
    """The record that announces a Task."""
    return control.Submitted(
        run_id=task.run_id,
        task=place,
        name=task.name,
        owner=task.owner,
        trainer=task.trainer,
        model_name=task.model.model_name,
        epochs=task.fit.epochs,
        initial_epoch=task.fit.initial_epoch,
        requirements=task.requirements,
        priority=task.priority,
        labels=task.labels,
        digest=task.digest,
        notebook=task.notebook,
        cell=task.cell,
        code=task.code is not None,
        retry_of=task.retry_of,
        submitted_ms=task.submitted_ms,
        keep_days=keep_days,
    )
