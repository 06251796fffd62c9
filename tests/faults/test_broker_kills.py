"""Brokers that die one after the other."""

from __future__ import annotations

import pathlib

import pytest

from tests.faults.broker_kills import broker_kills
from tests.faults.brokers import Brokers
from tests.faults.figures import Budget, holds


@pytest.mark.timeout(600)
def test_no_run_is_lost_and_nothing_stalls_for_long_when_brokers_are_killed(brokers: Brokers, tmp_path: pathlib.Path, seed: int) -> None:
    holds(broker_kills(brokers, tmp_path, seed, Budget(count=1, seconds=60)))
