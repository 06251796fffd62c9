"""What `follow` shows on a terminal: all that a person asks, within any size, whatever others have written."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from kafka_jupyter.cli.picture import picture
from kafka_jupyter.protocol.rows import BatchProgress, EpochEnded, LogLine, Row
from kafka_jupyter.runs.state import RunState
from kafka_jupyter.runs.view import card_state
from tests.support.terminal import Screen

NOW = 1_000_000
HOSTILE = "\x1b[2J\x1b]0;owned\x07\x9b31m\x1b[999A\u202e\u2066\r\nevil\tname 名前 " + "́" * 500
SIZES = [(width, height) for width in (1, 7, 20, 46, 100) for height in (1, 2, 5, 12, 40)]


def card(**fields: Any) -> dict[str, Any]:
    known = {
        "state": "RUNNING",
        "name": "digits",
        "epochs": 20,
        "attempt": 1,
        "worker": "gpu-1",
        "host": "box",
        "device": "gpu",
        "started_ms": NOW - 60_000,
        "heartbeat_ms": NOW - 2000,
    }
    return card_state(RunState(run_id="digits-3f2a9c01b7d4"), now_ms=NOW) | known | fields


def rows(epochs: int = 4, lines: int = 3) -> list[tuple[int, Row]]:
    ended = [EpochEnded(i, i, 40, {"loss": 1 / (i + 1), "val_loss": abs(i - 2) + 0.5}, 2.0, NOW) for i in range(epochs)]
    return [*((1, row) for row in ended), *((1, LogLine(100 + i, epochs, 0, f"line {i}")) for i in range(lines))]


def drawn(shown: dict[str, Any], known: list[tuple[int, Row]], width: int = 100, height: int = 30) -> str:
    """As it would stand on a terminal of that size, which nothing has steered."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=width, height=height, color_system="truecolor", legacy_windows=False)
    console.print(picture(shown, known, NOW, width, height), end="")
    screen = Screen(width, 1000)
    screen.feed(file.getvalue().replace("\n", "\r\n"))
    return screen.text


def test_a_running_run_shows_how_far_it_is_what_it_reached_and_what_it_said() -> None:
    lines = drawn(card(), rows()).splitlines()
    assert lines[0] == " RUNNING  digits-3f2a9c01b7d4  epoch 4 of 20 · 0:32 left"
    assert lines[1].startswith("━━━━━━━━━━━━╺")
    assert lines[1].endswith(" 20%")
    assert lines[2] == "worker gpu-1 on box, gpu · heartbeat 2 s ago"
    assert [line.split() for line in lines[3:6]] == [
        ["metric", "last", "best"], ["loss", "0.2500", "0.2500", "@4"], ["val_loss", "1.5000", "0.5000", "★", "@3"],
    ]  # fmt: skip
    assert lines[6:] == ["│ line 0", "│ line 1", "│ line 2"]


def test_the_bar_moves_within_an_epoch() -> None:
    assert "25%" in drawn(card(), [*rows(4, 0), (1, BatchProgress(50, 4, 40, 40))])


def test_a_waiting_run_shows_its_place_and_why_it_waits() -> None:
    waiting = "Waiting for a free slot: 1 worker is busy."
    queued = card(state="QUEUED", attempt=0, queue=2, waiting=waiting, worker="", submitted_ms=NOW - 5000, heartbeat_ms=None)
    lines = drawn(queued, []).splitlines()
    assert lines[0] == " QUEUED  digits-3f2a9c01b7d4  place 2 in the queue"
    assert lines[2:] == [waiting, "submitted 5 s ago"]


def test_a_paused_and_a_retried_run_say_what_a_person_should_know() -> None:
    paused = drawn(card(state="PAUSED", checkpoint={"epoch": 4, "step": 0}), rows())
    assert "Paused after epoch 4; kafka-jupyter resume digits-3f2a goes on." in paused
    again = card(state="RETRYING", attempt=2, error={"error": "signal", "message": "out of memory"}, warning="It gets too old.")
    assert "The last attempt failed: signal: out of memory" in drawn(again, rows())
    assert "It gets too old." in drawn(again, rows())
    assert "attempt 2" in drawn(again, rows())


def test_a_name_that_its_id_does_not_tell_is_shown_too() -> None:
    assert drawn(card(name="Digits, wide"), []).startswith(" RUNNING  digits-3f2a9c01b7d4 Digits, wide  epoch 1 of 20")


def test_an_ended_run_shows_its_result() -> None:
    ended = {
        "terminal": True,
        "started_ms": 1000,
        "ended_ms": 18_500,
        "files": ["a", "b", "c", "d", "e"],
        "retry_of": "digits-0a1b2c3d4e5f",
        "code": True,
    }
    lines = drawn(card(state="SUCCEEDED", epochs_done=20, **ended), rows(20, 0)).splitlines()
    assert lines[0] == " SUCCEEDED  digits-3f2a9c01b7d4  20 epochs in 0:17"
    assert lines[1].endswith(" 100%")
    assert lines[2] == "worker gpu-1 on box, gpu · runs your code · retry of digits-0a1b2c3d4e5f · a, b, c and 2 more files"


def test_where_there_is_little_room_what_matters_stays() -> None:
    lines = drawn(card(), rows(), width=34, height=7).splitlines()
    assert lines[:2] == [" RUNNING  digits-3f2a9c01b7d4", "epoch 4 of 20 · 0:32 left"]
    assert lines[-1].split()[:2] == ["val_loss", "1.5000"]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_it_fits_and_nothing_that_others_wrote_steers_the_terminal(width: int, height: int) -> None:
    named = dict.fromkeys(("name", "run_id", "worker", "host", "device", "waiting", "warning", "retry_of"), HOSTILE)
    error = {"error": HOSTILE, "message": HOSTILE}
    evil = card(**named, state="RETRYING", files=[HOSTILE] * 4, error=error, queue=3, attempt=7, ended_by=HOSTILE)
    known = [(1, EpochEnded(i, i, 1, {HOSTILE: 1.0, "n" * 5000: None, "loss": 1e308}, 1e308, NOW)) for i in range(2)]
    text = drawn(evil, [*known, *((1, LogLine(10 + i, 2, 0, HOSTILE * 3)) for i in range(30))], width, height)
    assert len(text.splitlines()) <= max(1, height - 1)
    assert max(map(cell_len, text.splitlines())) <= width
    assert [c for c in text if not c.isprintable() and c != "\n"] == []
    assert "\u0301" * 4 not in text, "marks reach into the lines above"


def test_a_line_of_ten_megabytes_costs_no_more_than_what_is_seen_of_it() -> None:
    long = [*rows(), *((1, LogLine(200 + i, 4, 0, "\x1b[31mx" * 2_000_000)) for i in range(8))]
    started = time.monotonic()
    assert drawn(card(name="n" * 10_000_000, waiting="w" * 10_000_000), long).splitlines()[-1].startswith("│ xxxx")
    assert time.monotonic() - started < 1.0
