"""The card comes back by itself, and the notebook can be completed, after browser and kernel are gone: never without being asked."""

from __future__ import annotations

import json
import pathlib

import nbformat
import pytest
from nbconvert import HTMLExporter
from playwright.sync_api import Browser, BrowserContext, expect

from kafka_jupyter.outputs.bundle import MIME, WIDGET_VIEW
from kafka_jupyter.runs.state import State
from tests.browser.stage import PRELUDE, Stage
from tests.browser.test_live_card import READY_MS, endless_cell, wait_moving
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

# Puts other data into the second cell's output of this type.
REPLACE = """([mime, data]) => {
  const { outputs } = window.jupyterapp.shell.currentWidget.content.widgets[1].model;
  for (let i = 0; i < outputs.length; i++) {
    if (mime in outputs.get(i).data) { outputs.set(i, { output_type: 'display_data', metadata: {}, data }); }
  }
}"""


def test_another_browser_without_a_kernel_sees_the_run_move_and_saves_its_result(
    stage: Stage, chromium: Browser, context: BrowserContext
) -> None:
    lab, file = stage.lab, stage.lab.root / "returns.ipynb"
    book = stage.open(context, "returns", PRELUDE, endless_cell("returns"), "# the last cell", own_kernel=True)
    book.run(0)
    book.run(1)
    wait_moving(book.output(1).locator(".kj-Card"))
    book.save()
    wait_until(lambda: MIME in str(lab.saved("returns.ipynb")[1]), "the notebook was not saved")
    run = stage.submission("returns")
    context.close()
    for session in lab.api("api/sessions"):
        if session["path"] == "returns.ipynb":
            lab.api(f"api/sessions/{session['id']}", "DELETE")
    without_kernel(file)
    saved = file.read_bytes()

    with chromium.new_context(viewport={"width": 1280, "height": 900}) as other:
        book = lab.open(other, "returns.ipynb")
        book.page.locator(".jp-Dialog").get_by_role("button", name="No Kernel").click()
        card = book.output(1).locator(".kj-Card[data-source=renderer]")
        wait_moving(card)
        expect(card.locator(".kj-metrics tbody tr")).to_have_count(4)
        assert not [session for session in lab.api("api/sessions") if session["path"] == "returns.ipynb"], "a kernel was started"
        button = card.get_by_role("button", name="Save result into notebook")
        expect(button).to_be_hidden()
        card.get_by_role("button", name="Stop", exact=True).click()
        expect(card.locator(".kj-chip")).to_have_text("SUCCEEDED", timeout=READY_MS)
        assert stage.scene.ended(run).state is State.SUCCEEDED
        expect(button).to_be_visible()
        assert file.read_bytes() == saved, "opening a notebook has changed it"
        button.click()
        expect(button).to_be_hidden()
        (bundle,) = wait_until(lambda: ended(lab.saved("returns.ipynb")[1]), "the result was never saved")
        assert set(bundle) == {MIME, "text/html", "text/plain"}
        assert "stopped early" in bundle["text/plain"]
        before, after = json.loads(saved), json.loads(file.read_bytes())
        moving, result = (notebook["cells"][1].pop("outputs") for notebook in (before, after))
        assert before["cells"] == after["cells"], "more than the output was changed"
        book.reload()
        book.page.locator(".jp-Dialog").get_by_role("button", name="No Kernel").click()
        expect(card.locator(".kj-chip")).to_have_text("SUCCEEDED")
        expect(card.locator(".kj-when")).to_contain_text("stopped early")
        expect(button).to_be_hidden()
        for outputs, lacks in ((moving, True), (result, False)):  # as by an undo: nothing happens in the run any more
            book.page.evaluate(REPLACE, [MIME, *(output["data"] for output in outputs if MIME in output["data"])])
            expect(button).to_be_visible(visible=lacks)
        assert book.errors == []
    look_without_scripts(file, chromium)


def ended(outputs: list[dict[str, object]]) -> list[dict[str, object]]:
    found = [data for data in outputs if MIME in data]
    return [data for data in found if WIDGET_VIEW not in data and "SUCCEEDED" in str(data["text/html"])]


def without_kernel(file: pathlib.Path) -> None:
    """As it is on a machine that has no such kernel: JupyterLab asks, and starts none."""
    notebook = nbformat.read(file, as_version=4)
    notebook.metadata["kernelspec"] = {"name": "elsewhere", "display_name": "Elsewhere", "language": "of-another-machine"}
    notebook.metadata.pop("language_info", None)
    nbformat.write(notebook, file)


def look_without_scripts(file: pathlib.Path, chromium: Browser) -> None:
    """On GitHub, in nbconvert and offline there is neither script nor network."""
    html, _ = HTMLExporter(template_name="basic").from_filename(str(file))
    assert "<script" not in html
    assert "http" not in html.split("kafka_attach")[0].split("SUCCEEDED")[1], "nothing is fetched from elsewhere"
    with chromium.new_context(java_script_enabled=False, offline=True) as context:
        page = context.new_page()
        page.set_content(html)
        expect(page.get_by_text("SUCCEEDED")).to_be_visible()
        expect(page.get_by_role("row", name="val_loss")).to_be_visible()
        expect(page.get_by_role("img", name="loss and val_loss by epoch")).to_be_visible()
