"""`make demo`: a local Kafka, a worker, and the quickstart executed headless, with its runs moving in the terminal.

Leaves `build/demo/01_quickstart.ipynb` (executed) and `.html`; its last line is
`run <run_id> SUCCEEDED epochs=<n> val_accuracy=<x>` of the run named digits. Stops what it has started.
"""

from __future__ import annotations

import os
import pathlib
import sys
import threading
import time

import nbclient
import nbformat
from nbconvert import HTMLExporter
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from kafka_jupyter import Client, TrainingRun
from kafka_jupyter.brokers import local
from kafka_jupyter.settings import Settings, env_name

ROOT = pathlib.Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "notebooks" / "01_quickstart.ipynb"
BUILD = ROOT / "build" / "demo"
MAIN_RUN = "digits"


def main() -> int:
    console = Console(highlight=False)
    # A Kafka of its own: neither the one that a person has running nor its topics are touched.
    for name in [name for name in os.environ if name.startswith("KAFKA_JUPYTER_")]:
        del os.environ[name]
    os.environ[env_name("data_dir")] = str(BUILD / "data")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    BUILD.mkdir(parents=True, exist_ok=True)
    settings = Settings.from_env()
    try:
        ready = _start(settings, console)
        os.environ[env_name("bootstrap_servers")] = ready.bootstrap_servers
        client = Client(ready)
        known = {run.id for run in client.runs()}
        executed = _execute(client, known, console)
        run = next(run for run in client.runs(name=MAIN_RUN) if run.id not in known)
        _write(executed, console)
        _table(run, console)
    finally:
        local.down(settings)
    accuracy = run.history["val_accuracy"][-1]
    print(f"run {run.id} {run.state} epochs={len(run.history['loss'])} val_accuracy={accuracy:.4f}")
    return 0 if run.state == "SUCCEEDED" else 1


def _start(settings: Settings, console: Console) -> Settings:
    started = time.monotonic()
    with console.status("starting Apache Kafka and a worker") as status:
        ready = local.provide(settings, 1, 1, lambda text, part: status.update(text if part is None else f"{text} {part:.0%}"))
    console.print(f"Apache Kafka at {ready.bootstrap_servers} and one worker, ready in {time.monotonic() - started:.1f} s")
    return ready


def _execute(client: Client, known: set[str], console: Console) -> nbformat.NotebookNode:
    """Executes the notebook in a thread while the terminal shows what its runs do."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    executor = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(BUILD)}})
    failure: list[BaseException] = []

    def execute() -> None:
        try:
            with (BUILD / "kernel.log").open("wb") as log:
                executor.execute(stderr=log)
        except BaseException as error:  # noqa: BLE001  # raised again below: a thread has no caller
            failure.append(error)

    thread = threading.Thread(target=execute, name="notebook")
    console.print(f"executing {NOTEBOOK.relative_to(ROOT)}")
    thread.start()
    columns = (TextColumn("{task.description:24}"), BarColumn(), TextColumn("{task.fields[text]}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bars: dict[str, TaskID] = {}
        while thread.is_alive():
            thread.join(0.25)
            for run in reversed(client.runs()):
                if run.id not in known:
                    _advance(progress, bars, run)
    if failure:
        raise failure[0]
    return notebook


def _advance(progress: Progress, bars: dict[str, TaskID], run: TrainingRun) -> None:
    if run.id not in bars:
        total = run.card()["epochs"] or None
        bars[run.id] = progress.add_task(run.short, total=total, text="")
    losses = run.history.get("loss", [])
    loss = f", loss {losses[-1]:.4f}" if losses else ""
    progress.update(bars[run.id], completed=len(losses), text=f"{run.state}, {run.progress}{loss}")
    if run.ended:
        progress.stop_task(bars[run.id])


def _write(executed: nbformat.NotebookNode, console: Console) -> None:
    nbformat.write(executed, BUILD / NOTEBOOK.name)
    page, _ = HTMLExporter(template_name="lab").from_notebook_node(executed)
    html = BUILD / NOTEBOOK.with_suffix(".html").name
    html.write_text(page, "utf-8")
    console.print(f"wrote {(BUILD / NOTEBOOK.name).relative_to(ROOT)} and {html.relative_to(ROOT)}")


def _table(run: TrainingRun, console: Console) -> None:
    history = run.history
    table = Table("epoch", *history, title=run.id)
    for epoch, values in enumerate(zip(*history.values(), strict=True), start=1):
        table.add_row(str(epoch), *("-" if value is None else f"{value:.4f}" for value in values))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
