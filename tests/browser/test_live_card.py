"""A real JupyterLab in a real browser, a real worker, a real Kafka: the card lives while the cell waits, and after everything went away."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import signal

import nbformat
import pytest
from playwright.sync_api import BrowserContext, Locator, expect

from kafka_jupyter.brokers import local
from kafka_jupyter.outputs.bundle import MIME
from kafka_jupyter.protocol.task import Requirements
from kafka_jupyter.runs.state import State
from tests.browser.lab import ROOT
from tests.browser.stage import LOAD, PRELUDE, Stage
from tests.support.pace import paced_in_a_cell
from tests.support.scene import READY_S, gone
from tests.support.training import endless, mlp, submit, task_of
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

READY_MS = 1000 * READY_S
MOVING = re.compile(r"epoch \d+ of 100000")

# One entry a render: what a render changes, it changes at once.
RECORD_RENDERS = """card => {
  window.renders = [];
  new MutationObserver(() => {
    const now = performance.now();
    if (now - (window.renders.at(-1) ?? -1000) > 20) {
      window.renders.push(now);
    }
  }).observe(card, {subtree: true, childList: true, characterData: true, attributes: true});
}"""


def endless_cell(name: str, then: str = "", optimizer: str = "'adam'", calm: bool = True) -> str:
    """Its epochs end as fast as they can, or some in a second, which leaves the processor to the others."""
    callbacks = f"callbacks=[{paced_in_a_cell()}], " if calm else ""
    return (
        f"%%kafka_train {name}\nmodel = make_model({optimizer})\nbefore = model.get_weights()\n"
        f"history = model.fit(x, y, validation_split=0.2, epochs=100_000, {callbacks}verbose=0)\n{then}"
    )


def epoch_of(card: Locator) -> int:
    """Of the running card, 0 before its first one has ended."""
    found = re.match(r"epoch (\d+) of", card.locator(".kj-when").inner_text())
    return int(found[1]) if found else 0


def wait_moving(card: Locator, epochs: int = 3) -> None:
    """Until it runs and has gone on by some epochs."""
    expect(card.locator(".kj-Run")).to_have_attribute("data-state", "RUNNING", timeout=READY_MS)
    expect(card.locator(".kj-when")).to_have_text(MOVING, timeout=READY_MS)
    first = epoch_of(card)
    wait_until(lambda: epoch_of(card) >= first + epochs, "the card does not move", within=READY_S)


def test_the_card_moves_while_the_cell_waits_and_stop_ends_the_run_with_its_weights(stage: Stage, context: BrowserContext) -> None:
    after = 'print("trained:", any((a != b).any() for a, b in zip(before, model.get_weights())), len(history.epoch))'
    book = stage.open(context, "stop", PRELUDE, endless_cell("stop", after, calm=False))
    book.run(0)
    book.run(1)
    card = book.output(1).locator(".kj-Card[data-source=renderer]")
    wait_moving(card)
    bar = card.get_by_role("progressbar")
    assert 0 < int(bar.get_attribute("aria-valuenow") or "") <= 100_000
    expect(bar).to_have_attribute("aria-valuemax", "100000")
    expect(bar).to_have_attribute("aria-valuetext", re.compile(r"running, epoch \d+ of 100000, accuracy 0\.\d+, loss \d"))
    expect(card.locator(".uplot canvas")).to_be_visible()
    expect(card.locator(".kj-metrics tbody tr")).to_have_count(4)
    card.evaluate(RECORD_RENDERS)
    wait_until(lambda: len(book.page.evaluate("renders")) >= 40, "the card does not move", within=READY_S)
    renders = book.page.evaluate("renders")
    assert 1000 * (len(renders) - 1) / (renders[-1] - renders[0]) <= 4.1, renders
    expect(book.prompt(1)).to_have_text("[*]:")
    height = card.bounding_box()["height"]
    card.get_by_role("button", name="Stop", exact=True).click()
    expect(book.output(1)).to_contain_text("trained: True", timeout=READY_MS)
    expect(card.locator(".kj-chip")).to_have_text("SUCCEEDED")
    expect(card.locator(".kj-when")).to_contain_text("stopped early")
    expect(card.get_by_role("status")).to_have_text(re.compile("now: succeeded"))
    assert abs(card.bounding_box()["height"] - height) <= 2, "the page jumped at the end"
    ended = stage.scene.ended(stage.submission("stop"))
    assert ended.state is State.SUCCEEDED
    expect(book.output(1)).to_contain_text(f"trained: True {len(stage.scene.follower.history(ended.run_id).epochs)}")

    expect(book.prompt(1)).not_to_have_text("[*]:")  # only what a cell that is through has left is final
    book.save()
    outputs = stage.lab.saved("stop.ipynb")[1]
    (output,) = [data for data in outputs if data]
    assert set(output) == {MIME, "text/html", "text/plain"}, "the widget view must not be saved: it would show an error later"
    assert "SUCCEEDED" in output["text/html"]
    assert "stopped early" in output["text/plain"]
    assert book.errors == []


def test_cancel_raises_in_the_waiting_cell_and_the_child_is_gone(stage: Stage, context: BrowserContext) -> None:
    book = stage.open(
        context, "cancel", PRELUDE, endless_cell("cancel"), "all((a == b).all() for a, b in zip(before, model.get_weights()))"
    )
    book.run(0)
    book.run(1)
    card = book.output(1).locator(".kj-Card")
    wait_moving(card, 1)
    pid = stage.scene.child_pid(stage.submission("cancel"))
    assert not gone(pid)
    card.get_by_role("button", name="Cancel", exact=True).click()
    expect(card.locator(".kj-chip")).to_have_text("CANCELLED", timeout=READY_MS)
    expect(card).to_contain_text("Cancelled by")
    expect(card.get_by_role("button", name="Stop", exact=True)).to_be_hidden()
    expect(book.output(1)).to_contain_text("RunCancelled", timeout=READY_MS)
    wait_until(lambda: gone(pid), "the child outlived its run")
    assert stage.scene.ended(stage.submission("cancel")).state is State.CANCELLED
    book.run(2)
    expect(book.output(2)).to_contain_text("True")
    assert book.errors == []


def test_a_run_is_paused_resumed_cancelled_and_retried_by_its_buttons(stage: Stage, context: BrowserContext) -> None:
    task = task_of(mlp(), "buttons", 64, 1, requirements=Requirements(device="gpu"))  # which no worker here has
    run = submit(stage.scene.log, "buttons", task=task)
    stage.lab.write("buttons.ipynb", "", outputs={0: [{MIME: {"v": 1, "runs": [{"run_id": run.run_id}]}}]})
    book = stage.lab.open(context, "buttons.ipynb")
    rows = book.page.locator(".kj-Run")
    first = rows.nth(0)

    def press(name: str) -> None:
        first.get_by_role("button", name=name, exact=True).click(timeout=READY_MS)

    press("Pause")
    expect(first.locator(".kj-chip")).to_have_text("PAUSED", timeout=READY_MS)
    expect(first.locator(".kj-note").first).to_have_text(f"Paused; %kafka_resume {run.run_id[:-8]} goes on.")
    press("Resume")
    expect(first.locator(".kj-chip")).to_have_text("QUEUED", timeout=READY_MS)
    press("Cancel")
    expect(first.locator(".kj-chip")).to_have_text("CANCELLED", timeout=READY_MS)
    expect(first).to_contain_text(re.compile(r"Cancelled by .+, before it had begun\."))
    press("Retry")
    second = rows.nth(1)
    expect(second.locator(".kj-chip")).to_have_text("QUEUED", timeout=READY_MS)
    expect(second).to_contain_text(f"retry of {run.run_id[:-8]}")
    expect(first).to_contain_text(f"Retried as {second.locator('.kj-name').inner_text()}-")
    expect(first.get_by_role("button", name="Retry", exact=True)).to_be_hidden()
    assert book.errors == []


def test_a_page_reload_during_a_waiting_cell_brings_the_card_back_live(stage: Stage, context: BrowserContext) -> None:
    book = stage.open(context, "reload", PRELUDE, endless_cell("reload"))
    book.run(0)
    book.run(1)
    card = book.output(1).locator(".kj-Card[data-source=renderer]")
    wait_moving(card, 1)
    seen = epoch_of(card)
    book.save()
    book.reload()
    wait_moving(card)
    assert epoch_of(card) > seen
    expect(card.locator(".uplot canvas")).to_be_visible()
    card.get_by_role("button", name="Cancel", exact=True).click()
    expect(card.locator(".kj-chip")).to_have_text("CANCELLED", timeout=READY_MS)
    assert book.errors == []


def test_after_a_kernel_restart_attach_shows_all_epochs_from_the_first(stage: Stage, context: BrowserContext) -> None:
    # A model that never learns has its best epoch first, so the card's star tells that it knows that one.
    never_learns = "keras.optimizers.SGD(0.0)"
    book = stage.open(context, "restart", PRELUDE, endless_cell("restart", optimizer=never_learns), f"{LOAD}\nrun = %kafka_attach restart")
    book.run(0)
    book.run(1)
    wait_moving(book.output(1).locator(".kj-Card"))
    book.restart_kernel()
    expect(book.prompt(1)).not_to_have_text("[*]:", timeout=READY_MS)
    book.wait_kernel()
    book.run(2)
    card = book.output(2).locator(".kj-Card[data-source=renderer]")
    wait_moving(card)
    expect(card.locator(".kj-best")).to_have_text(re.compile(r"★ @1$"))
    expect(book.output(2)).not_to_contain_text("<TrainingRun")
    card.get_by_role("button", name="Stop", exact=True).click()
    expect(card.locator(".kj-chip")).to_have_text("SUCCEEDED", timeout=READY_MS)

    def saved() -> dict | None:
        book.save()
        return next((data for data in stage.lab.saved("restart.ipynb")[2] if "rows" in data.get(MIME, {"runs": [{}]})["runs"][0]), None)

    rows = wait_until(saved, "the final card was not saved", within=READY_S)[MIME]["runs"][0]["rows"]
    assert rows[0]["epoch"] == 0
    assert rows[-1]["epoch"] + 1 == len(stage.scene.follower.history(stage.submission("restart").run_id).epochs)
    assert book.errors == []


def test_cards_of_long_finished_runs_are_rebuilt_from_the_log_over_one_stream(stage: Stage, context: BrowserContext) -> None:
    runs = [submit(stage.scene.log, f"old-{i}", rows=64, epochs=12, validation_split=0.5) for i in range(7)]  # browsers allow six streams
    for run in runs:
        stage.scene.ended(run)
    book = stage.open(context, "old", LOAD, "\n".join(f"%kafka_attach {run.run_id}" for run in runs), own_kernel=True)
    book.run(0)
    book.run(1)
    cards = book.output(1).locator(".kj-Card[data-source=renderer]")
    for i, run in enumerate(runs):
        card = cards.nth(i)
        expect(card.locator(".kj-Run[data-state=SUCCEEDED]")).to_have_count(1, timeout=READY_MS)
        expect(card.locator(".kj-when")).to_contain_text("12 epochs in")
        expect(card.locator(".kj-footnotes")).to_contain_text("worker box")
        card.get_by_role("button", name="Details", exact=True).click()
        losses = stage.scene.follower.history(run.run_id).metrics()["val_loss"]
        expect(card.locator(".kj-metrics thead")).to_contain_text("epoch 12")
        expect(card.locator(".kj-best")).to_have_text(f"{min(losses):.4f} ★ @{1 + losses.index(min(losses))}")
        expect(card.locator(".uplot canvas")).to_be_visible()
    expect(cards).to_have_count(len(runs))
    assert book.hub["connection"] == "open"
    wait_until(lambda: stage.lab.api("kafka-jupyter/health")["streams"] == 1, "the page holds more than one stream")
    assert book.errors == []


def test_several_fits_of_a_cell_are_rows_of_one_card(stage: Stage, context: BrowserContext) -> None:
    folds = (
        "%%kafka_train fold\nfor fold in range(3):\n    make_model().fit(x[fold::3], y[fold::3], epochs=2, verbose=0)\nprint('all done')"
    )
    book = stage.open(context, "folds", PRELUDE, folds)
    book.run(0)
    book.run(1)
    expect(book.output(1)).to_contain_text("all done", timeout=2 * READY_MS)
    card = book.page.locator(".kj-Card")
    expect(card).to_have_count(1)
    expect(card.locator(".kj-Run[data-state=SUCCEEDED]")).to_have_count(3)
    expect(card.locator(".kj-result").nth(0)).to_be_visible()
    book.save()
    (output,) = [data for data in stage.lab.saved("folds.ipynb")[1] if data]
    assert len(output[MIME]["runs"]) == 3
    assert output["text/plain"].count("SUCCEEDED") == 3
    assert book.errors == []


def test_the_quickstart_runs_through_and_its_cards_reach_their_ends(stage: Stage, context: BrowserContext) -> None:
    file = pathlib.Path(shutil.copy(ROOT / "notebooks/01_quickstart.ipynb", stage.lab.root))
    cells = [cell["id"] for cell in nbformat.read(file, as_version=4).cells if cell["cell_type"] == "code"]
    book = stage.lab.open(context, "01_quickstart.ipynb")
    book.wait_kernel()
    book.run_all()
    expect(book.output(cells.index("result"))).to_contain_text("test accuracy", timeout=2 * READY_MS)
    for cell, end in {"train": "SUCCEEDED", "wide": "SUCCEEDED", "endless": "CANCELLED", "attach": "SUCCEEDED"}.items():
        card = book.output(cells.index(cell)).locator(".kj-Card[data-source=renderer]")
        card.scroll_into_view_if_needed()
        expect(card.locator(".kj-chip")).to_have_text(end, timeout=READY_MS)
    book.save()
    saved = nbformat.read(file, as_version=4).cells
    assert [output for cell in saved for output in cell.get("outputs", []) if output["output_type"] == "error"] == []
    assert book.errors == []


def test_while_kafka_is_away_the_card_says_so_and_then_goes_on(stage: Stage, context: BrowserContext, kafka: local.Endpoint) -> None:
    run = endless(stage.scene.log, "away")
    stage.lab.write("away.ipynb", "", outputs={0: [{MIME: {"v": 1, "runs": [{"run_id": run.run_id}]}}]})
    book = stage.lab.open(context, "away.ipynb")
    card = book.page.locator(".kj-Card")
    wait_moving(card)
    away = card.locator(".kj-reconnecting")
    expect(away).to_have_text("")
    (broker,) = kafka.pids
    os.kill(broker, signal.SIGSTOP)
    try:
        expect(away).to_have_text("reconnecting…", timeout=READY_MS)
        expect(card.locator(".kj-chip")).to_have_text("RUNNING")
    finally:
        os.kill(broker, signal.SIGCONT)
    expect(away).to_have_text("", timeout=READY_MS)
    wait_moving(card)
    card.get_by_role("button", name="Cancel", exact=True).click()
    expect(card.locator(".kj-chip")).to_have_text("CANCELLED", timeout=READY_MS)
    assert book.errors == []
