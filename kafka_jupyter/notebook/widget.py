"""The ipywidgets view of a card: for VS Code, Colab and pages without the plugin.

Its traits are replaced, never patched, so that a view that comes late has everything: `rows` is the thinned history, `tail` what
came since, and the page merges both by (attempt, seq).
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anywidget
import traitlets

from kafka_jupyter.runs.figures import CardState, Row, epochs_of, thinned

_STATIC = pathlib.Path(__file__).parent / "static"

HISTORY = 400  # epochs a run; more cannot be told apart in a picture of this size
TAIL = 50  # rows that are sent again and again before they join `rows`
ACTIONS = ("stop", "pause", "resume", "cancel", "retry")


class RunWidget(anywidget.AnyWidget):
    """Shows what it is fed; `on_action(run_id, one of ACTIONS)` is called when a button is pressed and no server is reachable."""

    _esm = _STATIC / "widget.js"
    _css = _STATIC / "widget.css"
    states: Any = traitlets.List().tag(sync=True)
    rows: Any = traitlets.List().tag(sync=True)
    tail: Any = traitlets.List().tag(sync=True)
    waiting: Any = traitlets.Bool(False).tag(sync=True)

    def __init__(self, on_action: Callable[[str, str], None] | None = None, **traits: Any) -> None:
        super().__init__(**traits)
        self._in_rows: dict[str, int] = {}
        self._on_action = on_action
        self.on_msg(self._receive)

    def feed(self, states: Sequence[CardState], rows: Mapping[str, Sequence[Row]]) -> None:
        """`rows`: all accepted rows by run id."""
        histories = {state["run_id"]: epochs_of(rows.get(state["run_id"], ())) for state in states}
        tail = [row for run, epochs in histories.items() for row in _named(run, epochs[self._in_rows.get(run, 0) :])]
        restarted = any(len(epochs) < self._in_rows.get(run, 0) for run, epochs in histories.items())
        with self.hold_sync():
            self.states = [dict(state) for state in states]
            if restarted or len(tail) > TAIL:
                self._in_rows = {run: len(epochs) for run, epochs in histories.items()}
                self.rows = [row for run, epochs in histories.items() for row in _named(run, thinned(epochs, HISTORY))]
                tail = []
            self.tail = tail + [row for run in histories for row in _named(run, _newest_batch(rows.get(run, ())))]

    def _receive(self, _widget: Any, content: Any, _buffers: Any) -> None:
        if not isinstance(content, dict) or self._on_action is None:
            return
        action, run_id = content.get("action"), content.get("run_id")
        if action in ACTIONS and any(state["run_id"] == run_id for state in self.states):
            self._on_action(str(run_id), str(action))


def _named(run_id: str, rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [{**row, "run_id": run_id} for row in rows]


def _newest_batch(rows: Sequence[Row]) -> list[Row]:
    for row in reversed(rows):
        if row.get("type") == "batch":
            return [row]
    return []
