"""The sidebar over a real worker: what runs is seen live and can be steered, by mouse and by keyboard alone."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, expect

from kafka_jupyter.protocol.task import Requirements
from kafka_jupyter.runs.state import State
from tests.browser.panel import Panel
from tests.browser.stage import PRELUDE, Stage
from tests.browser.test_live_card import READY_MS, endless_cell
from tests.browser.test_pictures import nine_classes
from tests.support.pace import paced
from tests.support.scene import gone
from tests.support.training import Submission, endless, mlp, submit, task_of
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


def moving(stage: Stage, name: str) -> Submission:
    run = endless(stage.scene.log, name)
    stage.scene.running(run)
    return run


def talkative() -> Any:
    """Writes a line after nearly every epoch, and changes next to nothing."""
    import keras

    return keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.999999, patience=1, min_delta=1e6, verbose=1)


def test_the_list_is_live_and_its_runs_are_steered_from_it(stage: Stage, context: BrowserContext) -> None:
    scene = stage.scene
    failed = submit(scene.log, "nine-classes", model=nine_classes(), epochs=50)
    scene.ended(failed)
    waiting = submit(scene.log, "wide-net", task=task_of(mlp(), "wide-net", 256, 20, requirements=Requirements(device="gpu")))
    one, two = moving(stage, "one"), moving(stage, "two")
    panel = Panel.open(stage.lab, context)
    expect(panel.node.locator(".kj-standing")).to_have_text("live")
    row = panel.row(one.run_id)
    expect(row.locator(".kj-rowFar")).to_have_text(re.compile(r"\d+/100000"))
    expect(row.locator(".kj-rowMetric")).to_have_text("accuracy")
    expect(row.locator(".kj-rowPulse")).to_have_text(re.compile(r"heartbeat \d+ s ago · .* left"))
    before = row.locator(".kj-rowFar").inner_text()
    expect(row.locator(".kj-rowFar")).not_to_have_text(before)
    expect(panel.row(failed.run_id)).to_contain_text("failed")
    expect(panel.row(failed.run_id)).to_contain_text("InvalidArgumentError")
    expect(panel.row(waiting.run_id).locator(".kj-rowFar")).to_have_text("1st")
    expect(panel.row(waiting.run_id)).to_contain_text("no worker has a GPU")
    expect(panel.page.locator(".kj-status")).to_have_text("Kafka: 2 running, 1 queued")
    panel.tab("Queue").click()
    expect(panel.node.locator(".kj-Queue li")).to_contain_text("no worker has a GPU")
    panel.tab("Workers").click()
    expect(panel.node.locator(".kj-Worker")).to_contain_text("0 of 2 slots free")
    expect(panel.node.locator(".kj-Worker")).to_contain_text("keras 3.")
    expect(panel.node.locator(".kj-walls")).to_have_text("keeps trainings from: keys, more rights, all memory")
    panel.tab("Runs").click()

    # several at once: one gesture, one question
    row.click(modifiers=["Control"])
    panel.row(two.run_id).click(modifiers=["Control"])
    pids = [scene.child_pid(run) for run in (one, two)]
    panel.button("Cancel").click()
    dialog = panel.page.locator(".jp-Dialog")
    expect(dialog).to_contain_text("Cancel: 2 runs")
    dialog.get_by_role("button", name="Cancel", exact=True).click()
    for run in (one, two):
        expect(panel.row(run.run_id)).to_have_attribute("data-state", "CANCELLED", timeout=READY_MS)
    wait_until(lambda: all(map(gone, pids)), "a child outlived its run")
    expect(panel.page.locator(".Toastify")).to_contain_text("cancelled")
    expect(panel.page.locator(".kj-status")).to_have_text("Kafka: 0 running, 1 queued")
    assert panel.errors == []


def test_one_run_is_seen_whole_paused_resumed_slowed_down_and_stopped(stage: Stage, context: BrowserContext) -> None:
    scene = stage.scene
    run = submit(scene.log, "whole", epochs=100_000, batch_size=32, callbacks=[talkative(), paced()])
    scene.running(run)
    panel = Panel.open(stage.lab, context)
    panel.row(run.run_id).click()
    detail = panel.node.locator(".kj-Detail")
    expect(detail.locator(".kj-when")).to_have_text(re.compile(r"epoch \d+ of 100000"))
    expect(detail.locator(".kj-log")).to_contain_text(re.compile(r"Epoch \d+: ReduceLROnPlateau reducing"))
    expect(detail.get_by_role("row", name="batch_size 32")).to_be_visible()
    expect(detail.get_by_role("row", name="optimizer.learning_rate 0.001")).to_be_visible()
    detail.get_by_text("Attempts (1)").click()
    expect(detail.locator(".kj-attempts li")).to_contain_text("from epoch 1")
    detail.get_by_text(re.compile(r"Artifacts \(\d+\)")).click()
    expect(detail.get_by_role("row", name="data/0 input")).to_be_visible()
    panel.button("Learning rate…").click()
    dialog = panel.page.locator(".jp-Dialog")
    dialog.get_by_role("textbox").fill("0.0005")
    dialog.get_by_role("button", name="Change").click()
    expect(detail.locator(".kj-Card")).to_contain_text(re.compile(r"learning_rate 5\.000e-4 since epoch"), timeout=READY_MS)
    panel.button("Learning rate…").click()
    dialog.get_by_role("textbox").fill("fast")
    dialog.get_by_role("button", name="Change").click()
    expect(panel.node.get_by_role("alert")).to_contain_text("fast is no learning rate")
    panel.button("Dismiss").click()
    panel.button("Pause").click()
    expect(detail.locator(".kj-chip")).to_have_text("PAUSED", timeout=READY_MS)
    panel.button("Resume").click()
    expect(detail.locator(".kj-chip")).to_have_text("RUNNING", timeout=READY_MS)
    expect(detail.get_by_text("Attempts (2)")).to_be_visible()
    panel.button("Stop").click()
    expect(detail.locator(".kj-chip")).to_have_text("SUCCEEDED", timeout=READY_MS)
    assert scene.ended(run).state is State.SUCCEEDED
    expect(detail.get_by_role("row", name="weights result")).to_be_visible()
    panel.button("Open in a tab").click()
    tab = panel.page.locator(".kj-mod-main .kj-Detail")
    expect(tab.locator(".kj-chip")).to_have_text("SUCCEEDED")
    expect(panel.rows.first).to_be_visible()
    assert panel.errors == []


def test_a_run_leads_back_to_its_notebook_and_cell(stage: Stage, context: BrowserContext) -> None:
    book = stage.open(context, "origin", PRELUDE, *["1 + 1"] * 12, endless_cell("origin"), own_kernel=True)
    book.run(0)
    cell = book.page.locator(".jp-Notebook .jp-CodeCell").nth(13)
    book.run(13)
    run = stage.submission("origin")
    stage.scene.running(run)
    panel = Panel.open(stage.lab, context, "/workspaces/other")  # the first page has the default one
    panel.row(run.run_id).click()
    panel.button("Open notebook").click()
    opened = panel.page.locator(".jp-Notebook .jp-CodeCell").nth(13)
    expect(opened).to_have_class(re.compile("jp-mod-active"))
    expect(opened).to_be_in_viewport()
    expect(opened).to_contain_text("%%kafka_train origin")
    panel.node.get_by_text("The cell", exact=True).click()
    expect(panel.node.locator("pre", has_text="%%kafka_train origin")).to_be_visible()
    run.cancel()
    expect(cell).to_contain_text("RunCancelled", timeout=READY_MS)
    assert panel.errors == []
