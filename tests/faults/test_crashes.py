"""What a crash costs, what it leaves behind, and trainings that hang."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.brokers import Brokers
from tests.faults.conftest import SEED
from tests.faults.crashes import careful_workers, crashes, hangs, tidy
from tests.faults.figures import Budget, holds
from tests.faults.stage import Stage

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def stage(all_brokers: Brokers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    all_brokers.whole()
    with careful_workers(all_brokers, tmp_path_factory.mktemp("crashes"), SEED) as made:
        yield made


def test_a_long_run_leaves_three_checkpoints_in_the_store(stage: Stage, seed: int) -> None:
    holds(tidy(stage, seed, Budget(count=30, seconds=60)))


def test_a_training_that_hangs_is_ended_and_one_that_always_does_is_dead(stage: Stage, seed: int) -> None:
    holds(hangs(stage, seed, Budget(count=2, seconds=60)))


def test_a_crash_costs_no_more_than_one_checkpoint_interval(stage: Stage, seed: int) -> None:
    holds(crashes(stage, seed, Budget(count=4, seconds=60)))
