"""Which checkpoints a run keeps, and what may be deleted."""

from __future__ import annotations

import msgspec

from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.parts import InlineBytes, KafkaRef, Part
from kafka_jupyter.runs import checkpoints
from kafka_jupyter.runs.state import RunState
from tests.support.records import claimed, fold, of_attempt, submitted


def ref(name: str) -> KafkaRef:
    return KafkaRef(topic="artifact", partition=0, offset=0, chunks=1, upload=name, size=1, sha256="0" * 64)


def checkpoint(epoch: int, value: float | None = None, n: int = 1, **fields: object) -> control.Checkpointed:
    parts: dict[str, Part] = {"state": ref(f"{n}-{epoch}")}
    return of_attempt(control.Checkpointed, n, **{"epoch": epoch, "parts": parts, "metric": "val_loss", "value": value, **fields})


def after(*records: control.Record) -> RunState:
    return fold([submitted(), claimed(), of_attempt(control.Started), *records])


def epochs(kept: list[control.Checkpointed]) -> list[int]:
    return [one.epoch for one in kept]


def uploads(state: RunState) -> list[str]:
    return [part.upload for part in checkpoints.disposable(state) if isinstance(part, KafkaRef)]


def test_the_last_two_and_the_best_are_kept() -> None:
    state = after(*(checkpoint(epoch, value) for epoch, value in ((1, 0.9), (2, 0.2), (3, 0.5), (4, 0.4), (5, 0.3))))
    assert epochs(checkpoints.kept(state)) == [5, 4, 2]
    assert uploads(state) == ["1-1", "1-3"]


def test_two_hundred_checkpoints_leave_three() -> None:
    known: set[str] = set()
    records: list[control.Record] = []
    for epoch in range(1, 201):
        records.append(checkpoint(epoch, abs(epoch - 50.5)))
    state = after()
    deleted: set[str] = set()
    for i, record in enumerate(records):
        state = fold([record], state)
        known.add(f"1-{i + 1}")
        deleted.update(uploads(state))
    assert epochs(checkpoints.kept(state)) == [200, 199, 50]
    assert known - deleted == {"1-200", "1-199", "1-50"}


def test_the_best_is_judged_by_its_mode_and_only_against_the_same_metric() -> None:
    grown = after(*(checkpoint(epoch, value, mode="max") for epoch, value in ((1, 0.9), (2, 0.2), (3, 0.95), (4, 0.1))))
    assert grown.best is not None
    assert grown.best.epoch == 3
    other = after(checkpoint(1, 0.9), checkpoint(2, 0.1, metric="loss"))
    assert other.best is not None
    assert other.best.epoch == 1


def test_a_checkpoint_within_an_epoch_or_without_a_number_is_never_the_best() -> None:
    assert after(checkpoint(1), checkpoint(2)).best is None
    state = after(checkpoint(1, 0.5), checkpoint(1, step=7), checkpoint(2))
    assert state.best is not None
    assert (state.best.epoch, state.best.step) == (1, 0)


def test_what_a_kept_checkpoint_names_as_well_is_not_disposable() -> None:
    shared: dict[str, Part] = {"callback-0/first.keras": ref("first")}
    state = after(*(checkpoint(epoch, files=shared) for epoch in (1, 2, 3)))
    assert uploads(state) == ["1-1"]
    gone = fold([checkpoint(4), checkpoint(5)], state)
    assert uploads(gone) == ["1-1", "1-2", "1-3", "first"]


def test_what_a_later_one_names_again_is_not_disposable_while_that_is_kept() -> None:
    shared: dict[str, Part] = {"callback-0/first.keras": ref("first")}
    state = after(checkpoint(1, files=shared), checkpoint(2), checkpoint(3))
    assert uploads(state) == ["1-1", "first"]
    again = fold([of_attempt(control.Failed), claimed(2), checkpoint(2, n=2, files=shared)], state)
    assert uploads(again) == ["1-1", "1-2"]
    assert uploads(fold([checkpoint(3, n=2), checkpoint(4, n=2)], again)) == ["1-1", "first", "1-2", "1-3", "2-2"]


def test_many_files_are_carried_on_once_and_not_with_each_superseded_checkpoint() -> None:
    written = {f"callback-0/model-{epoch}.keras": ref(f"model-{epoch}") for epoch in range(1, 60)}
    told = [checkpoint(epoch, files=dict(list(written.items())[:epoch])) for epoch in range(1, 60)]
    state = after(*told)
    assert [len(one.files) for one in state.superseded] == [0] * checkpoints.REMEMBERED
    assert len(msgspec.json.encode(state)) < 4 * len(msgspec.json.encode(told[-1]))


def test_bytes_that_stand_in_a_record_are_not_carried_on_when_it_is_superseded() -> None:
    state = after(*(checkpoint(epoch, parts={"state": InlineBytes(b"x" * 1000)}) for epoch in (1, 2, 3)))
    assert [one.parts for one in state.superseded] == [{}]
    assert uploads(state) == []


def test_another_attempt_can_still_delete_what_a_dead_worker_left() -> None:
    first = (checkpoint(1), checkpoint(2), checkpoint(3))
    state = after(*first, of_attempt(control.Failed), claimed(2), checkpoint(1, n=2))
    assert epochs(checkpoints.kept(state)) == [1, 3]
    assert uploads(state) == ["1-1", "1-2"]


def test_a_change_is_remembered_where_it_was_applied_first() -> None:
    lower, loss = {"learning_rate": 0.1}, {"worker_loss": 2.0}
    state = after(
        of_attempt(control.Applied, request_id="a", settings=lower, epoch=2, step=3),
        of_attempt(control.Applied, request_id="b", settings=loss, epoch=2, step=3),
        of_attempt(control.Applied, request_id="a", settings=lower, epoch=5),
    )
    assert state.applied == ("a", "b")
    assert [(one.request_id, one.epoch, one.step) for one in state.applications] == [("a", 2, 3)]
