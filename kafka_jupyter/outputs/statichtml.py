"""The card without a program: HTML for GitHub, nbconvert and untrusted notebooks, and text for terminals.

No scripts, no style sheet, everything escaped. Hosts that strip `style` and `svg` (GitHub does) leave plain tables that read
well; for that reason nothing is said in the picture alone, and the picture holds no text.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from kafka_jupyter.runs.figures import (
    CardState,
    MetricLine,
    Row,
    epochs_of,
    fraction,
    headline,
    how_far,
    metric,
    metric_lines,
    short_id,
    since,
    steer,
    thinned,
)

CURVE_POINTS = 200
TRACEBACK_LIMIT = 20_000  # characters; the whole one is in the log of the run

_COLOURS = {"SUCCEEDED": "#2e7d32", "FAILED": "#c62828", "DEAD": "#c62828", "RUNNING": "#1976d2", "CLAIMED": "#1976d2"}
_FAINT = "color:var(--jp-ui-font-color2,#5f6368)"
_LINE = "var(--jp-border-color2,#d0d7de)"


def page(states: Sequence[CardState], rows: Mapping[str, Sequence[Row]]) -> str:
    """`text/html` of a card: one block a run."""
    return "\n".join(_run(state, epochs_of(rows.get(state["run_id"], ()))) for state in states)


def plain(states: Sequence[CardState], rows: Mapping[str, Sequence[Row]]) -> str:
    """`text/plain`: one line a run, and under it what went wrong."""
    return "\n".join(_plain(state, epochs_of(rows.get(state["run_id"], ()))) for state in states)


def _plain(state: CardState, epochs: Sequence[Row]) -> str:
    values = [f"{line.name} {metric(line.best)} @{line.best_epoch}" for line in headline(metric_lines(epochs))]
    line = "  ".join([f"{state['name']} {state['short']}", str(state["state"]), how_far(state, epochs), *values])
    error = state.get("error")
    if error and state.get("terminal"):
        line += f"\n  {_cause(error)}: {error.get('message', '')}".rstrip(": ")
    return "\n  ".join([line, *_notes(state)])


def _notes(state: CardState) -> list[str]:
    """How it was paused or cancelled; what a run that has not ended waits for, and what it should be warned of."""
    names = () if state.get("terminal") else ("waiting", "warning")
    return [note for note in (steer(state), *(str(state.get(name) or "") for name in names)) if note]


def _cause(error: Mapping[str, object]) -> str:
    place = f" on worker {error['worker']}" if error.get("worker") else ""
    return f"{error.get('error') or error.get('reason') or 'error'}{place}"


def _run(state: CardState, epochs: Sequence[Row]) -> str:
    colour = _COLOURS.get(str(state["state"]), "#6b7280")
    lines = metric_lines(epochs)
    parts = [
        "<p style='margin:6px 12px'>"
        f"<strong style='color:{colour}'>{_text(state['state'])}</strong> &nbsp;<strong>{_text(state['name'])}</strong> "
        f"<code>{_text(state['short'])}</code> &nbsp;<span style='{_FAINT}'>{_text(how_far(state, epochs))}</span></p>",
        f"<div style='height:4px;background:{_LINE}'>"
        f"<div style='height:4px;width:{100 * fraction(state, epochs):.1f}%;background:{colour}'></div></div>",
    ]
    parts += [f"<p style='margin:6px 12px;{_FAINT}'>{_text(note)}</p>" for note in _notes(state)]
    if state.get("error") and state.get("terminal"):
        parts.append(_error(state["error"]))
    if lines:
        parts.append(f"<div style='display:flex;flex-wrap:wrap;gap:16px;padding:6px 12px'>{_table(lines, epochs)}{_curve(epochs)}</div>")
    parts.append(_foot(state))
    style = f"border:1px solid {_LINE};border-radius:6px;margin:4px 0;max-width:860px;overflow:hidden;font-size:13px"
    return f"<div style='{style}'>{''.join(parts)}</div>"


def _error(error: Mapping[str, object]) -> str:
    attempt = f", attempt {_text(error['attempt'])}" if error.get("attempt") else ""
    trace = str(error.get("traceback") or "")[-TRACEBACK_LIMIT:]
    whole = f"<details><summary>The whole traceback</summary><pre>{_text(trace)}</pre></details>" if trace else ""
    return (
        "<div style='margin:8px 12px;padding:2px 10px;border-left:3px solid #c62828'>"
        f"<p><strong>{_text(_cause(error))}</strong>{attempt}</p><pre>{_text(error.get('message', ''))}</pre>{whole}</div>"
    )


def _table(lines: Sequence[MetricLine], epochs: Sequence[Row]) -> str:
    cell = "style='text-align:right'"
    head = (
        f"<tr><th style='text-align:left'>metric</th><th {cell}>epoch {int(epochs[-1].get('epoch', 0)) + 1}</th><th {cell}>best</th></tr>"
    )
    body = []
    for line in lines:
        best = "" if line.best is None else f"{metric(line.best)}{' ★' if line.star else ''} @{line.best_epoch}"
        best = f"<strong>{best}</strong>" if line.star and best else best
        last = metric(line.last) if line.has_last else "–"
        body.append(f"<tr><td style='text-align:left'>{_text(line.name)}</td><td {cell}>{last}</td><td {cell}>{best}</td></tr>")
    return f"<table style='margin:0'><thead>{head}</thead><tbody>{''.join(body)}</tbody></table>"


def _curve(epochs: Sequence[Row]) -> str:
    """The loss and its validation twin. A picture, not the only place of any figure."""
    rows = thinned(epochs, CURVE_POINTS)
    paths = {name: _points(name, rows) for name in ("loss", "val_loss")}
    shown = {name: points for name, points in paths.items() if len(points) > 1}
    if not shown:
        return ""
    xs = [x for points in shown.values() for x, _ in points]
    ys = [y for points in shown.values() for _, y in points]
    left, width = min(xs), (max(xs) - min(xs)) or 1
    low, height = min(ys), (max(ys) - min(ys)) or 1

    def path(name: str) -> str:
        steps = " ".join(f"{8 + 354 * (x - left) / width:.1f},{88 - 80 * (y - low) / height:.1f}" for x, y in shown[name])
        dash = " stroke-dasharray='4 3'" if name == "val_loss" else ""
        return f"<polyline points='{steps}' fill='none' stroke='{'#b26a00' if dash else '#1976d2'}' stroke-width='1.6'{dash} />"

    label = " and ".join(shown)
    return (
        f"<svg width='370' height='96' viewBox='0 0 370 96' role='img' aria-label='{label} by epoch'>"
        f"<path d='M8 88H362' stroke='#9e9e9e' stroke-width='0.5' />{''.join(path(name) for name in shown)}</svg>"
    )


def _points(name: str, rows: Sequence[Row]) -> list[tuple[int, float]]:
    values = ((int(row.get("epoch", 0)), (row.get("metrics") or {}).get(name)) for row in rows)
    return [(epoch, value) for epoch, value in values if value is not None and value == value]


def _foot(state: CardState) -> str:
    notes = []
    if state.get("worker"):
        notes.append(f"worker {_text(state['worker'])}" + (f" · {_text(state['device'])}" if state.get("device") else ""))
    if int(state.get("attempt") or 0) > 1:
        notes.append(f"{int(state['attempt'])} attempts")
    files = state.get("files") or []
    if files:
        notes.append(", ".join(_text(name) for name in files[:5]) + (f" and {len(files) - 5} more" if len(files) > 5 else ""))
    if state.get("code"):
        notes.append("runs your code")
    if state.get("retry_of"):
        notes.append(f"retry of {_text(short_id(state['retry_of']))}")
    if state.get("terminal") and state["state"] != "SUCCEEDED":
        notes.append("your weights are as before")
    elif not state.get("terminal") and (changed := since(state.get("applied"))):
        notes.append(_text(changed))
    if state["state"] in ("FAILED", "CANCELLED", "DEAD"):
        notes.append(f"<code>%kafka_retry {_text(state['run_id'])}</code>")
    notes.append(f"<code>%kafka_attach {_text(state['run_id'])}</code>")
    return f"<p style='margin:4px 12px 8px;font-size:11.5px;{_FAINT}'>{' &nbsp; '.join(notes)}</p>"


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)
