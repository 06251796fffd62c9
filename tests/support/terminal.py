"""A process on a real pseudo-terminal, and the screen as a person would see it.

The screen knows what this package writes: text, colours, moving up, erasing a line or all, hiding the cursor. Anything else is an error:
what others have written must never steer a terminal.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator, Mapping, Sequence

from rich.cells import cell_len

from tests.support.waiting import wait_until

_TOKEN = re.compile(r"\x1b\[(\?25[lh]|[0-9;]*[AHJKm])|([\r\n])|([^\x00-\x1f\x7f-\x9f])")


class Screen:
    def __init__(self, columns: int, lines: int) -> None:
        self.columns, self.lines = columns, lines
        self.rows: list[list[str]] = [[]]  # everything, what was scrolled out of sight included; cell by cell
        self.row = self.column = 0
        self.cursor = True  # whether it is shown
        self.drawn = 0  # how often a picture has taken the place of the one before
        self.raw = self._rest = self._before = ""

    def feed(self, text: str) -> None:
        self.raw += text
        text, at = self._rest + text, 0
        while at < len(text):
            token = _TOKEN.match(text, at)
            if token is None:
                assert text[at] == "\x1b", f"the terminal was steered by {text[at : at + 40]!r}"
                assert len(text) - at < 12, f"the terminal was steered by {text[at : at + 40]!r}"
                break  # the sequence is not whole yet
            at = token.end()
            before, self._before = self._before, token[0]
            if token[1]:
                self._sequence(token[1])
                self.drawn += (before, token[1]) == ("\r", "2K")
            elif token[2]:
                self._move(token[2])
            else:
                self._write(token[3])
        self._rest = text[at:]

    def _sequence(self, code: str) -> None:
        top = max(0, len(self.rows) - self.lines)
        if code in ("?25l", "?25h"):
            self.cursor = code.endswith("h")
        elif code.endswith("A"):
            self.row = max(top, self.row - int(code[:-1] or 1))
        elif code == "2K":
            self.rows[self.row] = []
        elif code == "2J":
            self.rows[top:] = [[] for _ in self.rows[top:]]
        elif code == "H":
            self.row, self.column = top, 0
        else:
            assert code.endswith("m"), f"the terminal was steered by {code!r}"

    def _move(self, character: str) -> None:
        self.column = 0 if character == "\r" else self.column
        if character == "\n":
            self._down()

    def _down(self) -> None:
        self.row += 1
        if self.row == len(self.rows):
            self.rows.append([])

    def _write(self, character: str) -> None:
        width = cell_len(character)
        if self.column + width > self.columns:  # it wraps
            self._down()
            self.column = 0
        line = self.rows[self.row]
        line += [" "] * (self.column + width - len(line))
        if width:  # of a wide one the second cell is empty
            line[self.column : self.column + width] = [character, *[""] * (width - 1)]
            self.column += width
        elif self.column:  # a mark stands on what is before it
            line[self.column - 1] += character

    def resize(self, columns: int, lines: int) -> None:
        """As most terminals do it: lines that are too long now are broken, and the cursor stays on its character."""
        broken: list[list[str]] = []
        for at, row in enumerate(self.rows):
            if at == self.row:
                self.row, self.column = len(broken) + self.column // columns, self.column % columns
            broken += [row[i : i + columns] for i in range(0, max(1, len(row)), columns)]
        self.rows = broken
        self.rows += [[] for _ in range(self.row + 1 - len(broken))]
        self.columns, self.lines = columns, lines

    @property
    def text(self) -> str:
        return "\n".join("".join(row).rstrip() for row in self.rows).rstrip()


class Terminal:
    def __init__(self, process: subprocess.Popen[bytes], master: int, screen: Screen) -> None:
        self.process, self.screen = process, screen
        self._master = master

    def read(self) -> bool:
        """Takes what has been written; whether the process may write more."""
        while select.select([self._master], [], [], 0.02)[0]:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # EIO: nobody has the terminal open any more
                return False
            self.screen.feed(data.decode())
        return True

    def shows(self, *texts: str, within: float = 30.0) -> str:
        """Until all of these stand on the screen: what stands there."""

        def there() -> bool:
            more = self.read()
            assert more or all(text in self.screen.text for text in texts), f"it ended without {texts}:\n{self.screen.text}"
            return all(text in self.screen.text for text in texts)

        wait_until(there, f"{texts} never stood on the screen:\n{self.screen.text}", within)
        return self.screen.text

    def resize(self, columns: int, lines: int) -> None:
        self.read()
        self.screen.resize(columns, lines)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def end(self, within: float = 30.0) -> int:
        """Waits for its end: the exit code."""
        wait_until(lambda: not self.read(), f"it did not end:\n{self.screen.text}", within)
        return self.process.wait(10)


@contextlib.contextmanager
def terminal(command: Sequence[str], env: Mapping[str, str], columns: int = 100, lines: int = 30) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    kept = {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}

    def own_it() -> None:  # so that Ctrl-C reaches it
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    process = subprocess.Popen(
        command, env=kept | {"TERM": "xterm-256color"}, stdin=slave, stdout=slave, stderr=slave, preexec_fn=own_it, close_fds=True
    )
    os.close(slave)
    try:
        yield Terminal(process, master, Screen(columns, lines))
    finally:
        process.kill()
        process.wait(10)
        os.close(master)
