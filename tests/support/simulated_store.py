"""What checkpoints name: uploads that exist until somebody deletes them, and what is in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.parts import KafkaRef, Ref
from kafka_jupyter.runs import checkpoints
from kafka_jupyter.runs.state import RunState


@dataclasses.dataclass(slots=True)
class Store:
    rates: dict[str, float | None] = dataclasses.field(default_factory=dict)  # upload → the learning rate of the training in it
    deleted: set[str] = dataclasses.field(default_factory=set)

    def put(self, rate: float | None = None) -> KafkaRef:
        upload = f"u{len(self.rates)}"
        self.rates[upload] = rate
        return KafkaRef(topic="artifact", partition=0, offset=0, chunks=1, upload=upload, size=1, sha256="")

    def delete(self, refs: Iterable[Ref]) -> None:
        self.deleted.update(ref.upload for ref in refs if isinstance(ref, KafkaRef))

    def has(self, checkpoint: control.Checkpointed) -> bool:
        return self.deleted.isdisjoint(uploads(checkpoint))

    def holes(self, state: RunState) -> Iterator[str]:
        """What an attempt may load after this prefix of the log, and is deleted."""
        for checkpoint in checkpoints.kept(state):
            if not self.has(checkpoint):
                place = (checkpoint.n, checkpoint.epoch, checkpoint.step)
                yield f"C1: checkpoint {place} of {state.run_id} is deleted, and a later attempt may load it"

    def left(self, accepted: Iterable[control.Checkpointed], state: RunState) -> Iterator[str]:
        """Uploads that accepted records name, that are still there, and that no later attempt would load or delete."""
        known = {upload for checkpoint in (*checkpoints.kept(state), *state.superseded) for upload in uploads(checkpoint)}
        for checkpoint in accepted:
            yield from uploads(checkpoint) - known - self.deleted


def refs_of(checkpoint: control.Checkpointed) -> list[KafkaRef]:
    return [part for part in (*checkpoint.parts.values(), *checkpoint.files.values()) if isinstance(part, KafkaRef)]


def uploads(checkpoint: control.Checkpointed) -> set[str]:
    return {ref.upload for ref in refs_of(checkpoint)}
