"""The card where no server can tell more: fed by the kernel over the widget's comm, or by what the notebook file holds."""

from __future__ import annotations

import os
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, expect

from kafka_jupyter.outputs.bundle import MIME, WIDGET_VIEW, bundle
from tests.browser.lab import Lab
from tests.browser.stage import Stage
from tests.support.waiting import wait_until

pytestmark = pytest.mark.browser

RUN = "digits-3f2a9c01b7d4"

PRELUDE = """
import pathlib
from kafka_jupyter.notebook.card import Card

def state(word, **fields):
    return {"v": 1, "run_id": "digits-3f2a9c01b7d4", "short": "3f2a", "name": "digits", "state": word, "epochs": 4, "attempt": 1,
            "worker": "box", "terminal": word == "SUCCEEDED", "upto": 1, **fields}

def rows(count):
    return {"digits-3f2a9c01b7d4": [{"type": "epoch", "attempt": 1, "seq": i, "epoch": i, "metrics": {"loss": 1 / (i + 1)}}
                                    for i in range(count)]}

def until(name):  # the test says when to go on: a pipe, which waits by itself
    pathlib.Path(name).read_text()

wishes = []
card = Card(on_action=lambda run_id, verb: wishes.append((run_id, verb)))
"""
WAITING_CELL = """
card.show([state("RUNNING")], rows(1))
until("second")
card.update([state("RUNNING")], lambda: rows(2))
until("end")
card.finish([state("SUCCEEDED", epochs_done=4, started_ms=1000, ended_ms=5000)], rows(4))
"""


def state(**fields: Any) -> dict[str, Any]:
    known = {"v": 1, "run_id": RUN, "short": "3f2a", "name": "digits", "state": "SUCCEEDED", "terminal": True, "attempt": 1, "upto": 7}
    return known | {"epochs": 3, "epochs_done": 3, "worker": "box", "started_ms": 1000, "ended_ms": 4000} | fields


def epochs(count: int) -> dict[str, list[dict[str, Any]]]:
    return {RUN: [{"type": "epoch", "attempt": 1, "seq": i, "epoch": i, "metrics": {"val_loss": 1 / (i + 1)}} for i in range(count)]}


def test_without_plugin_and_server_the_kernel_moves_the_card(bare_stage: Stage, context: BrowserContext) -> None:
    lab = bare_stage.lab
    for name in ("second", "end"):
        os.mkfifo(lab.root / name)
    lab.write("comm.ipynb", PRELUDE, WAITING_CELL)
    book = lab.open(context, "comm.ipynb")
    book.wait_kernel()
    book.run(0)
    book.run(1)
    card = book.page.locator(".kj-Card[data-source=widget]")
    expect(card.locator(".kj-metrics thead")).to_contain_text("epoch 1")
    (lab.root / "second").write_text("go")
    expect(card.locator(".kj-metrics thead")).to_contain_text("epoch 2")
    expect(card.get_by_role("progressbar")).to_have_attribute("aria-valuetext", "running, epoch 2 of 4, loss 0.5000")
    stop = card.get_by_role("button", name="Stop")
    expect(stop).to_be_disabled()
    assert "interrupt the cell" in str(stop.get_attribute("title"))
    (lab.root / "end").write_text("go")
    expect(book.page.locator(".jp-OutputArea-output[data-mime-type='text/html']")).to_contain_text("SUCCEEDED")
    expect(card).to_have_count(0)
    book.save()
    wait_until(lambda: lab.saved("comm.ipynb")[1], "the notebook was not saved")
    ((output,),) = lab.saved("comm.ipynb")[1:]
    assert set(output) == {MIME, "text/html", "text/plain"}
    assert book.errors == []


def test_a_button_reaches_an_idle_kernel_over_the_comm(bare_stage: Stage, context: BrowserContext) -> None:
    lab = bare_stage.lab
    lab.write(
        "idle.ipynb", PRELUDE, 'card = Card(waiting=False, on_action=card._on_action); card.show([state("RUNNING")], rows(1))', "wishes"
    )
    book = lab.open(context, "idle.ipynb")
    book.wait_kernel()
    book.run(0)
    book.run(1)
    book.page.locator(".kj-Card").get_by_role("button", name="Cancel").click()
    expect(book.page.locator(".kj-Card").get_by_role("button", name="Cancelling…")).to_be_disabled()
    book.run(2)
    expect(book.page.locator(".jp-Notebook")).to_contain_text("[('digits-3f2a9c01b7d4', 'cancel')]")


def test_a_notebook_from_elsewhere_shows_the_run_as_it_was_saved(without_extension: Lab, context: BrowserContext) -> None:
    lab = without_extension
    final = bundle([state()], epochs(3), live=False)
    poor = {MIME: {"v": 1, "runs": [{"run_id": RUN, "cursor": ""}]}, "text/plain": "digits 3f2a  SUCCEEDED"}
    junk = {MIME: {"v": 1, "runs": [{"run_id": "<img src=x onerror=alert(1)>", "state": {"state": 7}, "rows": [None]}, 5]}}
    lab.write("saved.ipynb", "final", "poor", "junk", outputs={0: [final], 1: [poor], 2: [junk]})
    book = lab.open(context, "saved.ipynb")
    cards = book.page.locator(".kj-Card[data-source=renderer]")
    expect(cards.nth(0)).to_contain_text("3 epochs in 0:03")
    expect(cards.nth(0)).to_contain_text("This is what the notebook holds.")
    expect(cards.nth(0).get_by_role("button", name="Cancel")).to_be_hidden()
    cards.nth(0).get_by_role("button", name="Details").click()
    expect(cards.nth(0).locator(".kj-best")).to_have_text("0.3333 ★ @3")
    expect(cards.nth(0).locator(".uplot")).to_be_visible()
    expect(cards.nth(1).locator("pre.kj-saved")).to_have_text("digits 3f2a  SUCCEEDED")
    expect(cards.nth(2)).to_contain_text("<img src=x onerror=alert(1)>")
    assert book.page.locator(".kj-Card img").count() == 0
    assert book.hub["connection"] == "off"
    assert book.errors == []


def test_the_widget_of_a_finished_card_leaves_no_model_in_the_notebook(without_extension: Lab, context: BrowserContext) -> None:
    lab = without_extension
    finish = 'card.show([state("RUNNING")], rows(1)); card.finish([state("SUCCEEDED", epochs_done=4)], rows(4))'
    lab.write("closed.ipynb", PRELUDE, finish)
    book = lab.open(context, "closed.ipynb")
    book.wait_kernel()
    book.run(0)
    book.run(1)
    expect(book.page.locator(".kj-Card[data-source=renderer] .kj-Run[data-state=SUCCEEDED]")).to_be_visible()
    book.save()
    wait_until(lambda: WIDGET_VIEW not in (lab.saved("closed.ipynb")[1] or [{WIDGET_VIEW: 1}])[0], "the notebook was not saved")
    assert "widget-state" not in (lab.root / "closed.ipynb").read_text()
