"""A store that lies."""

from __future__ import annotations

import pathlib

import pytest

from tests.faults.brokers import Brokers
from tests.faults.figures import Budget, holds
from tests.faults.store_faults import store_faults


@pytest.mark.timeout(600)
def test_no_run_succeeds_with_an_artifact_that_is_missing_or_altered(brokers: Brokers, tmp_path: pathlib.Path, seed: int) -> None:
    holds(store_faults(brokers, tmp_path, seed, Budget(count=15, seconds=25)))
