"""Zombies, kills and handovers on two workers that stand for the whole file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.brokers import Brokers
from tests.faults.cancels import cancels
from tests.faults.conftest import SEED
from tests.faults.figures import Budget, holds
from tests.faults.stage import Stage
from tests.faults.takeovers import kills, two_workers, zombies

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def stage(all_brokers: Brokers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    all_brokers.whole()
    with two_workers(all_brokers, tmp_path_factory.mktemp("takeovers"), SEED) as made:
        yield made


def test_a_worker_that_sleeps_or_is_cut_off_for_longer_than_two_leases_changes_nothing(stage: Stage, seed: int) -> None:
    holds(zombies(stage, seed, Budget(count=6, seconds=60)))


def test_another_worker_goes_on_soon_after_a_kill_and_at_once_after_a_goodbye(stage: Stage, seed: int) -> None:
    holds(kills(stage, seed, Budget(count=6, seconds=60)))


def test_a_cancel_ends_the_child_and_the_run_once_from_notebook_command_line_and_rest(stage: Stage, seed: int) -> None:
    holds(cancels(stage, seed, Budget(count=6, seconds=60)))
