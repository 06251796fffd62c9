"""The sidebar over a log of five hundred runs and no worker: smooth, found by keyboard alone, the same after a reload, readable by all."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, expect
from playwright.sync_api import Error as PlaywrightError

from kafka_jupyter.brokers import local
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol import control
from tests.browser.lab import Lab
from tests.browser.panel import OVERFLOWING, Panel
from tests.browser.played import lab_over, set_panel, topics_of
from tests.browser.test_live_card import RECORD_RENDERS
from tests.support.crowd import Member, play, tell_epochs
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

ENOUGH = 40  # renders whose rate is measured: the first and the last may each be seen a tenth of a second late

LONG = Member(
    "marathon",
    epochs=20_000,
    done=10_000,
    ends=None,
    metrics=lambda epoch: {"loss": 1 / (epoch + 1), "val_accuracy": 0.9 - 0.5 / (epoch + 1)},
)
FAILED = Member("resnet", ends="Failed", done=2, notebook="/work/vision.ipynb")
BEST = Member("winner", epochs=3, metrics=lambda epoch: {"loss": 0.001, "val_accuracy": 0.999})
THEIRS = Member("of-bob", owner="bob@test", labels={"team": "vision"})
OTHERS = [Member(f"net-{i}", ends=("Succeeded", "Succeeded", "Cancelled", "Failed")[i % 4], epochs=3 + i % 5) for i in range(496)]


@pytest.fixture(scope="module")
def log(kafka: local.Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    with topics_of(kafka, tmp_path_factory.mktemp("many"), "many") as log:
        play(log, [*OTHERS, LONG, FAILED, BEST, THEIRS])
        yield log


@pytest.fixture(scope="module")
def lab(log: Log, kafka: local.Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab_over(kafka, tmp_path_factory.mktemp("many-lab"), "many") as lab:
        yield lab


def test_five_hundred_runs_and_ten_thousand_rows_stay_smooth(log: Log, lab: Lab, context: BrowserContext) -> None:
    panel = Panel.open(lab, context)
    expect(panel.rows).to_have_count(500)
    expect(panel.row(OTHERS[0].run_id).locator(".kj-rowScore")).to_have_text("0.8333")  # read from the log in the background
    row = panel.row(LONG.run_id)
    expect(row.locator(".kj-rowFar")).to_have_text("10000/20000")
    row.evaluate(RECORD_RENDERS)
    panel.page.evaluate(
        """() => { window.late = []; let last = performance.now();
        const beat = now => { window.late.push(now - last); last = now; requestAnimationFrame(beat); }; requestAnimationFrame(beat); }"""
    )
    epoch = 10_000

    def renders() -> int:
        nonlocal epoch
        tell_epochs(log, LONG, epoch, 5)
        epoch += 5
        return int(panel.page.evaluate("renders.length"))

    wait_until(lambda: renders() >= ENOUGH, "the row does not move", within=60, longest_pause_s=0.01)
    times = panel.page.evaluate("renders")
    assert 1000 * (len(times) - 1) / (times[-1] - times[0]) <= 4.1, times
    late = sorted(panel.page.evaluate("late.slice(5)"))
    print(f"frames: median {late[len(late) // 2]:.0f} ms, 99% {late[int(0.99 * len(late))]:.0f} ms, longest {late[-1]:.0f} ms")
    expect(row.locator(".kj-rowFar")).to_have_text(f"{epoch}/20000")

    row.click()
    card = panel.node.locator(".kj-Card")
    expect(card.locator(".kj-when")).to_have_text(re.compile(rf"epoch {epoch} of 20000"))
    expect(card.locator(".uplot canvas")).to_be_visible()
    card.evaluate(RECORD_RENDERS)
    wait_until(lambda: renders() >= ENOUGH, "the card does not move", within=60, longest_pause_s=0.01)
    times = panel.page.evaluate("renders")
    assert 1000 * (len(times) - 1) / (times[-1] - times[0]) <= 4.1, times
    assert panel.page.evaluate("globalThis[Symbol.for('kafka_jupyter.stream/1')].stats.connects") <= 3
    assert panel.errors == []


def test_runs_are_found_by_words_fields_owner_and_order_and_the_view_survives_a_reload(lab: Lab, context: BrowserContext) -> None:
    panel = Panel.open(lab, context)
    panel.filter("state:failed notebook:vision")
    expect(panel.rows).to_have_count(1)
    expect(panel.rows).to_have_attribute("data-run", FAILED.run_id)
    panel.filter("label:team=vision")
    expect(panel.rows).to_have_attribute("data-run", THEIRS.run_id)
    panel.button("Mine").click()
    expect(panel.node).to_contain_text("No run matches")
    panel.button("Show all runs").click()
    panel.node.get_by_role("combobox", name="Order").select_option("metric")
    expect(panel.rows.first).to_have_attribute("data-run", BEST.run_id)
    panel.button("Mine").click()
    panel.filter("winner")
    expect(panel.rows).to_have_count(1)
    panel.rows.first.click(modifiers=["Control"])
    panel.button("Delete from view").click()
    expect(panel.node).to_contain_text("No run matches")
    panel.filter("-state:succeeded resnet")
    expect(panel.rows).to_have_count(1)
    wait_until(lambda: "-state:succeeded resnet" in str(lab.api("lab/api/workspaces")), "the workspace was not saved")
    panel.reload()
    expect(panel.node).to_be_visible()  # where it was, as it was
    expect(panel.node.get_by_role("searchbox")).to_have_value("-state:succeeded resnet")
    expect(panel.button("Mine")).to_have_attribute("aria-pressed", "true")
    expect(panel.node.get_by_role("combobox", name="Order")).to_have_value("metric")
    expect(panel.rows).to_have_attribute("data-run", FAILED.run_id)
    panel.button("Show the one that was deleted from view").click()
    panel.filter("winner")
    expect(panel.rows).to_have_attribute("data-run", BEST.run_id)
    assert panel.errors == []


def test_runs_beyond_those_that_are_loaded_are_found_by_asking_the_server(lab: Lab, context: BrowserContext) -> None:
    set_panel(lab, rows=10)
    try:
        panel = Panel.open(lab, context)
        panel.filter("state:succeeded,failed net-17")
        expect(panel.node).to_contain_text(re.compile("1[01] of 500 runs are loaded"))  # the newest, and those that go on
        panel.button("search all", exact=False).click()
        expect(panel.row(OTHERS[17].run_id)).to_be_visible()
    finally:
        set_panel(lab, rows=500)


def test_the_keyboard_alone_does_everything(lab: Lab, context: BrowserContext) -> None:
    panel = Panel.open(lab, context)
    press = panel.page.keyboard.press
    panel.filter("resnet,winner")
    panel.filter("id:crowd -name:net-")
    expect(panel.rows).to_have_count(4)
    panel.node.get_by_role("searchbox").focus()
    press("ArrowDown")
    listbox = panel.node.get_by_role("listbox")
    expect(listbox).to_be_focused()
    first = panel.rows.first
    expect(first).to_have_class(re.compile("kj-mod-active"))
    assert listbox.get_attribute("aria-activedescendant") == first.get_attribute("id")
    press("End")
    expect(panel.rows.last).to_have_class(re.compile("kj-mod-active"))
    press("Home")
    press(" ")
    press("Shift+ArrowDown")
    expect(listbox.get_by_role("option", selected=True)).to_have_count(2)
    press("Escape")
    expect(listbox.get_by_role("option", selected=True)).to_have_count(0)
    press("Control+a")
    expect(panel.node.get_by_role("toolbar")).to_contain_text("4 selected")
    press("Tab")
    press("Tab")
    for _ in range(8):
        if panel.page.evaluate("document.activeElement.textContent") == "Compare":
            break
        press("Tab")
    expect(panel.button("Compare")).to_be_focused()
    press("Enter")
    compare = panel.node.locator(".kj-Compare")
    expect(compare.locator(".uplot canvas")).to_be_visible()
    expect(compare.locator("thead th")).to_have_count(4)
    expect(compare.locator(".kj-best", has_text="0.9990 ★ @1")).to_be_visible()
    panel.button("‹ All runs").press("Enter")
    listbox.focus()
    press("Enter")
    expect(panel.node.locator(".kj-Detail")).to_be_visible()
    panel.button("‹ All runs").press("Enter")
    panel.tab("Runs").focus()
    press("ArrowRight")
    expect(panel.tab("Queue")).to_be_focused()
    expect(panel.node).to_contain_text("Nothing waits")
    press("ArrowRight")
    expect(panel.node).to_contain_text("kafka-jupyter worker")
    assert panel.errors == []


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_axe_finds_nothing_wrong_in_any_page(lab: Lab, context: BrowserContext, theme: str) -> None:
    panel = Panel.open(lab, context)
    panel.theme(theme)
    panel.filter("id:crowd -name:net-")
    expect(panel.rows).to_have_count(4)
    panel.rows.first.click(modifiers=["Control"])
    panel.rows.last.click(modifiers=["Control"])
    assert panel.violations() == []
    panel.button("Compare").click()
    expect(panel.node.locator(".uplot canvas")).to_be_visible()
    assert panel.violations() == []
    panel.button("‹ All runs").click()
    panel.row(FAILED.run_id).click()
    expect(panel.node.locator(".kj-Detail .kj-error")).to_be_visible()
    panel.node.get_by_text("Show the whole traceback").click()
    assert panel.violations() == []
    panel.button("‹ All runs").click()
    for page in ("Queue", "Workers"):
        panel.tab(page).click()
        assert panel.violations() == []


# What runs themselves bring: names, numbers, metrics, errors.
DATA = re.compile(
    r"marathon|resnet|winner|of-bob|[0-9a-f]{4}|[\d./@%★ –·]*|(val_)?(accuracy|loss)( @\d+)?|mlp|(/work/)?vision\.ipynb"
    r"|ValueError|it was bound to fail|Traceback[^¤]*|%kafka_attach crowd-[0-9a-f]{4}"
)


def test_words_come_from_the_translator(lab: Lab, context: BrowserContext) -> None:
    """JupyterLab marks each translated text if it is asked to: what of ours bears no mark is data."""
    panel = Panel.open(lab, context)
    save = "value => window.jupyterapp.serviceManager.settings.save('@jupyterlab/translation-extension:plugin', value)"
    panel.page.evaluate(save, '{"displayStringsPrefix": true, "stringsPrefix": "¤"}')
    try:
        panel.reload()
        panel.show()
        panel.filter("id:crowd -name:net-")
        expect(panel.rows).to_have_count(4)
        panel.rows.nth(0).click(modifiers=["Control"])
        for step in (None, FAILED.run_id):
            if step:
                panel.row(step).click()
                expect(panel.node.locator(".kj-Detail .kj-error")).to_be_visible()
            texts = panel.node.evaluate(TEXTS)
            assert len(texts) > 15
            bare = [text for text in texts if "¤" not in text and not DATA.fullmatch(text.strip())]
            assert bare == []
    finally:
        panel.page.evaluate(save, "{}")


TEXTS = """panel => {
  const found = [], walker = document.createTreeWalker(panel, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    if (walker.currentNode.parentElement.checkVisibility()) { found.push(walker.currentNode.data); }
  }
  panel.querySelectorAll('[placeholder], [title], [aria-label]').forEach(e =>
    found.push(...['placeholder', 'title'].map(name => e.getAttribute(name) ?? '')));
  return found;
}"""


def test_narrow_and_wide_nothing_is_cut_off(lab: Lab, context: BrowserContext) -> None:
    panel = Panel.open(lab, context)
    panel.filter("id:crowd -name:net-")
    expect(panel.rows).to_have_count(4)
    for width in (200, 250, 330, 480):
        panel.node.evaluate("(node, width) => { node.style.width = `${width}px`; }", width)
        assert panel.node.evaluate(OVERFLOWING) == [], width
    panel.row(FAILED.run_id).click()
    expect(panel.node.locator(".kj-Detail .kj-error")).to_be_visible()
    for width in (200, 250, 330, 480):
        panel.node.evaluate("(node, width) => { node.style.width = `${width}px`; }", width)
        assert panel.node.evaluate(OVERFLOWING) == [], width


def test_a_run_that_ends_is_told_once_and_only_if_it_is_mine(log: Log, lab: Lab, context: BrowserContext) -> None:
    mine, theirs = Member("mine", ends=None), Member("theirs", ends=None, owner="bob@test")
    play(log, [mine, theirs])
    panel = Panel.open(lab, context)
    for member in (mine, theirs):
        expect(panel.row(member.run_id)).to_have_attribute("data-state", "RUNNING")
    for member in (theirs, mine):
        log.write_control(control.Succeeded(**member.own(), epochs=4, log_end=member.last))
        expect(panel.row(member.run_id)).to_have_attribute("data-state", "SUCCEEDED")
    toast = panel.page.locator(".Toastify__toast")
    expect(toast).to_have_count(1)
    expect(toast).to_contain_text("Run mine: succeeded, val_accuracy 0.8750")
    toast.get_by_role("button", name="Show").click()
    expect(panel.node.locator(".kj-Detail")).to_have_attribute("data-run", mine.run_id)
    assert panel.errors == []


def test_settings_choose_the_metric_and_whether_ends_are_told(log: Log, lab: Lab, context: BrowserContext) -> None:
    quiet = Member("quiet", ends=None)
    play(log, [quiet])
    set_panel(lab, rows=500, metric="loss", notify=False)
    try:
        panel = Panel.open(lab, context)
        panel.filter("name:winner,quiet")
        expect(panel.row(BEST.run_id).locator(".kj-rowMetric")).to_have_text("loss")
        expect(panel.row(BEST.run_id).locator(".kj-rowScore")).to_have_text("0.0010")
        log.write_control(control.Succeeded(**quiet.own(), epochs=4, log_end=quiet.last))
        expect(panel.row(quiet.run_id)).to_have_attribute("data-state", "SUCCEEDED")
        expect(panel.page.locator(".Toastify__toast")).to_have_count(0)
        settings = "settings => window.jupyterapp.serviceManager.settings.save('kafka-jupyter:panel', settings)"
        with pytest.raises(PlaywrightError, match="400 Bad Request"):  # it would redraw a thousand times a second
            panel.page.evaluate(settings, '{"refresh": 1}')
    finally:
        set_panel(lab, rows=500)


def test_the_command_palette_steers_and_finds_runs(log: Log, lab: Lab, context: BrowserContext) -> None:
    alive = Member("alive", ends=None)
    play(log, [alive])
    panel = Panel.open(lab, context)
    expect(panel.row(alive.run_id)).to_be_visible()
    page = panel.page

    def choose(command: str) -> None:
        page.get_by_role("menuitem", name="View").click()
        page.get_by_role("menuitem", name="Activate Command Palette").click()
        palette = page.locator(".jp-ModalCommandPalette")
        palette.locator("input").fill(f"Kafka Runs {command}")
        palette.locator(".lm-CommandPalette-item", has_text=command).first.click()

    choose("Pause a Run…")
    dialog = page.locator(".jp-Dialog")
    expect(dialog.locator("select option").first).to_have_text(re.compile(r"alive [0-9a-f]{12} \(running\)"))
    dialog.get_by_role("button", name="Pause").click()
    expect(panel.row(alive.run_id)).to_have_attribute("data-state", "PAUSING")
    choose("Show the Workers")
    expect(panel.node).to_contain_text("kafka-jupyter worker")
    choose("Show My Runs")
    expect(panel.button("Mine")).to_have_attribute("aria-pressed", "true")
    log.write_control(control.Released(**alive.own(), reason="pause", log_end=alive.last))
    expect(panel.row(alive.run_id)).to_have_attribute("data-state", "PAUSED")
    choose("Cancel a Run…")
    expect(dialog.locator("select option").first).to_have_text(re.compile("alive .* \\(paused\\)"))
    dialog.get_by_role("button", name="Cancel", exact=True).last.click()
    expect(panel.row(alive.run_id)).to_have_attribute("data-state", "CANCELLED")
    assert panel.errors == []


MOVING = """node => [...node.querySelectorAll('*')].filter(e => {
  const style = getComputedStyle(e);
  return parseFloat(style.transitionDuration) > 0 || style.animationName !== 'none';
}).map(e => e.className)"""


def test_who_wants_no_motion_gets_none(lab: Lab, chromium: Browser) -> None:
    with chromium.new_context(reduced_motion="reduce") as context:
        panel = Panel.open(lab, context)
        panel.filter("name:marathon")
        assert panel.node.evaluate(MOVING) == []
        panel.row(LONG.run_id).click()
        expect(panel.node.locator(".kj-fill")).to_have_css("transition-property", "none")
