"""A long run and many short ones, with both group protocols."""

from __future__ import annotations

import pathlib

import pytest

from tests.faults.brokers import Brokers
from tests.faults.figures import Budget, holds
from tests.faults.line import line


@pytest.mark.timeout(600)
def test_short_runs_pass_a_long_one_and_come_out_the_same_with_either_group_protocol(
    brokers: Brokers, tmp_path: pathlib.Path, seed: int
) -> None:
    holds(line(brokers, tmp_path, seed, Budget(count=8, seconds=60)))
