"""What a resumed training applies again: what people asked for last is what it ends with."""

from __future__ import annotations

from typing import Any

from kafka_jupyter.protocol import control
from kafka_jupyter.runs import changes
from kafka_jupyter.runs.state import RunState
from tests.support.records import claimed, fold, of_attempt, request, submitted


def asked(request_id: str, rate: float) -> control.SettingsRequested:
    made: control.SettingsRequested = request(control.SettingsRequested, request_id=request_id, settings={"learning_rate": rate})
    return made


def applied(request_id: str, epoch: int, step: int = 0, n: int = 1) -> control.Applied:
    settings: dict[str, Any] = {"learning_rate": 0.1}
    made: control.Applied = of_attempt(control.Applied, n, request_id=request_id, settings=settings, epoch=epoch, step=step)
    return made


def checkpoint(epoch: int, n: int = 1) -> control.Checkpointed:
    made: control.Checkpointed = of_attempt(control.Checkpointed, n, epoch=epoch)
    return made


def names(state: RunState, since: control.Checkpointed | None) -> list[str]:
    return [change.request_id for change in changes.to_replay(state, since)]


FIRST = [submitted(), claimed(), of_attempt(control.Started)]
SECOND = [of_attempt(control.Failed), claimed(2), of_attempt(control.Started, 2)]


def test_what_was_applied_behind_the_checkpoint_is_applied_again_and_nothing_else() -> None:
    state = fold([*FIRST, applied("a", 2, 3), applied("b", 4)])
    assert names(state, checkpoint(4)) == ["b"], "at the place itself it may have come after the checkpoint"
    assert names(state, checkpoint(3)) == ["b"]
    assert names(state, checkpoint(5)) == []
    assert names(state, None) == ["a", "b"]


def test_a_newer_change_at_an_earlier_step_is_not_undone_by_an_older_one() -> None:
    """Attempt 1 goes to 0.1 in epoch 5 and is lost. Attempt 2 goes on from epoch 3, is told 0.2 in epoch 4, and is lost as well. A third
    one that goes to 0.2 in epoch 4 and to 0.1 in epoch 5 again would end with what nobody wants any more."""
    lost = [checkpoint(3), asked("first", 0.1), applied("first", 5), *SECOND]
    state = fold([*FIRST, *lost, asked("then", 0.2), applied("then", 4, n=2)])
    assert [change.request_id for change in state.applications] == ["first", "then"]
    assert names(state, checkpoint(3)) == ["then"]
    assert names(state, None) == ["then"]


def test_a_change_that_the_checkpoint_cannot_hold_is_applied_at_once() -> None:
    """Attempt 2 could not read the checkpoint of epoch 6 and went on from epoch 3. Attempt 3 can read it: it knows nothing of attempt 2."""
    state = fold([*FIRST, checkpoint(3), applied("first", 5), checkpoint(6), *SECOND, applied("then", 4, n=2)])
    assert names(state, checkpoint(6)) == ["then"]


def test_settings_that_only_ask_are_not_applied_again() -> None:
    state = fold([*FIRST, of_attempt(control.Applied, request_id="loss", settings={"check_loss": 2.0}, epoch=1)])
    assert (state.applied, names(state, None)) == (("loss",), [])
