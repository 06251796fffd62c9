"""`notebook finish`: what a saved notebook lacks because its kernel left before its runs had ended."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kafka_jupyter.cli import options, say
from kafka_jupyter.cli.exits import Code
from kafka_jupyter.cli.options import client_of
from kafka_jupyter.errors import NotebookError, WaitTimeout
from kafka_jupyter.settings import env_name

if TYPE_CHECKING:
    from kafka_jupyter.cli.notebook_files import NotebookFile, Trust
    from kafka_jupyter.client import Client
    from kafka_jupyter.outputs.finish import Finished

app = typer.Typer(name="notebook", help="Saved notebooks.", no_args_is_help=True)

LOOK_S = 1.0  # between two looks at a run that is waited for

Notebooks = Annotated[list[str], typer.Argument(metavar="NB", help="Notebook files.")]
Wait = Annotated[bool, typer.Option("--wait", envvar=env_name("wait"), help="Wait for the runs that have not ended.")]
DryRun = Annotated[bool, typer.Option("--dry-run", envvar=env_name("dry_run"), help="Say what would be done, and write nothing.")]


@app.command()
def finish(
    notebooks: Notebooks,
    wait: Wait = False,
    dry_run: DryRun = False,
    as_json: options.Json = False,
    profile: options.Profile = None,
    servers: options.Servers = None,
    prefix: options.Prefix = None,
    insecure: options.Insecure = False,
) -> None:
    """Write the results of runs that ended after you had left into the cells that started them.

    Only these outputs change. Close the notebook in JupyterLab first, or reload it afterwards.

    Exit code 0: all outputs of runs are final. 6: some are not, because their run goes on or is not in this log, or because of --dry-run.
    1: a notebook or Kafka could not be used.

    Example: kafka-jupyter notebook finish digits.ipynb --wait
    """
    from kafka_jupyter.cli.notebook_files import Trust
    from kafka_jupyter.outputs.finish import Did

    told: list[Report] = []
    with client_of(profile, servers, prefix, insecure) as client:
        log, trust = Log(client), Trust()
        for name in notebooks:
            report = _one(name, log, trust, wait, dry_run)
            told.append(report)
            if not as_json:
                _say(report, client.settings.bootstrap_servers)
    if as_json:
        say.json([dataclasses.asdict(report) for report in told])
    for report in told:
        if report.error:
            print(f"kafka-jupyter: {report.error}", file=sys.stderr)
    if any(report.error for report in told):
        raise typer.Exit(Code.ERROR)
    if not all(output["did"] in (Did.FINAL, Did.FINISHED) for report in told for output in report.outputs):
        raise typer.Exit(Code.UNFINISHED)


@dataclasses.dataclass
class Report:
    """What has become of a notebook. `outputs`: what `finish.Told` says of each, or that it was not written. `distrusted`: it was
    trusted, and is no more. `error`: why it was left as it is."""

    notebook: str
    outputs: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    written: bool = False
    distrusted: bool = False
    error: str = ""


class Log:
    """Runs by their whole ids, as a card shows them. Connects when it is asked first."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._ended: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {}

    def __call__(self, run_id: str) -> tuple[dict[str, Any], Sequence[dict[str, Any]]] | None:
        """Card state and, of a run that has ended, its epochs. Not by `attach`: a file must not say "my newest run of that name"."""
        from kafka_jupyter.client import TrainingRun
        from kafka_jupyter.protocol.rows import EpochEnded
        from kafka_jupyter.runs.view import row_json

        if run_id in self._ended:
            return self._ended[run_id]
        state = self._client.connection().catch_up().state(run_id)
        if state is None:
            return None
        run = TrainingRun(self._client, run_id)
        if not state.terminal:
            return run.card(), []
        run.wait_for_end()  # its last rows may come a moment later
        self._ended[run_id] = run.card(), [row_json(n, row) for n, row in run.rows() if isinstance(row, EpochEnded)]
        return self._ended[run_id]

    def wait(self, run_ids: Sequence[str]) -> None:
        """Until all of them have ended, with progress on stderr."""
        from kafka_jupyter.client import TrainingRun

        with say.progress() as progress:
            for run in (TrainingRun(self._client, run_id) for run_id in run_ids):
                while True:
                    try:
                        run.wait_for_end(timeout=LOOK_S)
                        break
                    except WaitTimeout:
                        # A file gets a line when the state changes, not one for each epoch.
                        doing = run.summary() if sys.stderr.isatty() else f"{run.id} {run.state}"
                        progress(say.plain(f"waiting for {doing}{run.waiting and '. '}{run.waiting}"), None)


def _one(name: str, log: Log, trust: Trust, wait: bool, dry_run: bool) -> Report:
    from kafka_jupyter.cli.notebook_files import NotebookFile
    from kafka_jupyter.outputs.finish import Did

    report = Report(name)
    try:
        file = NotebookFile.read(name)
        finished = _finished(file, log)
        going = dict.fromkeys(run for output in finished.outputs if output.did is Did.RUNNING for run in output.runs)
        if wait and going:
            log.wait(list(going))
            file = NotebookFile.read(name)  # hours may have passed
            finished = _finished(file, log)
        report.outputs = _told(finished, "would be finished" if dry_run else "not written")
        if not dry_run and finished.text != file.text:
            _write(file, finished.text, trust, report)
            report.outputs = _told(finished, Did.FINISHED)
    except NotebookError as error:
        report.error = str(error)
    return report


def _told(finished: Finished, of_finished: str) -> list[dict[str, Any]]:
    from kafka_jupyter.outputs.finish import Did

    words = {did: str(of_finished if did is Did.FINISHED else did) for did in Did}
    return [{**dataclasses.asdict(output), "did": words[output.did]} for output in finished.outputs]


def _write(file: NotebookFile, text: str, trust: Trust, report: Report) -> None:
    trusted = trust.has(file.text)
    file.replace(text)
    report.written = True
    report.distrusted = trusted and not trust.give(text)


def _finished(file: NotebookFile, log: Log) -> Finished:
    from kafka_jupyter.outputs.finish import finish, read

    try:
        notebook = read(file.text)
    except ValueError as error:
        raise NotebookError(file=say.plain(file.name), why=say.plain(error)) from error
    return finish(notebook, log)


def _say(report: Report, servers: str) -> None:
    from kafka_jupyter.outputs.finish import Did

    name = say.plain(report.notebook)
    for output in report.outputs:
        say.line(f"{name}: cell {output['cell']}, output {output['output']}: {output['did']}: {say.plain(output['why'])}")
    if not report.outputs and not report.error:
        say.line(f"{name}: no output of a run")
    if any(output["did"] == Did.UNKNOWN for output in report.outputs):
        where = servers or "the local Kafka"
        say.line(f"{name}: what is not in the log of {where} may be in another one (--profile), or is older than the log is kept")
    if report.distrusted:
        say.line(f"{name}: Jupyter could not be told to trust it as before. `jupyter trust {name}` does")
