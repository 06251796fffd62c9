"""The card of a run that is played into the log: it ends with the last row, and a long history costs it little."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.client import Client, TrainingRun
from kafka_jupyter.notebook import live
from kafka_jupyter.notebook.live import CellView, Converted
from kafka_jupyter.protocol import control
from kafka_jupyter.settings import Settings
from tests.support.playing import Player
from tests.support.waiting import wait_until


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with contextlib.closing(Log.open(Cluster(settings), create=True)), contextlib.closing(Client(settings)) as made:
        yield made


@pytest.fixture
def player(client: Client) -> Player:
    made = Player.new(client.connection().log, epochs=2)
    made.submit()
    made.claim()
    made.start()
    made.epoch(0, loss=0.9)
    return made


def ended_before_its_last_row(client: Client, player: Player) -> TrainingRun:
    """SUCCEEDED and the row of the first epoch have been read; that of the last epoch is not in the log yet."""
    assert player.last_row is not None
    player.say(control.Succeeded(**player.own(), epochs=2, metrics={"loss": 0.1}, log_end=player.last_row + 1))
    run = client.attach(player.run_id)
    wait_until(lambda: run.ended and len(run.rows()) == 1, "its end and its first row, of two topics, were never both read")
    assert not run.complete
    return run


def view_of(run: TrainingRun, headless: bool = False) -> CellView:
    view = CellView(headless, waiting=False, on_show=lambda _run: None)
    view.show(run)
    return view


def test_the_final_card_waits_for_the_row_of_the_last_epoch(client: Client, player: Player, capsys) -> None:
    view = view_of(ended_before_its_last_row(client, player))
    view.settle()
    assert not view.finished
    player.epoch(1, loss=0.1234)

    def settled() -> bool:
        view.settle()
        return view.finished

    wait_until(settled, "the card was never final")
    assert "loss 0.1234 @2" in capsys.readouterr().out


def test_headless_the_end_of_the_cell_waits_for_it(client: Client, player: Player, capsys) -> None:
    view = view_of(ended_before_its_last_row(client, player), headless=True)
    ending = threading.Thread(target=view.end)
    ending.start()
    player.epoch(1, loss=0.1234)
    ending.join(10)
    assert view.finished
    assert "loss 0.1234 @2" in capsys.readouterr().out


def test_a_last_row_that_never_comes_is_not_waited_for_for_ever(client: Client, player: Player, capsys, monkeypatch) -> None:
    view = view_of(ended_before_its_last_row(client, player))
    monkeypatch.setattr(live, "LAST_ROWS_S", 0.0)
    view.settle()
    assert view.finished
    assert "loss 0.9000 @1" in capsys.readouterr().out


def test_rows_are_converted_once(client: Client, player: Player) -> None:
    run = client.attach(player.run_id)
    rows = Converted(run)
    wait_until(lambda: len(rows.now()) == 1, "the first row was never read")
    (first,) = rows.now()
    player.line("a line, which no card shows")
    player.epoch(1)
    wait_until(lambda: len(rows.now()) == 2, "the second row was never read")
    assert rows.now()[0] is first
    assert [row["type"] for row in rows.now()] == ["epoch", "epoch"]
