"""An attempt that cannot go its way leaves its run to others, or says why it ends: with a real log, store and children, and no training."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator

import pytest

from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol import control
from kafka_jupyter.settings import Settings
from kafka_jupyter.worker.children import Children
from tests.support.attempts import attended
from tests.support.sites import a_site
from tests.support.training import submit


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    with contextlib.closing(Children(train="tests.support.entries:train", equipment="tests.support.entries:equipment")) as made:
        yield made


def test_a_worker_that_cannot_start_a_child_leaves_the_run_to_others(log: Log, settings: Settings, tmp_path: pathlib.Path) -> None:
    with (
        contextlib.closing(Children(train="no_such_module:main", equipment="tests.support.entries:equipment")) as children,
        a_site(log, settings, tmp_path, children) as (site, loop),
        attended(site, loop, submit(log)) as made,
    ):
        released = made.end()
        assert isinstance(released, control.Released)
        assert released.reason == "unfit"
        assert "No module named 'no_such_module'" in released.detail
        assert made.attempt.healthy is False
