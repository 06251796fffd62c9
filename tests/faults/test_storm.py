"""Tiny runs in a storm of faults, and the plan of the storm."""

from __future__ import annotations

import pathlib

import pytest

from tests.faults.brokers import Brokers
from tests.faults.figures import Budget, holds
from tests.faults.plan import plan
from tests.faults.storm import storm


@pytest.mark.timeout(600)
def test_no_run_is_lost_or_ends_twice_while_something_breaks_all_the_time(brokers: Brokers, tmp_path: pathlib.Path, seed: int) -> None:
    holds(storm(brokers, tmp_path, seed, Budget(count=1000, seconds=21), every_s=3.5))


def test_the_same_seed_gives_the_same_faults_and_all_kinds_come() -> None:
    faults = plan(7, 500, 5.0, ("kill", "freeze", "broker"), workers=3)
    assert faults == plan(7, 500, 5.0, ("kill", "freeze", "broker"), workers=3)
    assert faults != plan(8, 500, 5.0, ("kill", "freeze", "broker"), workers=3)
    assert len(faults) == 100
    assert {fault.kind for fault in faults} == {"kill", "freeze", "broker"}
    assert {fault.target for fault in faults} == {0, 1, 2}
    assert [fault.at_s for fault in faults] == sorted(fault.at_s for fault in faults)
    assert all(fault.for_s > 6 for fault in faults if fault.kind == "freeze")
