"""One run with a hundred thousand epochs behind it: what it takes to come to it, in a process and in a page."""

from __future__ import annotations

import json
import pathlib
import statistics
import tempfile
import time

from playwright.sync_api import Browser

from benchmarks.bench import Bench, python, say
from benchmarks.page import WATCH_CARDS
from benchmarks.report import Chapter, Figure, spread
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.outputs.bundle import MIME
from kafka_jupyter.settings import Settings
from tests.browser.lab import Lab, running_chromium, running_lab
from tests.support.crowd import Member, play

HOW = """Three metrics an epoch. *By hundreds*: 500 epochs to a record, as epochs of a millisecond leave them; *one by one*: a record each,
as epochs leave them that take longer than Kafka's ack: each record is signed, and judged by who reads it. *Attach*: a fresh process, from
the call of `Client.attach` until `history` has them all, without its imports, and by how much its memory grows. *Card*: from the moment at
which JupyterLab has made the place of the card until state, table and curves of all epochs are drawn; its memory is the heap of the page's
scripts after a collection, less that of a page with a card of 20 epochs."""

ATTACH = """
import json, sys, time, psutil
from kafka_jupyter import Client
from kafka_jupyter.settings import Settings
settings = Settings.from_env()
rss = psutil.Process().memory_info().rss
began = time.perf_counter()
run = Client(settings).attach(sys.argv[1])
epochs = len(run.history["loss"])
print(json.dumps([time.perf_counter() - began, epochs, psutil.Process().memory_info().rss - rss]))
"""


def measure(bench: Bench) -> Chapter:
    settings = bench.kafka.replace(topic_prefix="long.")
    epochs = bench.scale.history * 10
    say(f"{epochs:,} epochs, twice")
    few, packed, single = (_played(settings, *each) for each in ((20, 500), (epochs, 500), (epochs, 1)))
    say("attaching")
    attached = {run.run_id: [_attach(settings, run) for _ in range(3)] for run in (packed, single)}
    with tempfile.TemporaryDirectory() as folder, running_chromium() as browser:
        root = pathlib.Path(folder) / "lab"
        root.mkdir()
        ours = {
            "KAFKA_JUPYTER_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
            "KAFKA_JUPYTER_TOPIC_PREFIX": settings.topic_prefix,
            "KAFKA_JUPYTER_TRUST_FILE": str(settings.trust_file),
        }
        with running_lab(root, environment=ours) as lab:
            say("cards")
            bare = _card(lab, browser, few)
            full = _card(lab, browser, packed)
    times = {run_id: [seconds for seconds, _ in found] for run_id, found in attached.items()}
    memory = statistics.median(grown for _, grown in attached[packed.run_id])
    figures = [
        Figure(f"attach to {epochs:,} epochs, by hundreds", spread(times[packed.run_id])),
        Figure(f"attach to {epochs:,} epochs, one by one", spread(times[single.run_id])),
        Figure("memory of a process that has attached", f"{memory / (1 << 20):.0f} MiB"),
        Figure(f"card of {epochs:,} epochs", f"{full[0] * 1000:.0f} ms ({bare[0] * 1000:.0f} ms with 20)"),
        Figure("… its memory in the page", f"{(full[1] - bare[1]) / (1 << 20):.0f} MiB"),
    ]
    return Chapter("A long run", HOW, figures)


def _played(settings: Settings, epochs: int, rows_a_record: int) -> Member:
    log = Log.open(Cluster(settings), create=True)
    try:
        member = Member(
            f"long-{epochs}",
            epochs=epochs,
            rows_a_record=rows_a_record,
            metrics=lambda e: {"loss": 1 / (e + 1), "accuracy": e / epochs, "val_loss": 2 / (e + 1)},
        )
        play(log, [member])
        return member
    finally:
        log.close()


def _attach(settings: Settings, run: Member) -> tuple[float, int]:
    """Seconds, and bytes of memory."""
    seconds, epochs, grown = json.loads(python(ATTACH, settings, run.run_id))
    assert epochs == run.epochs
    return seconds, grown


def _card(lab: Lab, browser: Browser, run: Member) -> tuple[float, int]:
    """Seconds until the card is whole, and bytes of the page's heap then."""
    name = f"{run.name}.ipynb"
    lab.write(name, "# a run", outputs={0: [{MIME: {"v": 1, "runs": [{"run_id": run.run_id}]}}]})
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        context.add_init_script(f"({WATCH_CARDS})()")
        book = lab.open(context, name)
        book.page.locator(".kj-Run[data-state=SUCCEEDED]").get_by_role("button", name="Details").click(timeout=120_000)
        whole = f"{run.epochs} epochs"
        drawn = f"() => seen.curves && Object.keys(seen).some(text => text.startsWith('{whole}'))"
        book.page.wait_for_function(drawn, timeout=120_000)
        seen = book.page.evaluate("seen")
        done = max(next(at for text, at in seen.items() if text.startswith(whole)), seen["table"], seen["curves"])
        time.sleep(2)  # what was drawn once is let go
        session = context.new_cdp_session(book.page)
        session.send("HeapProfiler.collectGarbage")
        return (done - seen["card"]) / 1000, int(session.send("Runtime.getHeapUsage")["usedSize"])
