"""What a failure outside of the training means for the run."""

from __future__ import annotations

import pytest

from kafka_jupyter import errors
from kafka_jupyter.protocol import control
from kafka_jupyter.worker import endings

OWN = {"run_id": "digits-3f2a9c01b7d4", "n": 1, "worker": "cpu-1", "nonce": "x"}
OUTAGES = [
    errors.BrokerUnreachable(),
    errors.TopicMissing(),
    errors.DeliveryUnknown(),
    errors.DeliveryInferred(),
    errors.StoreUnavailable(),
    errors.BrokerError(),
]
TROUBLES_OF_OURS = [
    errors.StoreError("No space left on device"),
    OSError("disk"),
    errors.StoreElsewhere(),
    errors.NotAuthorized(),
    errors.AuthenticationFailed(),
]
HOPELESS = [errors.OffsetGone(), errors.ArtifactMissing(), errors.ArtifactAltered(), errors.BadRecord(), errors.NeedsTrust(), KeyError("x")]


@pytest.mark.parametrize("failure", OUTAGES, ids=repr)
def test_an_outage_is_waited_for_and_then_another_attempt_may_have_more_luck(failure: Exception) -> None:
    assert endings.may_pass(failure, trained=False)
    assert _failed(failure).retryable


@pytest.mark.parametrize("failure", TROUBLES_OF_OURS, ids=repr)
def test_a_worker_with_troubles_of_its_own_leaves_the_run_to_others(failure: Exception) -> None:
    assert not endings.may_pass(failure, trained=False)
    left = endings.refusal(OWN, failure, trained=False)(7)
    assert isinstance(left, control.Released)
    assert (left.reason, left.detail, left.log_end) == ("unfit", str(failure), 7)
    assert (_failed(failure).retryable, _failed(failure).reason) == (True, "store")  # after the training


@pytest.mark.parametrize("failure", HOPELESS, ids=repr)
def test_what_stays_as_it_is_ends_the_run_at_once(failure: Exception) -> None:
    assert not endings.may_pass(failure, trained=True)
    assert (_failed(failure).retryable, _failed(failure).reason) == (False, "refused")


def test_what_was_trained_waits_for_room_on_the_disk() -> None:
    assert endings.may_pass(errors.StoreError("No space left on device"), trained=True)


def test_a_task_of_a_newer_version_is_left_to_other_workers() -> None:
    assert isinstance(endings.refusal(OWN, errors.NewerRecord(), trained=False)(None), control.Released)


def _failed(failure: Exception) -> control.Failed:
    record = endings.refusal(OWN, failure, trained=True)(7)
    assert isinstance(record, control.Failed)
    assert record.log_end == 7
    return record
