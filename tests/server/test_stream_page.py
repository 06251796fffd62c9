"""The page's own code at the other end of the stream: StreamHub and History, run by node."""

from __future__ import annotations

import pathlib

from kafka_jupyter.brokers.log import Log
from kafka_jupyter.settings import Settings
from tests.support import cli
from tests.support.cuts import HURRY, cut
from tests.support.jupyter_server import jupyter_server
from tests.support.local import environment


def test_cut_at_300_random_bytes_the_page_has_every_row_once(settings: Settings, log: Log, tmp_path: pathlib.Path) -> None:
    with jupyter_server(tmp_path / "server", environment(settings, **cli.environment(settings)), *HURRY) as server:
        told = cut(server, log, tmp_path, cuts=300, seed=11)
    assert (told["cuts"], told["missing"], told["double"], told["strange"], told["resets"]) == (300, 0, 0, 0, 0)
    assert told["otherHistories"] == 0
    assert told["rows"] > 500
