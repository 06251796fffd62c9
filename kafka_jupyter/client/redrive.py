"""Dead letters, and how a person brings the run of one back: as it was, or with a Task that was edited by hand."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from kafka_jupyter import errors
from kafka_jupyter.brokers.dead_letters import Buried
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.client import retry
from kafka_jupyter.protocol import codec, ids
from kafka_jupyter.protocol.task import TASK_LIMIT, Task
from kafka_jupyter.runs.state import RunState

_BYTE = re.compile(r"\(byte ([0-9]+)\)")
NEAREST = 3  # ids that an error names


def find(letters: Iterable[Buried], text: str) -> Buried:
    """The newest letter of the run that `text` names: its id, or the beginning of one. Raises NoLetter, RunAmbiguous."""
    known: dict[str, Buried] = {}
    for buried in letters:  # newest first
        known.setdefault(buried.letter.run_id, buried)
    found = [run_id for run_id in known if run_id == text] or [run_id for run_id in known if text and run_id.startswith(text)]
    if len(found) == 1:
        return known[found[0]]
    if found:
        raise errors.RunAmbiguous(run_id=repr(text), candidates=", ".join(found[:5]))
    near = difflib.get_close_matches(text, known, n=NEAREST, cutoff=0.4) or list(known)[:NEAREST]
    raise errors.NoLetter(run_id=repr(text), nearest=f"There are some of {', '.join(near)}." if near else "There is none at all.")


def task_now(log: Log, buried: Buried, state: RunState | None) -> Task:
    """What a redrive submits if nothing is changed. Raises BadTask where the letter holds what is no task, CannotRetry, TaskGone."""
    letter = buried.letter
    if letter.task:
        return adopted(task_from(letter.task.encode(), f"what the dead letter of {letter.run_id} holds"), buried, state)
    if state is None:
        raise errors.TaskGone(run_id=letter.run_id, detail="the records of its run have left the log.")
    return retry.again(retry.read(log, state), state)


def adopted(task: Task, buried: Buried, state: RunState | None) -> Task:
    """A Task that a person has written, as the run that follows the one of the letter: it has the same id whoever redrives it."""
    letter = buried.letter
    if not letter.task and state is not None:
        return msgspec.structs.replace(task, run_id=retry.id_of(state), retry_of=letter.run_id)
    offset = letter.place.offset if letter.place is not None else buried.offset
    retry_of = letter.run_id if ids.RUN_ID.match(letter.run_id) else ""
    return msgspec.structs.replace(task, run_id=ids.retry_id(letter.run_id, offset), retry_of=retry_of)


def text_of(log: Log, buried: Buried, state: RunState | None) -> str:
    """The Task to edit, as JSON; as it stood in the log where it is none."""
    return readable(buried.letter.task or codec.encode(task_now(log, buried, state)).decode())


def readable(text: str) -> str:
    """JSON over many lines; what is none, as it is."""
    try:
        return msgspec.json.format(text, indent=2) + "\n"
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return text


def task_from(text: bytes, source: str) -> Task:
    """The Task in a JSON text. Raises BadTask, which says where in it something is wrong."""
    if len(text) > 4 * TASK_LIMIT:
        raise errors.BadTask(source=source, why=f"it has {len(text)} bytes, at most {TASK_LIMIT} fit into one record")
    try:
        task = codec.decode(text, types=frozenset({"task"}))
    except errors.NewerRecord as newer:
        why = f"it is of version {newer.fields['version']} of {newer.fields['type']!r}, which is newer than this kafka_jupyter"
        raise errors.BadTask(source=source, why=why) from newer
    except errors.BadRecord as bad:
        raise errors.BadTask(source=source, why=_located(str(bad.fields["why"]), text)) from bad
    assert isinstance(task, Task)
    return task


def _located(why: str, text: bytes) -> str:
    """With line and column for a byte: that is what an editor shows."""
    found = _BYTE.search(why)
    if found is None:
        return why
    before = text[: int(found[1])].decode("utf-8", "replace")
    line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
    return f"{why[: found.start()].strip()} (line {line}, column {column})"


def with_values(text: bytes, changes: Sequence[str], source: str) -> bytes:
    """The JSON text with other values: `fit.epochs=30`, `seed=7`, `labels.team=blue`. What is no JSON behind the = is a string.

    Raises BadTask.
    """
    if not changes:
        return text
    try:
        whole: Any = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise errors.BadTask(source=source, why=f"{_located(str(error), text)}: edit it as a text") from error
    for change in changes:
        path, sign, value = change.partition("=")
        *way, last = path.split(".")
        inner = whole
        for step in way:
            inner = inner.setdefault(step, {}) if isinstance(inner, dict) else None
        if not sign or not last or not isinstance(inner, dict):
            raise errors.BadTask(source=source, why=f"{change!r} cannot be set: write PATH=VALUE, for example fit.epochs=30")
        inner[last] = _value(value)
    return msgspec.json.encode(whole)


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text.encode())
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return text
