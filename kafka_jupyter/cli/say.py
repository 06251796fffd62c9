"""What the commands print: plain lines, tables, JSON, and progress on stderr. Nothing that others wrote can steer the terminal."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import select
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from rich.table import Table

TAB = 8
_SEQUENCES = re.compile(  # colours and whatever else a terminal is told: control sequences (CSI), strings (OSC, DCS, …), single ones
    "(?:\x1b\\[|\x9b)[0-?]*+[ -/]*+[@-~]|(?:\x1b[\\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c)?|\x1b[ -/]*[0-~]"
)
_UNSEEN = re.compile(r"[^\n -~]")  # in JSON: what is not plain ASCII, to be looked at


def line(text: str = "", flush: bool = False) -> None:
    """Prints the text; where it has several lines, each one is a line."""
    print("\n".join(map(plain, text.split("\n"))), flush=flush)


def error(text: str) -> None:
    print("kafka-jupyter: " + "\n".join(map(plain, text.splitlines())), file=sys.stderr, flush=True)


def json(value: object) -> None:
    print(_escaped(msgspec.json.format(encoded(value)).decode()))


def json_line(value: object) -> None:
    """One object a line, at once: for what goes on."""
    print(_escaped(encoded(value).decode()), flush=True)


def encoded(value: object) -> bytes:
    return msgspec.json.encode(whole(value))


def whole(value: Any) -> Any:
    """Records with all their keys, also those that stand at their defaults and are left out of the log: scripts rely on them."""
    if isinstance(value, msgspec.Struct):
        config = value.__struct_config__
        tag = {config.tag_field: config.tag} if config.tag_field else {}
        return tag | {name: whole(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {key: whole(inner) for key, inner in value.items()}
    return [whole(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _escaped(text: str) -> str:
    """The same JSON, with everything that a terminal could take for more than a character written as `\\u202e`."""
    return text if text.isascii() and "\x7f" not in text else _UNSEEN.sub(_as_escape, text)


def _as_escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return found[0] if found[0].isprintable() else "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns as wide as they need on a terminal, never cut where the output goes into a file or a pipe."""
    from rich.console import Console  # late, like all that --help does not need

    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 1000)
    with console.capture() as capture:
        console.print(grid(columns, rows))
    print("\n".join(text.rstrip() for text in capture.get().splitlines()))


def grid(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(plain(cell) for cell in row))
    return shown


def end_with_the_pipe() -> None:
    """Ends this process when nobody reads its stdout any more (`logs -f | grep -m 1 …`): the next line that would show it may be hours
    away. For commands that only read."""
    stdout = sys.__stdout__
    if stdout is not None and sys.stdout is stdout and stat.S_ISFIFO(os.fstat(stdout.fileno()).st_mode):
        threading.Thread(target=_end_with_the_pipe, args=(stdout.fileno(),), daemon=True).start()


def _end_with_the_pipe(pipe: int) -> None:
    poll = select.poll()
    poll.register(pipe, 0)  # waits for errors only
    poll.poll()
    os._exit(0)


def moves() -> bool:
    """Whether stdout is a terminal that can move its cursor."""
    if not sys.stdout.isatty():
        return False
    from rich.console import Console

    return not Console().is_dumb_terminal


def plain(cell: object) -> str:
    """One line of what others may have written, without colours, control characters and marks that turn the writing direction."""
    text = str(cell)
    if text.isprintable():
        return text
    text = _SEQUENCES.sub("", text).expandtabs(TAB)
    return "".join(c if c.isprintable() else " " if c.isspace() else "" for c in text)


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


def ago(at_ms: int | None) -> str:
    """`3 min 20 s ago`; empty for no time."""
    return f"{duration(time.time() - at_ms / 1000)} ago" if at_ms else ""


def when(at_ms: int | None) -> str:
    """Local time: `2026-08-01 12:00:59`; empty for no time, and for one that is in no calendar."""
    with contextlib.suppress(ValueError, OverflowError, OSError):
        return datetime.datetime.fromtimestamp(at_ms / 1000).strftime("%Y-%m-%d %H:%M:%S") if at_ms else ""
    return ""
