"""Notebook 7: the card lives in its notebooks, and the list of runs in its left sidebar, with what its shell has."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, expect

from kafka_jupyter.outputs.bundle import MIME
from kafka_jupyter.runs.state import State
from tests.browser.lab import Notebook
from tests.browser.panel import Panel
from tests.browser.stage import LOAD, Stage, running_stage
from tests.browser.test_live_card import READY_MS, epoch_of, wait_moving
from tests.support.scene import Scene
from tests.support.training import Submission, endless
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def notebook7(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with running_stage(scene, tmp_path_factory.mktemp("notebook7"), application="notebook") as stage:
        yield stage
        stage.clear()


@pytest.fixture(scope="module")
def run(notebook7: Stage) -> Submission:
    run = endless(notebook7.scene.log, "seven")
    notebook7.scene.running(run)
    return run


def ours(errors: list[str]) -> list[str]:
    """Notebook 7 raises one itself, as it looks for the schema of a plugin that it does not have."""
    return [error for error in errors if "kafka-jupyter" in error]


def open_sidebar(book: Notebook, stage: Stage) -> Panel:
    """By the menu, as a person finds it."""
    panel = Panel(stage.lab, book.page)
    book.page.locator("#jp-MainMenu").get_by_text("View", exact=True).click()
    book.page.locator(".lm-Menu-item", has_text="Left Sidebar").hover()
    book.page.locator(".lm-Menu-item", has_text="Show Kafka Runs").click()
    expect(panel.node).to_be_visible()
    return panel


def test_its_sidebar_lists_runs_live_and_opens_one(notebook7: Stage, run: Submission, context: BrowserContext) -> None:
    notebook7.lab.write("list.ipynb", "")
    book = notebook7.lab.open(context, "list.ipynb")
    panel = open_sidebar(book, notebook7)
    expect(panel.node.locator(".kj-standing")).to_have_text("live")
    far = panel.row(run.run_id).locator(".kj-rowFar")
    expect(far).to_have_text(re.compile(r"\d+/100000"))
    before = far.inner_text()
    expect(far).not_to_have_text(before)
    panel.row(run.run_id).click()
    wait_moving(panel.node.locator(".kj-Card"))
    expect(panel.button("Learning rate…")).to_be_visible()
    expect(panel.button("Open in a tab")).to_have_count(0)  # its shell has no tabs
    panel.button("‹ All runs").click()
    expect(panel.row(run.run_id)).to_be_visible()
    assert ours(book.errors) == []


def test_its_card_moves_comes_back_after_a_reload_and_saves_the_result(notebook7: Stage, run: Submission, context: BrowserContext) -> None:
    lab = notebook7.lab
    lab.write(
        "seven.ipynb", f"{LOAD}\nrun = %kafka_attach {run.run_id}", "", outputs={1: [{MIME: {"v": 1, "runs": [{"run_id": run.run_id}]}}]}
    )
    lab.start_kernel("seven.ipynb")
    book = lab.open(context, "seven.ipynb")
    book.wait_kernel()
    book.run(0)
    card = book.output(0).locator(".kj-Card[data-source=renderer]")
    wait_moving(card)
    expect(card.locator(".uplot canvas")).to_be_visible()
    seen = epoch_of(card)
    book.save()
    wait_until(lambda: MIME in str(lab.saved("seven.ipynb")[0]), "the notebook was not saved")
    book.reload()
    wait_moving(card)
    assert epoch_of(card) > seen

    without_kernel = book.output(1).locator(".kj-Card[data-source=renderer]")
    card.get_by_role("button", name="Stop", exact=True).click()
    expect(without_kernel.locator(".kj-chip")).to_have_text("SUCCEEDED", timeout=READY_MS)
    assert notebook7.scene.ended(run).state is State.SUCCEEDED
    button = without_kernel.get_by_role("button", name="Save result into notebook")
    button.click()
    expect(button).to_be_hidden()
    (bundle,) = wait_until(lambda: [data for data in lab.saved("seven.ipynb")[1] if "text/html" in data], "the result was never saved")
    assert "stopped early" in bundle["text/plain"]
    assert ours(book.errors) == []
