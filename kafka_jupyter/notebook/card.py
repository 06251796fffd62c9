"""The card of a cell, seen from the kernel: one output that is shown, kept moving, and final when the runs have ended.

States are the dicts of `runs.view.card_state`, rows the accepted rows by run id as `GET runs/{id}` gives them. In a kernel the
output is one bundle; a terminal gets a line when it begins and one when it ends, a script only the last one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from kafka_jupyter.outputs.bundle import WIDGET_VIEW, Rows, bundle
from kafka_jupyter.outputs.statichtml import plain
from kafka_jupyter.runs.figures import CardState

if TYPE_CHECKING:
    from kafka_jupyter.notebook.widget import RunWidget

PERIOD = 0.25  # seconds between two updates
SHARE = 0.1  # of the time is spent on them at most, however long a history is: the cell has better things to do


class Card:
    """`show` once, `update` as often as there is news (it keeps to four a second), `finish` at the end of the waiting.

    `live=False` is for headless runs: nobody looks, so there is no widget, and the saved output is static from the start.
    `waiting`: the cell waits, so a message of the widget would reach the kernel only afterwards.
    """

    def __init__(
        self,
        *,
        live: bool = True,
        waiting: bool = True,
        on_action: Callable[[str, str], None] | None = None,
    ) -> None:
        self._live = live
        self._waiting = waiting
        self._on_action = on_action
        self._where = _where()
        self._handle: Any = None  # IPython's DisplayHandle, which is untyped
        self._widget: RunWidget | None = None
        self._metadata: dict[str, Any] = {}
        self._shown: list[tuple[str, str]] = []
        self._next = 0.0

    def show(self, states: Sequence[CardState], rows: Rows | None = None) -> None:
        if self._where == "kernel":
            from IPython import display

            handle: Any = display.DisplayHandle
            self._handle = handle()
            self._handle.display(self._bundle(states, rows or {}), metadata=self._metadata, raw=True)
        elif self._where == "terminal":
            print(plain(states, rows or {}), flush=True)
        self._shown = _words(states)

    def update(self, states: Sequence[CardState], rows_now: Callable[[], Rows]) -> None:
        """States replace; the rows are the whole accepted history, asked for only when something is to be shown. Most calls do nothing."""
        started = time.monotonic()
        news = _words(states) != self._shown
        if self._handle is None or (started < self._next and not news):
            return
        rows = rows_now()
        if self._widget is not None:
            self._widget.feed(states, rows)
        if news:  # the notebook may be saved, or its kernel die, at any time
            self._shown = _words(states)
            self._handle.update(self._bundle(states, rows), metadata=self._metadata, raw=True)
        self._next = started + max(PERIOD, (time.monotonic() - started) / SHARE)

    def stop_waiting(self) -> None:
        """The cell is over and the card goes on: from now on the kernel hears the buttons."""
        self._waiting = False
        if self._widget is not None:
            self._widget.waiting = False

    def finish(self, states: Sequence[CardState], rows: Rows) -> None:
        """The output as it stays. Without the widget view: a trusted notebook opened later would show an error in its place."""
        if self._handle is not None:
            self._handle.update(bundle(states, rows, live=not all(state.get("terminal") for state in states)), raw=True)
        elif self._where != "kernel":
            print(plain(states, rows), flush=True)
        if self._widget is not None:
            self._widget.close()
            self._widget = None

    def _bundle(self, states: Sequence[CardState], rows: Rows) -> dict[str, Any]:
        data = bundle(states, rows, live=self._live)
        if self._live:
            if self._widget is None:
                from kafka_jupyter.notebook.widget import RunWidget

                self._widget = RunWidget(on_action=self._on_action, waiting=self._waiting)
                self._widget.feed(states, rows)
            view, metadata = self._widget._repr_mimebundle_() or ({}, {})
            data |= {key: value for key, value in view.items() if key == WIDGET_VIEW}
            self._metadata = dict(metadata)
        return data


def _words(states: Sequence[CardState]) -> list[tuple[str, str]]:
    return [(state["run_id"], str(state["state"])) for state in states]


def _where() -> str:
    """ "kernel", "terminal" (IPython without a kernel) or "script"."""
    import sys

    if "IPython" not in sys.modules:
        return "script"
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        return "script"
    return "kernel" if getattr(shell, "kernel", None) is not None else "terminal"
