"""A saved notebook whose kernel left before its runs had ended: their final outputs are put into its text, from the log. Pure.

It works on the text, not on a parsed notebook: writing one anew would sort keys and change white space, and a diff would show more than
these outputs. All that is read here is hostile.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kafka_jupyter.outputs import jsontext, widgets
from kafka_jupyter.outputs.bundle import MIME, WIDGET_VIEW, bundle
from kafka_jupyter.outputs.jsontext import Edit, Node
from kafka_jupyter.protocol import ids
from kafka_jupyter.runs.figures import CardState, Row

RUN_LIMIT = 1000  # of one output: each of them may bring 200 rows into the file
NAMED = 3  # runs that a sentence names
WIDGETS = "application/vnd.jupyter.widget-state+json"

_OPENED: set[jsontext.Path] = {  # 0 stands for any place in a list
    (),
    ("cells",),
    ("cells", 0),
    ("cells", 0, "outputs"),
    ("cells", 0, "outputs", 0),
    ("cells", 0, "outputs", 0, "data"),
    ("cells", 0, "outputs", 0, "metadata"),
    ("metadata",),
    ("metadata", "widgets"),
    ("metadata", "widgets", WIDGETS),
    ("metadata", "widgets", WIDGETS, "state"),
}

_ESCAPE = re.compile(r"\\u(?!00[01])")  # of what is no control character: its writer keeps to ASCII

Lookup = Callable[[str], tuple[CardState, Sequence[Row]] | None]  # run id → card state and accepted rows; None: not in the log


class Did(enum.StrEnum):
    """What has become of an output."""

    FINISHED = "finished"
    FINAL = "already final"
    RUNNING = "still running"
    UNKNOWN = "unknown run"
    UNREADABLE = "not readable"


@dataclasses.dataclass(frozen=True)
class Output:
    """An output of ours. `cell` and `output` count from 1. `trouble`: why its bundle cannot be read."""

    cell: int
    output: int
    data: Node
    metadata: Node | None
    runs: tuple[str, ...] = ()  # in the order of the card, each once
    final: bool = False
    trouble: str = ""


@dataclasses.dataclass(frozen=True)
class Notebook:
    """The text of an .ipynb file, and what matters in it."""

    text: str
    root: Node
    outputs: tuple[Output, ...]
    others: frozenset[str]  # widget models that outputs of others show


@dataclasses.dataclass(frozen=True)
class Told:
    """What was done with one output, and why. `cell` and `output` count from 1."""

    cell: int
    output: int
    runs: tuple[str, ...]
    did: Did
    why: str


@dataclasses.dataclass(frozen=True)
class Finished:
    text: str  # the very same where nothing is to be done
    outputs: tuple[Told, ...]


def read(text: str) -> Notebook:
    """Raises ValueError, which says why this is no notebook that can be finished, and the way out."""
    try:
        root = jsontext.parse(text, lambda path: tuple(0 if isinstance(step, int) else step for step in path) in _OPENED)
    except ValueError as error:
        raise ValueError(f"it is no JSON that can be read ({error}). Does JupyterLab open it?") from error
    version, cells = root.get("nbformat"), root.get("cells")
    number = version.value if version else None
    if type(number) is int and 0 < number < 4:
        raise ValueError(f"it is of nbformat {number}: open it in JupyterLab and save it, which brings it up to date")
    if type(number) is int and number > 4:
        raise ValueError(f"it is of nbformat {number}, and this kafka_jupyter knows 4: pip install -U kafka_jupyter")
    if number != 4 or cells is None or cells.items is None:
        raise ValueError("it is no notebook: JSON, but without nbformat 4 and a list of cells")
    outputs, others = [], set()
    for i, cell in enumerate(cells.items, 1):
        listed = cell.get("outputs")
        for j, output in enumerate((listed.items if listed else None) or (), 1):
            data = output.get("data")
            if data is None or not data.members:
                continue
            if data.get(MIME) is None:
                others.add(_view(data))
            else:
                outputs.append(_output(i, j, data, output.get("metadata")))
    return Notebook(text, root, tuple(outputs), frozenset(filter(None, others)))


def finish(notebook: Notebook, lookup: Lookup) -> Finished:
    """Outputs of ours whose runs have all ended get the bundle that their kernel would have left; their widgets go. All other bytes stay.

    `lookup` is asked for the runs of outputs that are not final.
    """
    told: list[Told] = []
    edits: list[Edit] = []
    closed, shown = set(), set(notebook.others)
    for output in notebook.outputs:
        did, why, found = _judged(output, lookup)
        told.append(Told(output.cell, output.output, output.runs, did, why))
        if did is Did.FINISHED:
            edits += _edits(notebook.text, output, found)
            closed.add(_view(output.data))
        else:
            shown.add(_view(output.data))
    edits += _widgets(notebook, closed - {""}, shown)
    return Finished(jsontext.applied(notebook.text, edits), tuple(told))


def _output(cell: int, output: int, data: Node, metadata: Node | None) -> Output:
    value = data.get(MIME)
    assert value is not None
    try:
        entries = _entries(value.value)
    except ValueError as error:
        return Output(cell, output, data, metadata, trouble=str(error))
    runs = tuple(dict.fromkeys(entry["run_id"] for entry in entries))
    static = data.get(WIDGET_VIEW) is None and data.get("text/html") is not None and data.get("text/plain") is not None
    return Output(cell, output, data, metadata, runs, static and all(map(_stands_alone, entries)))


def _entries(value: Any) -> list[dict[str, Any]]:
    """The runs of a bundle. Raises ValueError."""
    if not isinstance(value, dict) or not isinstance(value.get("runs"), list) or not value["runs"]:
        raise ValueError("its bundle names no runs")
    if type(value.get("v")) is not int or value["v"] != 1:
        raise ValueError("its bundle is not of version 1. A newer kafka_jupyter may know it: pip install -U kafka_jupyter")
    if len(value["runs"]) > RUN_LIMIT:
        raise ValueError(f"its bundle names {len(value['runs'])} runs, more than {RUN_LIMIT}")
    for entry in value["runs"]:
        run_id = entry.get("run_id") if isinstance(entry, dict) else None
        if not isinstance(run_id, str) or not ids.RUN_ID.match(run_id):
            raise ValueError("its bundle names something that is no run id")
    return list(value["runs"])


def _stands_alone(entry: Mapping[str, Any]) -> bool:
    state = entry.get("state")
    return isinstance(state, dict) and state.get("terminal") is True and isinstance(entry.get("rows"), list)


def _judged(output: Output, lookup: Lookup) -> tuple[Did, str, list[tuple[CardState, Sequence[Row]]]]:
    if output.trouble:
        return Did.UNREADABLE, output.trouble, []
    if output.final:
        return Did.FINAL, _named(output.runs), []
    answers = {run_id: lookup(run_id) for run_id in output.runs}
    unknown = [run_id for run_id, answer in answers.items() if answer is None]
    if unknown:
        return Did.UNKNOWN, f"{_named(unknown)}: not in this log", []
    found = [answer for answer in answers.values() if answer is not None]
    going = [f"{state['run_id']} {state['state']}" for state, _ in found if not state.get("terminal")]
    if going:
        return Did.RUNNING, _named(going), []
    return Did.FINISHED, _named([f"{state['run_id']} {state['state']}" for state, _ in found]), found


def _named(words: Sequence[str]) -> str:
    more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return ", ".join(words[:NAMED]) + more


def _edits(text: str, output: Output, found: Sequence[tuple[CardState, Sequence[Row]]]) -> list[Edit]:
    """Written as whoever saved the notebook writes: Jupyter sorts keys and makes a list of lines of each text, others may not."""
    data = output.data
    value = bundle([state for state, _ in found], {state["run_id"]: rows for state, rows in found}, live=False)
    texts = [member.node.value for member in data.members or () if member.key.startswith("text/")]
    if not any(isinstance(each, str) for each in texts):
        value = {mime: each.splitlines(True) if isinstance(each, str) else each for mime, each in value.items()}
    escapes = text.isascii() and _ESCAPE.search(text) is not None
    edits = [Edit(data.start, data.end, jsontext.written(text, data, value, _is_sorted(data), escapes))]
    if output.metadata is not None and output.metadata.get(WIDGET_VIEW) is not None:
        edits.append(jsontext.without(text, output.metadata, {WIDGET_VIEW}))
    return edits


def _is_sorted(data: Node) -> bool:
    ours = data.get(MIME)
    entries = ours.value["runs"] if ours is not None else []
    return all(list(keys) == sorted(keys) for keys in ([member.key for member in data.members or ()], *entries))


def _view(data: Node) -> str:
    """The id of the widget model that an output shows; empty if it shows none."""
    view = data.get(WIDGET_VIEW)
    model = view.value.get("model_id") if view is not None and isinstance(view.value, dict) else None
    return model if isinstance(model, str) else ""


def _widgets(notebook: Notebook, closed: set[str], shown: set[str]) -> list[Edit]:
    """The models of widgets that nothing shows any more. What they leave empty goes as well."""
    metadata = notebook.root.get("metadata")
    kinds = metadata and metadata.get("widgets")
    saved = kinds and kinds.get(WIDGETS)
    state = saved and saved.get("state")
    if metadata is None or kinds is None or state is None:
        return []
    members = state.members or ()
    gone = widgets.unused({member.key: member.node.value for member in members}, closed, shown)
    if not gone:
        return []
    if len(gone) < len(members):
        return [jsontext.without(notebook.text, state, gone)]
    if len(kinds.members or ()) > 1:
        return [jsontext.without(notebook.text, kinds, {WIDGETS})]
    return [jsontext.without(notebook.text, metadata, {"widgets"})]
