"""Tab completion in the magics' lines: options, and ids of runs where a connection is open already."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from kafka_jupyter.notebook.parsing import SETTINGS, Parser

RUNS = 50  # ids that are offered


def completer(parser: Parser) -> Callable[[Any, Any], list[str]]:
    """For IPython's `complete_command` hook."""

    def complete(_shell: Any, event: Any) -> list[str]:
        words = event.line[: len(event.line) - len(event.symbol)].split()
        if words and words[-1] in parser.choices:
            return parser.choices[words[-1]]
        options = [option for option in parser.options if option not in words]
        if event.symbol.startswith("-"):
            return options
        if parser.words and not set(parser.words) & set(words):
            return parser.words + options
        if parser.prog == "%kafka_ctl" and len(words) > 1:
            return [f"{name}=" for name in SETTINGS] + options
        return options + (run_ids() if parser.takes_run else [])

    return complete


def run_ids() -> list[str]:
    """Never connects and never waits: completion must not."""
    client = sys.modules.get("kafka_jupyter.client.connection")
    if client is None:
        return []
    followers = [connection.peek() for connection in client.opened()]
    states = [state for follower in followers if follower is not None for state in follower.states()]
    return [state.run_id for state in sorted(states, key=lambda state: state.first_ms, reverse=True)[:RUNS]]
