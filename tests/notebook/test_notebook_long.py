"""A run of 100,000 epochs: its card must not take the kernel's time."""

from __future__ import annotations

import contextlib
import pathlib

from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol.rows import EpochEnded
from tests.support.notebooks import MIME, run_notebook
from tests.support.playing import Player
from tests.support.scene import Scene

EPOCHS = 100_000
CELL = """
import time
from kafka_jupyter import attach
from kafka_jupyter.notebook.live import CellView
run = attach("long")
view = CellView(False, waiting=True, on_show=lambda run: None)
view.show(run)
started = time.process_time()
for _ in range(100):
    view.refresh()
print("spent", time.process_time() - started)
view.end()
"""


def test_the_card_of_a_long_run_costs_the_waiting_cell_little(shared: Scene, kernel_env: dict[str, str], tmp_path: pathlib.Path) -> None:
    with contextlib.closing(Log.open(Cluster(shared.settings))) as log:
        player = Player.new(log, "long", EPOCHS + 1)
        player.submit()
        player.claim()
        player.start()
        for begin in range(0, EPOCHS, 2000):
            player.rows(*(EpochEnded(player.next_seq(), epoch, 1, {"loss": 1.0}, 0.1, 0) for epoch in range(begin, begin + 2000)))
        env = kernel_env | {"KAFKA_JUPYTER_OWNER": "ada@test"}
        ran = run_notebook({"load": "%load_ext kafka_jupyter", "look": CELL}, tmp_path, env)["look"]
        player.succeed()
    assert ran.error is None
    assert float(ran.text.split()[1]) < 3, "one look takes some tenths of a second: a hundred must not take a hundred times that"
    assert f"epoch {EPOCHS} of {EPOCHS + 1}" in ran.cards[0]["text/plain"]
    assert MIME in ran.cards[0]
