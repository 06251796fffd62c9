"""`%%kafka_train …` in line 1 → a call that switches capture on; the rest of the cell stays as it is and runs natively.

So line numbers, await, `_`, `;`, `%time` and `!cmd` work as always. Pure, and what it has transformed it leaves alone.
"""

from __future__ import annotations

import re
import shlex

MAGIC = "kafka_train"

_FIRST = re.compile(rf"%%{MAGIC}(?![\w?])[^\S\n]*(?P<args>[^\n]*)\n?\Z")
HELP = ("-h", "--help")


def transform(lines: list[str]) -> list[str]:
    """The cell's lines, each with its line end."""
    found = _FIRST.match(lines[0]) if lines else None
    if found is None:
        return lines
    args = found["args"].strip()
    call = f"get_ipython().run_line_magic({MAGIC!r}, {args!r})\n"
    return [call] if asks_for_help(args) else [call, *lines[1:]]


def asks_for_help(args: str) -> bool:
    """Then the cell's body is not run."""
    return any(word in HELP for word in split(args))


def split(args: str) -> list[str]:
    """Words as a shell has them; an open quote is part of its word."""
    try:
        return shlex.split(args)
    except ValueError:
        return args.split()
