"""Real notebooks in a real kernel, as nbclient runs them: headless, each cell once, outputs kept."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import nbformat
from nbclient import NotebookClient

CELL_TIMEOUT_S = 120


@dataclasses.dataclass(frozen=True)
class Ran:
    """An executed cell."""

    name: str
    outputs: list[Any]

    @property
    def text(self) -> str:
        """What it printed."""
        return "".join(output["text"] for output in self.outputs if output["output_type"] == "stream")

    @property
    def result(self) -> str | None:
        """Its `Out[n]`."""
        found = [output["data"]["text/plain"] for output in self.outputs if output["output_type"] == "execute_result"]
        return found[0] if found else None

    @property
    def error(self) -> Any:
        return next((output for output in self.outputs if output["output_type"] == "error"), None)

    @property
    def cards(self) -> list[Mapping[str, Any]]:
        return [output["data"] for output in self.outputs if output["output_type"] == "display_data" and MIME in output["data"]]

    @property
    def runs(self) -> list[str]:
        """Ids of the runs on its card, in order."""
        return [entry["run_id"] for card in self.cards for entry in card[MIME]["runs"]]


MIME = "application/vnd.kafka-jupyter.run+json"


def run_notebook(cells: Mapping[str, str], folder: pathlib.Path, env: Mapping[str, str]) -> dict[str, Ran]:
    """Runs all cells, also behind one that fails."""
    notebook = executed(cells, folder, env)
    return {name: Ran(name, cell.outputs) for name, cell in zip(cells, notebook.cells, strict=True)}


class _Present(NotebookClient):
    """As a page where somebody sits: cards are live widgets."""

    async def async_start_new_kernel_client(self) -> Any:
        made = await super().async_start_new_kernel_client()
        made.allow_stdin = True
        return made


def executed(cells: Mapping[str, str], folder: pathlib.Path, env: Mapping[str, str], present: bool = False) -> nbformat.NotebookNode:
    """The whole notebook after all cells have run; with the state of its widgets, where somebody is `present`."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells.values()])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    client = (_Present if present else NotebookClient)(
        notebook, timeout=CELL_TIMEOUT_S, kernel_name="python3", allow_errors=True, resources={"metadata": {"path": str(folder)}}
    )
    client.execute(env=dict(env))
    nbformat.validate(notebook)
    return notebook
