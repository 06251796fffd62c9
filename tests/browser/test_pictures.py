"""The pictures of the documentation, taken from real runs. KAFKA_JUPYTER_PICTURES=1 (`make screenshots`) renews docs/images."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, FloatRect, Locator, expect

from kafka_jupyter.outputs.bundle import MIME
from kafka_jupyter.protocol.task import Requirements
from tests.browser.lab import ROOT, Notebook
from tests.browser.panel import OVERFLOWING, Panel, violations
from tests.browser.stage import Stage
from tests.browser.test_live_card import READY_MS
from tests.support.pace import paced
from tests.support.scene import Scene
from tests.support.training import Submission, mlp, submit, task_of

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

LIMIT = 250 << 10  # bytes of a picture in the repository
EPOCH_S = 1.5  # of the run that goes on while the pictures are taken

MARGIN = 8  # pixels of the notebook around the cards

# Is anything of the card wider than its place, or outside of the card?
CUT_OFF = """cards => cards.flatMap(card => {
  const frame = card.getBoundingClientRect();
  return [...card.querySelectorAll('*')].filter(e => {
    const box = e.getBoundingClientRect();
    const seen = box.width > 1 && !e.closest('.uplot');
    return seen && (box.right > frame.right + 1 || box.bottom > frame.bottom + 1 || e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0);
  }).map(e => `${e.className}: ${e.textContent}`);
})"""


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """Narrow, as a notebook beside a sidebar, and sharp."""
    context = chromium.new_context(viewport={"width": 1040, "height": 1200}, device_scale_factor=1.5)
    yield context
    context.close()


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    if os.environ.get("KAFKA_JUPYTER_PICTURES") != "1":
        return tmp_path
    images = ROOT / "docs/images"
    images.mkdir(parents=True, exist_ok=True)
    return images


def nine_classes() -> Any:
    """For ten digits: TensorFlow refuses the tenth."""
    import keras

    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(9)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def runs_of_every_kind(scene: Scene) -> list[Submission]:
    """Running, queued, failed, succeeded: as a page of work looks like."""
    done = submit(scene.log, "digits", rows=1400, epochs=20, validation_split=0.1)
    scene.ended(done)
    failed = submit(scene.log, "nine-classes", model=nine_classes(), epochs=50)
    scene.ended(failed)
    waiting = submit(scene.log, "wide-net", task=task_of(mlp(), "wide-net", 256, 20, requirements=Requirements(device="gpu")))
    scene.state(waiting)
    running = submit(scene.log, "digits", rows=1400, epochs=60, validation_split=0.1, callbacks=[paced(EPOCH_S)])
    scene.running(running, epochs=8)
    return [running, waiting, failed, done]


def test_pictures_of_running_queued_failed_and_succeeded_cards_show_them_whole(
    stage: Stage, context: BrowserContext, folder: pathlib.Path
) -> None:
    runs = runs_of_every_kind(stage.scene)
    ended = [stage.lab.api(f"kafka-jupyter/output?runs={run.run_id}")["data"] for run in runs[2:]]
    stage.lab.write("pictures.ipynb", "", outputs={0: [*({MIME: {"v": 1, "runs": [{"run_id": run.run_id}]}} for run in runs[:2]), *ended]})
    book = stage.lab.open(context, "pictures.ipynb")
    cards = book.page.locator(".kj-Card")
    for i, state in enumerate(("RUNNING", "QUEUED", "FAILED", "SUCCEEDED")):
        expect(cards.nth(i).locator(".kj-chip")).to_have_text(state, timeout=READY_MS)
    for theme in ("light", "dark"):
        if theme == "dark":
            book.dark()
        assert cards.evaluate_all(CUT_OFF) == []
        assert violations(book.page, ".kj-Card") == []
        picture = folder / f"card-{theme}.png"
        book.page.screenshot(path=picture, clip=around(cards), animations="disabled")
        assert 5 << 10 < picture.stat().st_size <= LIMIT
    look_at_the_traceback(cards.nth(2))
    copy_the_command(cards.nth(3), runs[3].run_id)
    assert book.errors == []


def test_pictures_of_notebook_sidebar_run_and_comparison(stage: Stage, chromium: Browser, folder: pathlib.Path) -> None:
    scene = stage.scene
    done = [
        submit(scene.log, "digits", rows=1400, epochs=20, validation_split=0.1),
        submit(scene.log, "digits-wide", rows=1400, epochs=14, validation_split=0.1, model=mlp(64)),
        submit(scene.log, "digits-sgd", rows=1400, epochs=20, validation_split=0.1, model=mlp(optimizer="sgd"), batch_size=16),
        submit(scene.log, "nine-classes", model=nine_classes(), epochs=50),
    ]
    for run in done:
        scene.ended(run)
    submit(scene.log, "resnet-mini", task=task_of(mlp(), "resnet-mini", 256, 20, requirements=Requirements(device="gpu")))
    running = submit(scene.log, "fashion-cnn", rows=1400, epochs=60, validation_split=0.1, callbacks=[paced(EPOCH_S)])
    scene.running(running, epochs=8)
    stage.lab.write("vision.ipynb", CELL, outputs={0: [{MIME: {"v": 1, "runs": [{"run_id": running.run_id}]}}]})
    with chromium.new_context(viewport={"width": 1240, "height": 700}, device_scale_factor=1.25) as context:
        panel = Panel.open(stage.lab, context, "/tree/vision.ipynb")
        panel.widen(330)
        Notebook(panel.page).wait_kernel()
        expect(panel.page.locator(".jp-Notebook .kj-Run[data-state=RUNNING] .uplot")).to_be_visible()
        for run in done[:3]:
            expect(panel.row(run.run_id).locator(".kj-rowScore")).to_have_text(re.compile(r"0\.\d+"))
        panel.page.mouse.move(900, 660)
        for theme in ("Light", "Dark"):
            panel.theme(theme)
            assert panel.node.evaluate(OVERFLOWING) == []
            take(panel, folder / f"lab-{theme.lower()}.png")
        panel.theme("Light")
        for run in done[:3]:
            panel.row(run.run_id).click(modifiers=["Control"])
        panel.button("Compare").click()
        panel.button("Open in a tab").click()
        compare = panel.page.locator(".kj-mod-main.kj-Panel")
        expect(compare.locator(".kj-parameter")).not_to_have_count(0)
        panel.row(done[0].run_id).click()
        expect(panel.node.get_by_role("row", name="optimizer Adam")).to_be_visible()
        assert panel.node.evaluate(OVERFLOWING) == []
        assert compare.evaluate(OVERFLOWING) == []
        take(panel, folder / "compare-light.png")
        panel.theme("Dark")
        take(panel, folder / "compare-dark.png")
        assert panel.errors == []


CELL = """%%kafka_train fashion-cnn
history = model.fit(x_train, y_train, validation_split=0.1, epochs=60,
                    callbacks=[keras.callbacks.EarlyStopping(patience=5)])"""


def take(panel: Panel, picture: pathlib.Path) -> None:
    panel.page.evaluate("() => document.fonts.ready.then(() => true)")
    panel.page.screenshot(path=picture, animations="disabled")
    assert 5 << 10 < picture.stat().st_size <= LIMIT


def look_at_the_traceback(card: Locator) -> None:
    whole = card.locator(".kj-traceback")
    expect(whole).to_be_hidden()
    card.get_by_role("button", name="Show the whole traceback").click()
    expect(whole).to_contain_text("Traceback (most recent call last)")
    card.get_by_role("button", name="Hide the traceback").click()
    expect(whole).to_be_hidden()


def copy_the_command(card: Locator, run_id: str) -> None:
    """Where the page may, and where it may not: then the person is told what to type."""
    page, command = card.page, f"%kafka_attach {run_id}"
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button = card.get_by_role("button", name="%kafka_attach")
    button.click()
    expect(card.get_by_role("button", name="copied")).to_be_visible()
    assert page.evaluate("() => navigator.clipboard.readText()") == command
    expect(button).to_be_visible()
    page.evaluate("() => Object.defineProperty(navigator, 'clipboard', {value: undefined})")  # as on a page without TLS
    button.click()
    expect(button).to_have_text(f"this page may not copy; type {command}")


def around(cards: Locator) -> FloatRect:
    boxes = [box for box in (card.bounding_box() for card in cards.all()) if box]
    left, top = boxes[0]["x"] - MARGIN, boxes[0]["y"] - MARGIN
    bottom = boxes[-1]["y"] + boxes[-1]["height"] + MARGIN
    return {"x": left, "y": top, "width": boxes[0]["width"] + 2 * MARGIN, "height": bottom - top}
