"""What a resumed training must apply again (rule 10). Pure."""

from __future__ import annotations

from kafka_jupyter.protocol import control
from kafka_jupyter.runs.values import RunState


def to_replay(state: RunState, checkpoint: control.Checkpointed | None) -> list[control.Applied]:
    """The changes of a training that goes on from this checkpoint (None: from its beginning), in the order in which to apply them: each
    at its place, and at once where that lies behind. What people asked for last is what the training ends with.
    """
    changes: list[control.Applied] = []
    for change in state.applications:
        # A newer change at an earlier place: what had been applied behind it belongs to steps that were thrown away. Applied again at
        # its old step it would undo what people asked for since.
        changes = [earlier for earlier in changes if _place(earlier) <= _place(change)]
        changes.append(change)
    if checkpoint is None:
        return changes
    # A later attempt may have gone on from an older checkpoint, because it could not read this one: its changes are not in this one.
    return [change for change in changes if _place(change) >= _place(checkpoint) or change.n > checkpoint.n]


def _place(record: control.Applied | control.Checkpointed) -> tuple[int, int]:
    return record.epoch, record.step
