"""The card where the Lab plugin is missing: the ipywidgets view, over the same stream of the server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, expect

from kafka_jupyter.notebook.card import MIME
from kafka_jupyter.runs.state import State
from tests.browser.stage import LOAD, Stage, running_stage
from tests.browser.test_live_card import READY_MS, wait_moving
from tests.support.scene import Scene
from tests.support.training import submit

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]


@pytest.fixture
def stage(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with running_stage(scene, tmp_path_factory.mktemp("widget"), disabled=["kafka-jupyter"]) as stage:
        yield stage
        stage.clear()


def test_without_the_plugin_the_widget_moves_and_stops_its_run_while_the_cell_waits(stage: Stage, context: BrowserContext) -> None:
    run = submit(stage.scene.log, "widget", epochs=100_000)
    book = stage.open(context, "widget", LOAD, f"run = %kafka_attach {run.run_id}\nprint('ended', run.wait().state)")
    book.run(0)
    book.run(1)
    card = book.cell(1).locator(".kj-Card[data-source=widget]")
    wait_moving(card)
    expect(card.locator("svg.kj-Svg")).to_be_visible()
    assert book.hub["connection"] == "open"
    assert book.hub["transport"] == "page"
    card.get_by_role("button", name="Stop", exact=True).click()
    expect(book.cell(1)).to_contain_text("ended SUCCEEDED", timeout=READY_MS)
    assert stage.scene.ended(run).state is State.SUCCEEDED
    expect(book.cell(1).locator(".jp-OutputArea-output[data-mime-type='text/html']")).to_contain_text("stopped early")
    book.save()
    (output,) = [data for data in stage.lab.saved("widget.ipynb")[1] if data]
    assert set(output) == {MIME, "text/html", "text/plain"}
    assert book.errors == []
