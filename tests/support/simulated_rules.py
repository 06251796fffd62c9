"""The rules that a simulated history follows: the true ones, or others that are to be refuted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.parts import Ref
from kafka_jupyter.runs import changes, checkpoints, snapshots
from kafka_jupyter.runs import state as fold
from kafka_jupyter.runs.state import Placed, RunState

Apply = Callable[[RunState | None, Placed], RunState]
Disposable = Callable[[RunState], list[Ref]]
Bounds = dict[int, tuple[int, int]]
Begin = Callable[[Iterable[snapshots.Record], Bounds, Callable[[str], int]], snapshots.Beginning]


@dataclasses.dataclass(frozen=True)
class Rules:
    apply: Apply = fold.apply
    disposable: Disposable = checkpoints.disposable
    to_replay: Callable[[RunState, control.Checkpointed | None], list[control.Applied]] = changes.to_replay
    beginning: Begin = snapshots.beginning
    deletes_after_read_back: bool = True  # else as soon as the Checkpointed that supersedes has been sent
    marks_after_acks: bool = True  # else while the snapshots are on their way
    through_is_what_was_read: bool = True  # else where the log ends as they are written


TRUE = Rules()
