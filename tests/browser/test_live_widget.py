"""The card where the Lab plugin is missing: the ipywidgets view, over the stream of the server or, without one, from the kernel."""

from __future__ import annotations

import pytest
from playwright.sync_api import BrowserContext, expect

from kafka_jupyter.outputs.bundle import MIME
from kafka_jupyter.runs.state import State
from tests.browser.stage import LOAD, PRELUDE, Stage
from tests.browser.test_live_card import READY_MS, endless_cell, wait_moving
from tests.support.training import endless

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


def test_without_the_plugin_the_widget_moves_and_stops_its_run_while_the_cell_waits(
    stage_without_plugin: Stage, context: BrowserContext
) -> None:
    stage = stage_without_plugin
    run = endless(stage.scene.log, "widget")
    book = stage.open(context, "widget", LOAD, f"run = %kafka_attach {run.run_id}\nprint('ended', run.wait().state)")
    book.run(0)
    book.run(1)
    card = book.output(1).locator(".kj-Card[data-source=widget]")
    wait_moving(card)
    expect(card.locator("svg.kj-Svg")).to_be_visible()
    assert book.hub["connection"] == "open"
    assert book.hub["transport"] == "page"
    card.get_by_role("button", name="Stop", exact=True).click()
    expect(book.output(1)).to_contain_text("ended SUCCEEDED", timeout=READY_MS)
    assert stage.scene.ended(run).state is State.SUCCEEDED
    expect(book.output(1).locator(".jp-OutputArea-output[data-mime-type='text/html']")).to_contain_text("stopped early")
    book.save()
    (output,) = [data for data in stage.lab.saved("widget.ipynb")[1] if data]
    assert set(output) == {MIME, "text/html", "text/plain"}
    assert book.errors == []


def test_without_any_server_an_interrupted_cell_leaves_a_card_that_moves_and_stops_its_run(
    bare_stage: Stage, context: BrowserContext
) -> None:
    stage = bare_stage
    book = stage.open(context, "alone", PRELUDE, endless_cell("alone"))
    book.run(0)
    book.run(1)
    card = book.output(1).locator(".kj-Card[data-source=widget]")
    wait_moving(card)
    assert book.hub["connection"] == "off"
    stop = card.get_by_role("button", name="Stop", exact=True)
    expect(stop).to_be_disabled()
    stage.lab.api(f"api/kernels/{stage.kernel}/interrupt", "POST")
    expect(book.output(1)).to_contain_text("goes on without this cell", timeout=READY_MS)
    wait_moving(card)
    stop.click()
    assert stage.scene.ended(stage.submission("alone")).state is State.SUCCEEDED
    expect(book.output(1).locator(".jp-OutputArea-output[data-mime-type='text/html']")).to_contain_text("stopped early", timeout=READY_MS)
    assert book.errors == []
