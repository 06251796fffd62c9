"""`make demo`: a local Kafka, a worker, and the quickstart executed headless, with its runs moving in the terminal.

Leaves `build/demo/01_quickstart.ipynb` (executed) and `.html`, also when a cell fails; its last line is
`run <run_id> SUCCEEDED epochs=<n> val_accuracy=<x>` of the run named digits. Stops what it has started, however it ends.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import signal
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
MAIN_RUN = "digits"
FAREWELL_S = 5.0  # for the thread of a killed kernel to see that it is dead


def main() -> int:
    parser = argparse.ArgumentParser(description="Executes the quickstart on a Kafka and a worker of its own.")
    parser.add_argument("notebook", nargs="?", type=pathlib.Path, default=ROOT / "notebooks" / "01_quickstart.ipynb")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build" / "demo", help="where everything goes")
    options = parser.parse_args()
    console = Console(highlight=False)
    settings = _own_settings(options.build.resolve())
    client: Client | None = None
    try:
        local.down(settings, delete_data=True)  # what a killed demo left: this one's worker would take its runs up again
        ready = _start(settings, console)
        client = Client(ready)
        show = Show(client, options.notebook, options.build.resolve(), console)
        show.execute()
        return show.tell()
    except KeyboardInterrupt:
        print("interrupted: what was started is stopped", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # an impatient second Ctrl-C would leave a Kafka behind
        if client is not None:
            client.close()
        local.down(settings)


def _own_settings(build: pathlib.Path) -> Settings:
    """A Kafka and folders of its own, here and in the kernel: nothing that a person has configured or running is touched."""
    for name in [name for name in os.environ if name.startswith("KAFKA_JUPYTER_")]:
        del os.environ[name]
    ours = {"config": os.devnull, "data_dir": build / "data", "cache_dir": build / "cache", "key_dir": build / "keys"}
    os.environ.update({env_name(name): str(value) for name, value in ours.items()})
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    build.mkdir(parents=True, exist_ok=True)
    return Settings.from_env()


def _start(settings: Settings, console: Console) -> Settings:
    started = time.monotonic()
    with console.status("starting Apache Kafka and a worker") as status:
        ready = local.provide(settings, 1, 1, lambda text, part: status.update(text if part is None else f"{text} {part:.0%}"))
    os.environ[env_name("bootstrap_servers")] = ready.bootstrap_servers
    console.print(f"Apache Kafka at {ready.bootstrap_servers} and one worker, ready in {time.monotonic() - started:.1f} s")
    return ready


class Show:
    """The notebook in a thread, what its runs do in the terminal."""

    def __init__(self, client: Client, source: pathlib.Path, build: pathlib.Path, console: Console) -> None:
        self._client, self._source, self._build, self._console = client, source, build, console
        self._notebook = nbformat.read(source, as_version=4)
        self._executor = nbclient.NotebookClient(self._notebook, timeout=600, resources={"metadata": {"path": str(build)}})
        self._failure: BaseException | None = None
        self._through = threading.Event()  # an interrupted Thread.join takes a running thread for ended (CPython 3.11)

    def execute(self) -> None:
        """Until the notebook is through, or one of its cells has failed. Ctrl-C takes the kernel along."""
        self._console.print(f"executing {self._source}")
        threading.Thread(target=self._run, name="notebook", daemon=True).start()
        columns = (TextColumn("{task.description:24}"), BarColumn(), TextColumn("{task.fields[text]}"), TimeElapsedColumn())
        try:
            with Progress(*columns, console=self._console) as progress:
                bars: dict[str, TaskID] = {}
                through = False
                while not through:
                    through = self._through.wait(0.25)
                    for run in reversed(self._client.runs()):
                        _advance(progress, bars, run)
        finally:
            if not self._through.is_set():
                self._kill_kernel()
                self._through.wait(FAREWELL_S)

    def tell(self) -> int:
        """Writes the notebook, prints the table and the last line, or the error of the cell that failed; the exit code."""
        self._write()
        run = next(iter(self._client.runs(name=MAIN_RUN)), None)
        if run is not None:
            _table(run, self._console)
        if self._failure is not None or run is None:
            print(self._failure or f"no run is named {MAIN_RUN}", file=sys.stderr)
            return 1
        accuracy = run.history["val_accuracy"][-1]
        print(f"run {run.id} {run.state} epochs={len(run.history['loss'])} val_accuracy={accuracy:.4f}")
        return 0 if run.state == "SUCCEEDED" else 1

    def _run(self) -> None:
        try:
            with (self._build / "kernel.log").open("wb") as log:
                self._executor.execute(stderr=log)
        except Exception as failure:  # noqa: BLE001  # told at the end: a thread has no caller
            self._failure = failure
        finally:
            self._through.set()

    def _kill_kernel(self) -> None:
        """A kernel that waits for a run takes no polite request to end."""
        kernel = self._executor.km
        if kernel is not None and kernel.has_kernel:
            kernel.provisioner.process.kill()

    def _write(self) -> None:
        notebook = self._build / self._source.name
        nbformat.write(self._notebook, notebook)
        page, _ = HTMLExporter(template_name="lab").from_notebook_node(self._notebook)
        html = notebook.with_suffix(".html")
        html.write_text(page, "utf-8")
        self._console.print(f"wrote {notebook} and {html}")


def _advance(progress: Progress, bars: dict[str, TaskID], run: TrainingRun) -> None:
    if run.id not in bars:
        total = run.card()["epochs"] or None
        bars[run.id] = progress.add_task(run.short, total=total, text="")
    losses = run.history.get("loss", [])
    loss = f", loss {losses[-1]:.4f}" if losses else ""
    progress.update(bars[run.id], completed=len(losses), text=f"{run.state}, {run.progress}{loss}")
    if run.ended:
        progress.stop_task(bars[run.id])


def _table(run: TrainingRun, console: Console) -> None:
    history = run.history
    table = Table("epoch", *history, title=run.id)
    for epoch, values in enumerate(zip(*history.values(), strict=True), start=1):
        table.add_row(str(epoch), *("-" if value is None else f"{value:.4f}" for value in values))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
