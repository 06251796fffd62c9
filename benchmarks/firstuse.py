"""What a person meets who begins: nothing runs yet, and what the plugins add to the start of Jupyter."""

from __future__ import annotations

import json
import pathlib
import shutil
import statistics
import tempfile
from collections.abc import Iterator

from playwright.sync_api import Browser

from benchmarks.bench import FOLDER, Bench, python, say
from benchmarks.report import Chapter, Figure, spread
from kafka_jupyter.brokers import local
from kafka_jupyter.settings import Settings
from tests.browser.lab import PLUGIN, TOKEN, Lab, running_chromium, running_lab

HOW = """*Ready*: fresh processes and fresh folders, with Kafka's jars and the archive of its classes in the cache; from the call that the
first `%%kafka_train` makes where nothing is configured until the local Kafka runs and its worker has announced itself, TensorFlow
imported. *Server extension*: `ServerApp.initialize` in fresh processes with and without it. *JupyterLab*: from the navigation until it is
restored, with and without the plugin, in turns, each in a browser's profile of its own; differences of medians."""

READY_S = 8.0
READY = """
import json, time
began = time.perf_counter()
from kafka_jupyter import Client
from kafka_jupyter.brokers import local
from kafka_jupyter.settings import Settings
settings = local.provide(Settings.from_env(), workers=1)
kafka = time.perf_counter() - began
follower = Client(settings).connection().follower()
assert follower.wait(lambda: bool(follower.workers()), 60)
print(json.dumps([kafka, time.perf_counter() - began]))
"""
SERVER = """
import time
from jupyter_server.serverapp import ServerApp
app = ServerApp()
began = time.perf_counter()
app.initialize(["--ServerApp.jpserver_extensions={'kafka_jupyter': %s}", "--port=0", "--allow-root", "--no-browser"])
print(time.perf_counter() - began)
"""


def measure(bench: Bench) -> Chapter:
    warm = bench.kafka
    rounds = max(3, bench.scale.rounds // 2)
    ready = list(_ready(warm, rounds + 1))[1:]
    say("the server extension")
    servers = {on: [float(python(SERVER % on, warm)) for _ in range(rounds + 1)][1:] for on in (True, False)}
    with tempfile.TemporaryDirectory() as folder, running_chromium() as browser:
        labs = _labs(browser, pathlib.Path(folder), rounds)
    known = [done for _, done in ready]
    with_it, without = (statistics.median(servers[on]) for on in (True, False))
    plugin, bare = (statistics.median(labs[on]) for on in (True, False))
    figures = [
        Figure("local Kafka and worker ready", spread(known), "≤ 8 s", statistics.median(known) <= READY_S),
        Figure("… of that, Kafka and its topics", spread([kafka for kafka, _ in ready])),
        Figure("server extension", f"{(with_it - without) * 1000:.0f} ms ({with_it * 1000:.0f} ms against {without * 1000:.0f} ms)"),
        Figure("plugin in JupyterLab", f"{plugin - bare:.0f} ms ({plugin:.0f} ms against {bare:.0f} ms)"),
    ]
    return Chapter("First use", HOW, figures)


def _ready(warm: Settings, rounds: int) -> Iterator[tuple[float, float]]:
    """Seconds until Kafka is there, and until the worker is."""
    for i in range(rounds):
        say(f"first use, {i} of {rounds - 1}")
        folder = FOLDER / "first"
        settings = Settings(
            data_dir=folder / "data", cache_dir=warm.cache_dir, key_dir=folder / "keys", owner="bench", trust_file=folder / "trust.toml"
        )
        try:
            kafka, done = json.loads(python(READY, settings))
        finally:
            local.down(settings)
            shutil.rmtree(folder, ignore_errors=True)
        yield kafka, done


def _labs(browser: Browser, folder: pathlib.Path, rounds: int) -> dict[bool, list[float]]:
    """Milliseconds until JupyterLab is restored, with the plugin and without."""
    for name in ("with", "without"):
        (folder / name).mkdir()
    times: dict[bool, list[float]] = {True: [], False: []}
    with running_lab(folder / "with") as plugin, running_lab(folder / "without", disabled=[PLUGIN]) as bare:
        for i in range(rounds + 1):
            say(f"JupyterLab, {i} of {rounds}")
            for on, lab in ((True, plugin), (False, bare)):
                times[on].append(_restored(browser, lab))
    return {on: taken[1:] for on, taken in times.items()}


def _restored(browser: Browser, lab: Lab) -> float:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{lab.url}lab?reset&token={TOKEN}")
        page.wait_for_function("() => window.jupyterapp")
        return float(page.evaluate("() => window.jupyterapp.restored.then(() => performance.now())"))
