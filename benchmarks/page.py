"""The page: JupyterLab in a real browser over a real worker. Clocks of child and page are those of one machine."""

from __future__ import annotations

import contextlib
import gzip
import pathlib
import statistics
import tempfile
import time
from collections.abc import Iterator

from playwright.sync_api import Browser

from benchmarks.bench import Bench, Stack, say
from benchmarks.report import Chapter, Figure, p50_p99, percentile
from kafka_jupyter.outputs.bundle import MIME
from kafka_jupyter.protocol import control
from kafka_jupyter.protocol.rows import EpochEnded
from tests.browser.lab import ROOT, Lab, Notebook, running_chromium, running_lab
from tests.support.crowd import Member, play
from tests.support.scene import gone
from tests.support.waiting import wait_until

HOW = """JupyterLab with token and base URL, Chromium without a window, on the same two cores as broker, worker and training. *Epoch end →
text*: the clock in the row, which is the child's, against the page's when the card says the epoch; epochs of about half a second, so
that each is rendered (a card renders four times a second at most). *Cancel*: from the click on the card, while the cell that started
the run waits, until the process of the child is gone. *Reload*: a notebook whose card has 1,000 epochs; from the moment at which
JupyterLab has made the place of the card until state, table and curves of all epochs are drawn."""

# When which text was first there, by the page's clock (ms since 1970), for every card that will ever be on the page.
WATCH_CARDS = """() => {
  window.seen = {};
  const note = key => { window.seen[key] ??= performance.timeOrigin + performance.now(); };
  new MutationObserver(() => {
    for (const card of document.querySelectorAll('.kj-Card')) {
      note('card');
      note(card.querySelector('.kj-when')?.textContent.split(' · ')[0]);
      if (card.querySelector('.uplot canvas')) { note('curves'); }
      if (card.querySelectorAll('.kj-metrics tbody tr').length) { note('table'); }
    }
  }).observe(document, {subtree: true, childList: true, characterData: true});
}"""

SLOW = """%load_ext kafka_jupyter
import keras
from sklearn.datasets import load_digits
digits = load_digits()
x, y = (digits.data / 16).astype("float32"), digits.target
model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(16), keras.layers.Dense(10)])
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))"""


def measure(bench: Bench) -> Chapter:
    stack = bench.stack
    stack.idle_worker()
    with tempfile.TemporaryDirectory() as folder, running_chromium() as browser, lab_of(stack, pathlib.Path(folder) / "lab") as lab:
        epochs = 50 if bench.scale.rounds > 3 else 10
        say(f"a card of {epochs} epochs")
        lags = epoch_lags(lab, stack, browser, epochs)
        say("cancelling")
        cancels = [cancel_seconds(lab, stack, browser, i) for i in range(3)]
        say("reloading a card of 1,000 epochs")
        reloads = reload_seconds(lab, stack, browser, 5)
    plugin, widget = weights()
    p50, p99 = percentile(lags, 50), percentile(lags, 99)
    return Chapter(
        "The page",
        HOW,
        [
            Figure("epoch end in the child → text in the page", p50_p99(lags), "p50 ≤ 100 ms, p99 ≤ 300 ms", p50 <= 0.1 and p99 <= 0.3),
            Figure("click on Cancel → child gone", f"{max(cancels):.2f} s at most ({len(cancels)} measured)", "≤ 3 s", max(cancels) <= 3),
            Figure(
                "reload → card of 1,000 epochs complete",
                f"{statistics.median(reloads) * 1000:.0f} ms, {max(reloads) * 1000:.0f} ms at most ({len(reloads)} measured)",
                "≤ 1 s",
                max(reloads) <= 1,
            ),
            Figure("plugin, gzip", f"{plugin / 1024:.0f} KiB", "≤ 150 KiB", plugin <= 150 << 10),
            Figure("widget, gzip (saved into notebooks that show it)", f"{widget / 1024:.0f} KiB", "≤ 60 KiB", widget <= 60 << 10),
        ],
    )


@contextlib.contextmanager
def lab_of(stack: Stack, root: pathlib.Path) -> Iterator[Lab]:
    root.mkdir()
    ours = {
        "KAFKA_JUPYTER_BOOTSTRAP_SERVERS": stack.settings.bootstrap_servers,
        "KAFKA_JUPYTER_TOPIC_PREFIX": stack.settings.topic_prefix,
        "KAFKA_JUPYTER_CACHE_DIR": str(root.parent / "cache"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    with running_lab(root, environment=ours) as lab:
        yield lab


def epoch_lags(lab: Lab, stack: Stack, browser: Browser, epochs: int) -> list[float]:
    """Seconds between the end of each epoch in the child and its text in the page. Raises if the page has passed one over."""
    with waiting_cell(lab, browser, "lags", f"model.fit(x, y, epochs={epochs}, batch_size=4, verbose=0)") as book:
        book.page.locator(".kj-Run[data-state=SUCCEEDED]").wait_for(timeout=240_000)
        seen: dict[str, float] = book.page.evaluate("seen")
        run_id = newest(stack, "lags")
    rows = [row for row in stack.follower.history(run_id).epochs if isinstance(row, EpochEnded)]
    assert len(rows) == epochs
    # The first one's text is there while it goes on, the last one is told as "50 epochs in 0:25".
    return [(seen[f"epoch {row.epoch + 1} of {epochs}"] - row.at_ms) / 1000 for row in rows[1:-1]]


def cancel_seconds(lab: Lab, stack: Stack, browser: Browser, i: int) -> float:
    """From the click until the child is gone, while the cell waits."""
    with waiting_cell(lab, browser, f"cancel-{i}", "model.fit(x, y, epochs=100_000, verbose=0)") as book:
        book.page.locator(".kj-Run[data-state=RUNNING] .kj-metrics tbody tr").first.wait_for(timeout=60_000)
        pid = child_of(stack, newest(stack, f"cancel-{i}"))
        button = book.page.locator(".kj-Card").get_by_role("button", name="Cancel", exact=True)
        button.wait_for()
        before = time.monotonic()
        button.click(no_wait_after=True)
        wait_until(lambda: gone(pid), "the child outlived its run", within=30)
        return time.monotonic() - before


def reload_seconds(lab: Lab, stack: Stack, browser: Browser, times: int) -> list[float]:
    """From the place of the card to the whole card, of a run of 1,000 epochs."""
    member = Member("thousand", epochs=1000, metrics=lambda e: {"loss": 1 / (e + 1), "accuracy": e / 1000, "val_loss": 2 / (e + 1)})
    play(stack.client.connection().log, [member])
    lab.write("thousand.ipynb", "# a thousand epochs", outputs={0: [{MIME: {"v": 1, "runs": [{"run_id": member.run_id}]}}]})
    found = []
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        context.add_init_script(f"({WATCH_CARDS})()")
        book = lab.open(context, "thousand.ipynb")
        for _ in range(times):
            book.reload()
            book.page.locator(".kj-Run[data-state=SUCCEEDED]").get_by_role("button", name="Details").click()
            book.page.wait_for_function("() => seen.curves && seen['1000 epochs'] || seen['1000 epochs in 0:00']")
            seen = book.page.evaluate("seen")
            whole = next(at for text, at in seen.items() if text.startswith("1000 epochs"))
            found.append((max(whole, seen["table"]) - seen["card"]) / 1000)
    return found


@contextlib.contextmanager
def waiting_cell(lab: Lab, browser: Browser, name: str, fit: str) -> Iterator[Notebook]:
    """A page whose second cell waits for this run."""
    lab.write(f"{name}.ipynb", SLOW, f"%%kafka_train {name}\n{fit}")
    lab.start_kernel(f"{name}.ipynb")
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        context.add_init_script(f"({WATCH_CARDS})()")
        book = lab.open(context, f"{name}.ipynb")
        book.wait_kernel()
        book.run(0)
        book.wait_kernel()
        book.run(1)
        yield book
    for session in [session for session in lab.api("api/sessions") if session["path"] == f"{name}.ipynb"]:
        lab.api(f"api/sessions/{session['id']}", "DELETE")


def newest(stack: Stack, name: str) -> str:
    named = [state for state in stack.follower.states() if state.submitted is not None and state.submitted.name == name]
    return max(named, key=lambda state: state.first_ms).run_id


def child_of(stack: Stack, run_id: str) -> int:
    log = stack.client.connection().log
    place = log.topics.place("run_control", run_id)
    records = [log.decode(message) for message in log.read_range(place, 0, None)]
    return next(record.pid for record in reversed(records) if isinstance(record, control.Started) and record.run_id == run_id)


def weights() -> tuple[int, int]:
    """Bytes of plugin and widget, gzip."""

    def weight(files: list[pathlib.Path]) -> int:
        return sum(len(gzip.compress(file.read_bytes())) for file in files)

    static = ROOT / "kafka_jupyter/notebook/static"
    plugin = weight(sorted((ROOT / "kafka_jupyter/labextension/static").glob("*.js")))
    return plugin, weight([static / "widget.js", static / "widget.css"])
