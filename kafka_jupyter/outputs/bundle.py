"""The bundle: what one output of a cell holds of its runs, for every kind of reader.

States are the dicts of `runs.view.card_state`, rows the accepted rows by run id as `GET runs/{id}` gives them. Kernel, server and command
line make it with this one function, so that what they save is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kafka_jupyter.outputs.statichtml import TRACEBACK_LIMIT, page, plain
from kafka_jupyter.runs.figures import CardState, Row, epochs_of, thinned

MIME = "application/vnd.kafka-jupyter.run+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"

SAVED_EPOCHS = 200  # a run in the saved notebook, for readers whose server does not know it

Rows = Mapping[str, Sequence[Row]]


def bundle(states: Sequence[CardState], rows: Rows, *, live: bool) -> dict[str, Any]:
    """The output's data without the widget view: our own JSON, HTML and text.

    While it is `live`, the page asks the server for the rows; the final one holds enough of them to stand alone.
    """
    entries = []
    for state in states:
        entry: dict[str, Any] = {"run_id": state["run_id"], "cursor": state.get("cursor") or "", "state": _kept(state)}
        if not live:
            entry["rows"] = [dict(row) for row in thinned(epochs_of(rows.get(state["run_id"], ())), SAVED_EPOCHS)]
        entries.append(entry)
    return {MIME: {"v": 1, "runs": entries}, "text/html": page(states, rows), "text/plain": plain(states, rows)}


def _kept(state: CardState) -> dict[str, Any]:
    """The state as the notebook keeps it: a traceback can be large, and the whole one is in the log."""
    kept = {key: value for key, value in state.items() if key not in ("now_ms", "cursor", "tally")}
    error = kept.get("error")
    if error and len(error.get("traceback") or "") > TRACEBACK_LIMIT:
        kept["error"] = {**error, "traceback": error["traceback"][-TRACEBACK_LIMIT:]}
    return kept
