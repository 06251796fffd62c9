"""The static card: what the front end says, HTML that holds for hostile text and for hosts that strip it, plain text."""

from __future__ import annotations

import html.parser
import json
import pathlib
from typing import Any

import pytest

from kafka_jupyter.outputs.bundle import MIME, SAVED_EPOCHS, bundle
from kafka_jupyter.outputs.statichtml import page, plain

ROOT = pathlib.Path(__file__).parents[2]
CASES: dict[str, Any] = json.loads((ROOT / "labextension/tests/cases.json").read_text())
HOSTILE = "</td><script>alert('x')</script>\" onload='y' &amp; \x1b[31m 名前"


def state(**fields: Any) -> dict[str, Any]:
    known = {
        "v": 1,
        "run_id": "digits-3f2a9c01b7d4",
        "short": "3f2a",
        "name": "digits",
        "state": "SUCCEEDED",
        "terminal": True,
        "attempt": 1,
        "epochs": 20,
        "initial_epoch": 0,
        "epochs_done": 20,
        "worker": "gpu-box-1",
        "device": "cpu",
        "started_ms": 1_000,
        "ended_ms": 18_500,
        "queue": None,
        "waiting": "",
        "error": None,
        "files": [],
        "cursor": "1.0:7",
    }
    return known | fields


def epoch(number: int, **metrics: float | None) -> dict[str, Any]:
    return {"type": "epoch", "attempt": 1, "seq": number, "epoch": number, "metrics": metrics, "seconds": 0.5}


def rows(count: int = 20) -> list[dict[str, Any]]:
    return [epoch(i, loss=1 / (i + 1), val_loss=1.2 / (i + 1), val_accuracy=0.9 + 0.004 * min(i, 17)) for i in range(count)]


class Tags(html.parser.HTMLParser):
    """Every tag and attribute of a page, and its text; fails on tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.handle_startendtag(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.mark.parametrize(("fields", "text"), CASES["steer"])
def test_how_a_run_was_paused_or_cancelled_is_said_as_in_the_front_end(fields: dict[str, Any], text: str) -> None:
    shown = state(**fields, terminal=fields["state"] in ("CANCELLED", "FAILED"))
    assert text in plain([shown], {})
    assert text in page([shown], {})


@pytest.mark.parametrize(("applied", "text"), CASES["since"])
def test_a_change_is_said_as_in_the_front_end(applied: dict[str, Any] | None, text: str) -> None:
    assert text in page([state(state="RUNNING", terminal=False, applied=applied)], {})


@pytest.mark.parametrize("ended", ["FAILED", "CANCELLED", "DEAD"])
def test_a_run_that_ended_badly_says_how_to_retry_it(ended: str) -> None:
    assert "%kafka_retry digits-3f2a9c01b7d4" in page([state(state=ended)], {})
    assert "%kafka_retry" not in page([state()], {})
    assert ("runs your code" in page([state(code=True)], {}), "runs your code" in page([state()], {})) == (True, False)
    assert "retry of digits-0a1b" in page([state(retry_of="digits-0a1b2c3d4e5f")], {})


def test_the_text_of_a_finished_run_is_one_line_with_its_best_values() -> None:
    assert plain([state()], {"digits-3f2a9c01b7d4": rows()}) == (
        "digits 3f2a  SUCCEEDED  20 epochs in 0:17  val_accuracy 0.9680 @18  val_loss 0.0600 @20"
    )


def test_the_text_of_a_failed_run_says_what_went_wrong_and_where() -> None:
    error = {"reason": "exception", "error": "ValueError", "message": "shapes differ", "traceback": "…", "attempt": 2, "worker": "cpu-2"}
    first, second = plain([state(state="FAILED", epochs_done=None, error=error)], {"digits-3f2a9c01b7d4": rows(3)}).splitlines()
    assert first == "digits 3f2a  FAILED  epoch 3 of 20 after 0:17  val_accuracy 0.9080 @3  val_loss 0.4000 @3"
    assert second == "  ValueError on worker cpu-2: shapes differ"


def test_a_waiting_run_says_what_it_waits_for() -> None:
    queued = state(state="QUEUED", terminal=False, attempt=0, queue=2, waiting="No worker has a GPU.", started_ms=None, ended_ms=None)
    assert plain([queued], {}) == "digits 3f2a  QUEUED  place 2 in the queue\n  No worker has a GPU."
    assert "No worker has a GPU." in page([queued], {})


def test_a_run_that_gets_too_old_says_so_until_it_has_ended() -> None:
    old = state(state="RUNNING", terminal=False, warning="It will be ended in 2 d 12 h.")
    assert plain([old], {}).splitlines()[1:] == ["  It will be ended in 2 d 12 h."]
    assert "It will be ended in 2 d 12 h." in page([old], {})
    assert "It will be ended" not in page([{**old, "terminal": True}], {}) + plain([{**old, "terminal": True}], {})


def test_several_runs_are_several_blocks_of_one_output() -> None:
    states = [state(), state(run_id="wide-b81c00000000", short="b81c", name="wide", state="RUNNING", terminal=False)]
    assert len(plain(states, {}).splitlines()) == 2
    assert "b81c" in page(states, {})


def test_hostile_text_stays_text() -> None:
    error = {"reason": "exception", "error": HOSTILE, "message": HOSTILE, "traceback": HOSTILE, "attempt": HOSTILE, "worker": HOSTILE}
    evil = state(state="FAILED", name=HOSTILE, short=HOSTILE, worker=HOSTILE, device=HOSTILE, files=[HOSTILE], error=error)
    tags = Tags(page([evil], {"digits-3f2a9c01b7d4": [epoch(0, **{HOSTILE: 1.0}), epoch(1, loss=float("nan"), **{HOSTILE: None})]}))
    assert "script" not in tags.tags
    assert not {name for name in tags.attributes if name.startswith("on")}
    assert HOSTILE in tags.text


def test_the_html_needs_no_script_no_style_sheet_and_no_network() -> None:
    tags = Tags(page([state()], {"digits-3f2a9c01b7d4": rows()}))
    assert tags.tags <= {"div", "p", "strong", "span", "code", "table", "thead", "tbody", "tr", "th", "td", "svg", "path", "polyline"}
    assert not tags.attributes & {"src", "href", "class", "id"}


def test_what_a_host_leaves_when_it_strips_styles_and_pictures_still_reads_well() -> None:
    text = " ".join(" ".join(Tags(page([state()], {"digits-3f2a9c01b7d4": rows()})).text).split())
    assert text == (
        "SUCCEEDED digits 3f2a 20 epochs in 0:17 metric epoch 20 best loss 0.0500 0.0500 @20 val_loss 0.0600 0.0600 ★ @20 "
        "val_accuracy 0.9680 0.9680 @18 worker gpu-box-1 · cpu %kafka_attach digits-3f2a9c01b7d4"
    )


def test_a_run_without_any_epoch_has_a_page_too() -> None:
    cancelled = state(state="CANCELLED", epochs_done=None, started_ms=None, worker="", metrics={})
    assert "your weights are as before" in page([cancelled], {})


def test_the_final_bundle_stands_alone_and_stays_small() -> None:
    final = bundle([state()], {"digits-3f2a9c01b7d4": rows(5000)}, live=False)
    assert set(final) == {MIME, "text/html", "text/plain"}
    (run,) = final[MIME]["runs"]
    assert (run["run_id"], run["cursor"], len(run["rows"])) == ("digits-3f2a9c01b7d4", "1.0:7", SAVED_EPOCHS)
    assert [run["rows"][0]["epoch"], run["rows"][-1]["epoch"]] == [0, 4999]
    assert len(json.dumps(final)) < 80_000


def test_the_live_bundle_leaves_the_rows_to_the_log() -> None:
    (run,) = bundle([state()], {"digits-3f2a9c01b7d4": rows()}, live=True)[MIME]["runs"]
    assert "rows" not in run


def test_a_long_traceback_is_cut_at_its_end_that_matters() -> None:
    error = {
        "reason": "exception",
        "error": "E",
        "message": "",
        "traceback": "x" * 100_000 + "ValueError: here",
        "attempt": 1,
        "worker": "w",
    }
    final = bundle([state(state="FAILED", error=error)], {}, live=False)
    assert final[MIME]["runs"][0]["state"]["error"]["traceback"].endswith("ValueError: here")
    assert len(json.dumps(final)) < 60_000
