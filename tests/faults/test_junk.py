"""Ten thousand random and mutated records."""

from __future__ import annotations

import pathlib

import pytest

from tests.faults.brokers import Brokers
from tests.faults.figures import Budget, holds
from tests.faults.junk import WHOLE, junk


@pytest.mark.timeout(600)
def test_ten_thousand_random_and_mutated_records_stop_nobody(brokers: Brokers, tmp_path: pathlib.Path, seed: int) -> None:
    holds(junk(brokers, tmp_path, seed, Budget(count=WHOLE, seconds=120)))
