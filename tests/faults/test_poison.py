"""Tasks that kill whoever touches them."""

from __future__ import annotations

import pathlib

import pytest

from tests.faults.brokers import Brokers
from tests.faults.figures import Budget, holds
from tests.faults.poison import POISONS, poison


@pytest.mark.timeout(600)
def test_every_poison_ends_with_a_reason_and_no_innocent_run_suffers(brokers: Brokers, tmp_path: pathlib.Path, seed: int) -> None:
    holds(poison(brokers, tmp_path, seed, Budget(count=len(POISONS), seconds=240), judge_throughput=False))
