"""Which checkpoints of a run are kept: the last two and the best. Pure.

What is superseded once is superseded for ever, in every reader's fold: so it may be deleted by whoever has read it (rule 8).
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.parts import KafkaRef, Part, Ref, UrlRef
from kafka_jupyter.runs.values import RunState

_REFS = KafkaRef | UrlRef
LAST = 2
REMEMBERED = 8  # superseded ones that the state still names: a worker that dies before it has deleted them leaves them to the next


def with_one_more(state: RunState, record: control.Checkpointed) -> RunState:
    """The state after an accepted Checkpointed."""
    best = record if _beats(record, state.best) else state.best
    last = (*state.checkpoints, record)[-LAST:]
    staying = {_name(checkpoint): checkpoint for checkpoint in (*last, best) if checkpoint is not None}
    before = {_name(checkpoint): checkpoint for checkpoint in (*state.checkpoints, state.best) if checkpoint is not None}
    needed = {ref for checkpoint in staying.values() for ref in _refs(checkpoint)}
    gone = [_without(checkpoint, needed) for name, checkpoint in before.items() if name not in staying]
    return msgspec.structs.replace(state, checkpoints=last, best=best, superseded=(*state.superseded, *gone)[-REMEMBERED:])


def _name(checkpoint: control.Checkpointed) -> tuple[int, int, int]:
    return checkpoint.n, checkpoint.epoch, checkpoint.step


def _without(checkpoint: control.Checkpointed, needed: set[Ref]) -> control.Checkpointed:
    """What has to be deleted with it: no bytes that stand in the record itself, nothing that the others name as well."""

    def left(named: dict[str, Part]) -> dict[str, Part]:
        return {name: part for name, part in named.items() if isinstance(part, _REFS) and part not in needed}

    return msgspec.structs.replace(checkpoint, parts=left(checkpoint.parts), files=left(checkpoint.files))


def _beats(record: control.Checkpointed, best: control.Checkpointed | None) -> bool:
    if record.value is None:
        return False
    if best is None or best.value is None:
        return True
    if record.metric != best.metric:
        return False
    return record.value > best.value if record.mode == "max" else record.value < best.value


def kept(state: RunState) -> list[control.Checkpointed]:
    """The newest first, each once; the best is last, where it is none of the last two."""
    newest_first = {_name(checkpoint): checkpoint for checkpoint in reversed(state.checkpoints)}
    if state.best is not None:
        newest_first.setdefault(_name(state.best), state.best)
    return list(newest_first.values())


def named(state: RunState) -> set[Ref]:
    """What the checkpoints that are kept name."""
    return {ref for checkpoint in kept(state) for ref in _refs(checkpoint)}


def disposable(state: RunState) -> list[Ref]:
    """What only superseded checkpoints name. One that came later may name again what an attempt found in an older one."""
    needed = named(state)
    return list(dict.fromkeys(ref for checkpoint in state.superseded for ref in _refs(checkpoint) if ref not in needed))


def _refs(checkpoint: control.Checkpointed) -> Iterator[Ref]:
    for part in (*checkpoint.parts.values(), *checkpoint.files.values()):
        if isinstance(part, _REFS):
            yield part
