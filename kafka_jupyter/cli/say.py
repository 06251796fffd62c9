"""What the commands print: plain lines, tables, JSON, and progress on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec


def line(text: str = "") -> None:
    print(text)


def json(value: object) -> None:
    print(msgspec.json.format(msgspec.json.encode(value)).decode())


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns as wide as they need on a terminal, never cut where the output goes into a file or a pipe."""
    from rich.console import Console  # late, like all that --help does not need
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(plain(cell) for cell in row))
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 1000)
    with console.capture() as capture:
        console.print(shown)
    print("\n".join(text.rstrip() for text in capture.get().splitlines()))


def plain(cell: object) -> str:
    """Names and messages come from others: what could steer a terminal is left out."""
    return "".join(c for c in str(cell) if c.isprintable())


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, float | None], None]]:
    """A Progress that moves on a terminal's stderr, and writes each new step once where stderr is a file."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False)
    if not console.is_terminal:
        told: set[str] = set()

        def write(text: str, _part: float | None) -> None:
            if text not in told:
                told.add(text)
                print(f"{text} …", file=sys.stderr, flush=True)

        yield write
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda text, part: bar.update(task, description=text, total=None if part is None else 1.0, completed=part or 0.0)


def size(count: float) -> str:
    """Bytes for people: `512 B`, `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    whole = max(0, int(seconds))
    for limit, big, small, names in ((60, 1, 1, ("s", "")), (3600, 60, 1, ("min", "s")), (86400, 3600, 60, ("h", "min"))):
        if whole < limit:
            rest = f" {whole % big // small} {names[1]}" if names[1] and whole % big // small else ""
            return f"{whole // big} {names[0]}{rest}"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
