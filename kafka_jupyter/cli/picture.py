"""What `follow` shows of a run on a terminal: a picture of at most `height` lines, each cut to `width`. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kafka_jupyter.cli import facts, say
from kafka_jupyter.protocol.rows import LogLine
from kafka_jupyter.runs import figures

LINES = 8  # of what the training printed, the last ones
NOTE_LINES = 3
BAR = 60  # columns at most
MARKS = 3  # accents and the like on one character
GAP = 3  # between the columns of the table
STYLES = {"SUCCEEDED": "green", "FAILED": "red", "DEAD": "red", "CANCELLED": "yellow", "RUNNING": "cyan", "CLAIMED": "cyan"}
OTHER = "yellow"


def picture(card: figures.CardState, rows: facts.Rows, now_ms: float, width: int, height: int) -> Group:
    """`card`: `TrainingRun.card()`, `rows`: all accepted ones. The last lines are left out where the terminal is too low."""
    epochs, batch = facts.epochs_of(rows), facts.batch_of(rows)
    parts: list[RenderableType] = [*_head(card, facts.far(card, epochs, batch, now_ms), width), _bar(card, epochs, batch, width)]
    parts += [_text(line, width) for line in _notes(card, width)]
    parts += [_text(_foot(card, now_ms), width, "dim")]
    room = max(0, height - 1 - len(parts))  # the cursor stands below
    lines = figures.metric_lines(epochs)
    if len(lines) >= room:  # the one that matters stays
        lines = sorted(lines, key=lambda line: not line.star)
    table = list(_metrics(lines, width))
    said = _said(rows, min(LINES, max(0, room - len(table))), width)
    parts += table[:room] + said
    return Group(*parts[: max(1, height - 1)])


def clip(text: object, width: int) -> str:
    """One line of what others may have written. However long it is, only what may be seen is looked at; and of the marks that take no
    room only so many are kept on a character that they stay in their line."""
    line = say.plain(str(text)[: 16 * width])
    if not line.isascii():
        kept, marks = [], 0
        for character in line:
            marks = 0 if cell_len(character) else marks + 1
            if marks <= MARKS:
                kept.append(character)
        line = "".join(kept)
    return line[: 4 * width]


def _text(line: str, width: int, style: str = "") -> Text:
    return Text(clip(line, width), style=style, no_wrap=True, overflow="ellipsis")


def _head(card: figures.CardState, far: str, width: int) -> list[RenderableType]:
    """State, run and how far it is; where that is too long for one line, in two."""
    name, run_id = clip(card["name"], width), clip(card["run_id"], width)
    head = Text(no_wrap=True, overflow="ellipsis")
    head.append(f" {card['state']} ", f"reverse {STYLES.get(card['state'], OTHER)}")
    head.append(f" {run_id}", "bold")
    if not run_id.startswith(f"{name}-"):
        head.append(f" {name}")
    if head.cell_len + cell_len(far) + 2 > width:
        return [head, *([_text(far, width)] if far else [])]
    return [head.append(f"  {far}")]


def _bar(card: figures.CardState, epochs: Sequence[figures.Row], batch: figures.Row | None, width: int) -> RenderableType:
    done = figures.fraction(card, epochs, batch)
    style = STYLES.get(card["state"], OTHER)
    bar = Table.grid(padding=(0, 1))
    shown = ProgressBar(total=1.0, completed=done, width=max(1, min(BAR, width - 5)), complete_style=style, finished_style=style)
    bar.add_row(shown, Text(f"{int(100 * done)}%", no_wrap=True))
    return bar


def _notes(card: figures.CardState, width: int) -> Iterator[str]:
    """Why it waits, how it was paused or cancelled, what a person should be warned of."""
    names = () if card["terminal"] else ("waiting", "warning")
    failure = card["error"] if card["state"] == "RETRYING" else None
    notes = [figures.steer(card, "kafka-jupyter resume"), *(str(card[name]) for name in names)]
    notes += [f"The last attempt failed: {failure['error']}: {failure['message']}"] if failure else []
    for note in filter(None, notes):
        yield from textwrap.wrap(say.plain(note[: 16 * width]), width)[:NOTE_LINES]


def _foot(card: figures.CardState, now_ms: float) -> str:
    where = " on ".join(dict.fromkeys(filter(None, (card["worker"], card["host"] if card["worker"] else ""))))
    notes = [f"worker {where}" + (f", {card['device']}" if card["device"] else "")] if where else []
    if card["state"] == "QUEUED" and card["submitted_ms"]:
        notes.append(f"submitted {say.duration((now_ms - card['submitted_ms']) / 1000)} ago")
    if card["heartbeat_ms"] and not card["terminal"]:
        notes.append(f"heartbeat {say.duration((now_ms - card['heartbeat_ms']) / 1000)} ago")
    if card["attempt"] > 1:
        notes.append(f"{card['attempt']} attempts" if card["terminal"] else f"attempt {card['attempt']}")
    if card["code"]:
        notes.append("runs your code")
    if card["retry_of"]:
        notes.append(f"retry of {card['retry_of']}")
    if not card["terminal"]:
        notes.append(figures.since(card["applied"]))
    files = card["files"]
    notes.append(", ".join(files[:3]) + (f" and {len(files) - 3} more files" if len(files) > 3 else ""))
    return " · ".join(filter(None, notes))


def _metrics(lines: Sequence[figures.MetricLine], width: int) -> Iterator[Text]:
    """A table of the last and the best value of each metric; the star marks the best that matters."""
    if not lines:
        return
    cells = [("metric", "last", "best")]
    for line in lines:
        best = "" if line.best is None else f"{figures.metric(line.best)}{' ★' if line.star else ''} @{line.best_epoch}"
        cells.append((clip(line.name, width), figures.metric(line.last) if line.has_last else "–", best))
    names, lasts, bests = (max(map(cell_len, column)) for column in zip(*cells, strict=True))
    room = max(4, min(names, width - lasts - bests - 2 * GAP))
    styles = ["dim", *("bold" if line.star else "" for line in lines)]
    for (name, last, best), style in zip(cells, styles, strict=True):
        text = set_cell_size(name, room) + last.rjust(lasts + GAP) + best.rjust(bests + GAP)
        yield Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _said(rows: facts.Rows, count: int, width: int) -> list[RenderableType]:
    """The last lines that the training printed."""
    found: list[str] = []
    for _, row in reversed(rows):
        if len(found) >= count:
            break
        if isinstance(row, LogLine):
            found.append(row.text)
    return [_text(f"│ {text[: 16 * width]}", width, "dim") for text in reversed(found)]
