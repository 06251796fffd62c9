"""All small histories keep the rules of the fold: what chance does not find."""

from __future__ import annotations

import pytest

from kafka_jupyter.protocol import control
from tests.support import exhaustive
from tests.support.broken_rules import BROKEN
from tests.support.simulated_rules import TRUE

OF_THE_FOLD = [name for name, (rules, _) in BROKEN.items() if rules.apply is not TRUE.apply]
NEEDS_A_RUSH = "records_need_no_nonce"  # only whoever does not wait for its claim to be read back needs the nonce: see the simulator


@pytest.mark.parametrize(
    ("records", "processes", "requests"),
    [
        pytest.param(8, 2, 4, marks=pytest.mark.xdist_group("long logs"), id="8 records, 2 workers, 4 requests"),
        pytest.param(6, 3, 6, marks=pytest.mark.xdist_group("wide logs"), id="6 records, 3 processes of 2 names, 6 requests"),
    ],
)
def test_all_small_histories_keep_the_rules(records: int, processes: int, requests: int) -> None:
    result = exhaustive.search(records, exhaustive.ALL_REQUESTS[:requests], processes)
    assert result.found is None
    assert set(result.ends) == {"SUCCEEDED", "FAILED", "CANCELLED", "DEAD"}


@pytest.mark.parametrize("name", [name for name in OF_THE_FOLD if name != NEEDS_A_RUSH])
def test_a_simpler_rule_is_refuted_by_a_short_log(name: str) -> None:
    rules, _ = BROKEN[name]
    result = exhaustive.search(6, exhaustive.ALL_REQUESTS[:4], 2, rules.apply)
    assert result.found is not None, f"{name} held in {result.steps} steps"


def test_a_checkpoint_that_supersedes_is_followed_by_deletions() -> None:
    """Else the search would prove nothing about them: a rule that forgets the best one is refuted."""
    result = exhaustive.search(7, (), 1, disposable=BROKEN["all_but_the_last_two"][0].disposable)
    assert result.found is not None
    assert result.found[0].startswith("C1")
    assert [type(record) for record in result.found[1]].count(control.Checkpointed) == 3
