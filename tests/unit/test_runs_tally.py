"""What a list shows of a run's history."""

from __future__ import annotations

import hypothesis
from hypothesis import strategies as st

from kafka_jupyter.protocol.rows import EpochEnded
from kafka_jupyter.runs.tally import Tally
from kafka_jupyter.runs.view import best


def row(epoch: int, seconds: float = 0.5, **metrics: float | None) -> EpochEnded:
    return EpochEnded(epoch + 1, epoch, 10, metrics, seconds, 1000 * epoch)


def test_it_knows_how_far_the_run_is_and_each_metrics_best_with_its_epoch() -> None:
    rows = [row(0, loss=0.9, accuracy=0.5, lr=0.1), row(1, loss=0.4, accuracy=0.8, lr=0.01), row(2, loss=0.6, accuracy=0.7, lr=0.001)]
    assert Tally(rows).as_json() == {
        "done": 3,
        "metrics": {"loss": 0.6, "accuracy": 0.7, "lr": 0.001},
        "best": {"loss": (0.4, 2), "accuracy": (0.8, 2)},
        "seconds": 0.5,
        "at_ms": 2000,
    }


def test_before_the_first_epoch_there_is_nothing() -> None:
    assert Tally().as_json() == {"done": 0, "metrics": {}, "best": {}, "seconds": 0.0, "at_ms": 0}


def test_the_pace_is_that_of_the_last_epochs_without_the_first_one_which_compiles() -> None:
    assert Tally([row(0, 9.0), *(row(i, 0.2) for i in range(1, 6)), row(6, 4.0)]).as_json()["seconds"] == 0.2


def test_no_number_is_no_best() -> None:
    assert Tally([row(0, loss=None), row(1, loss=2.0), row(2, loss=None)]).as_json()["best"] == {"loss": (2.0, 2)}


@hypothesis.given(st.lists(st.one_of(st.none(), st.floats(-1e9, 1e9, allow_nan=False)), max_size=30))
def test_its_best_is_the_one_that_the_card_stars(values: list[float | None]) -> None:
    for name in ("loss", "accuracy"):
        tally = Tally(row(i, **{name: value}) for i, value in enumerate(values))
        assert tally.as_json()["best"].get(name) == best(name, enumerate_from_one(values))


def enumerate_from_one(values: list[float | None]) -> list[tuple[int, float | None]]:
    return list(enumerate(values, 1))


def test_a_row_that_comes_late_counts_for_the_best_and_sets_nothing_back() -> None:
    tally = Tally([row(0, loss=0.9), row(2, loss=0.5), row(1, 0.0, loss=0.4)]).as_json()
    assert (tally["done"], tally["metrics"], tally["best"], tally["seconds"]) == (3, {"loss": 0.5}, {"loss": (0.4, 2)}, 0.5)
