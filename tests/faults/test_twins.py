"""The same bits after a kill."""

from __future__ import annotations

import pathlib

import pytest

from tests.faults.brokers import Brokers
from tests.faults.figures import Budget, holds
from tests.faults.twins import KINDS, twins


@pytest.mark.timeout(600)
def test_a_training_that_is_killed_at_any_step_ends_with_the_same_bits(brokers: Brokers, tmp_path: pathlib.Path, seed: int) -> None:
    holds(twins(brokers, tmp_path, seed, Budget(count=2, seconds=120), KINDS[1:2]))
