"""What a scenario measures, as lines of one table, and how much of it is played."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much of a scenario is played: up to `count` events (runs, kills, …), no new one after `seconds`. `whole`: what the property
    asks for."""

    count: int
    seconds: float
    whole: int = 0


@dataclasses.dataclass(frozen=True)
class Figure:
    """One line of the table. `count`: what the figure rests on."""

    row: str
    what: str
    target: str
    measured: str
    count: str
    holds: bool


def percentile(values: Sequence[float], share: float = 0.99) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def table(figures: Iterable[Figure]) -> str:
    """The table that `make soak` prints and `README` quotes."""
    lines = ["| | property | target | measured | rests on | holds |", "|---|---|---|---|---|---|"]
    for f in figures:
        lines.append(f"| {f.row} | {f.what} | {f.target} | {f.measured} | {f.count} | {'yes' if f.holds else 'NO'} |")
    return "\n".join(lines)


def holds(figures: Sequence[Figure]) -> None:
    """For a test: the figures are shown, and all of them hold."""
    print("\n" + table(figures))
    assert figures
    assert all(figure.holds for figure in figures), table(figures)
