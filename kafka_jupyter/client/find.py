"""Which run a person means: an id, a unique beginning of one, or their newest run of that name. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from kafka_jupyter.errors import RunAmbiguous, RunNotFound
from kafka_jupyter.protocol import ids
from kafka_jupyter.runs.state import RunState

NEAREST = 3  # ids that an error names
CANDIDATES = 5


def find(states: Iterable[RunState], text: str, owner: str) -> RunState:
    """The run that `text` names. Raises RunNotFound with the nearest ids, RunAmbiguous with the candidates."""
    known = {state.run_id: state for state in states}
    text = text.strip()
    if text in known:
        return known[text]
    mine = [state for state in known.values() if name_of(state) == text and owner_of(state) == owner]
    if mine:
        return max(mine, key=newness)
    found = [known[run_id] for run_id in known if text and _begins(run_id, text)]
    if len(found) == 1:
        return found[0]
    if found:
        found.sort(key=newness, reverse=True)
        named = ", ".join(state.run_id for state in found[:CANDIDATES])
        more = f" and {len(found) - CANDIDATES} more" if len(found) > CANDIDATES else ""
        raise RunAmbiguous(run_id=repr(text), candidates=named + more)
    raise RunNotFound(run_id=repr(text), nearest=_nearest(known, text))


def newness(state: RunState) -> tuple[int, str]:
    """To order runs by: when they were submitted."""
    return state.newness


def name_of(state: RunState) -> str:
    return state.submitted.name if state.submitted else state.run_id.rpartition("-")[0]


def owner_of(state: RunState) -> str:
    return state.submitted.owner if state.submitted else ""


def short_name(run_id: str) -> str:
    """`digits-3f2a` for `digits-3f2a9c01b7d4`: what people read and may type."""
    return f"{run_id.rpartition('-')[0]}-{ids.short(run_id)}"


def _begins(run_id: str, text: str) -> bool:
    return run_id.startswith(text) or run_id.rpartition("-")[2].startswith(text)


def _nearest(known: dict[str, RunState], text: str) -> str:
    if not known:
        return "No run has been submitted here yet."
    by_word: dict[str, list[str]] = {}
    for run_id, state in known.items():
        for word in {run_id, short_name(run_id), name_of(state)}:
            by_word.setdefault(word, []).append(run_id)
    words = difflib.get_close_matches(text, by_word, n=NEAREST, cutoff=0.4)
    near = list(dict.fromkeys(run_id for word in words for run_id in sorted(by_word[word], key=lambda r: newness(known[r]), reverse=True)))
    if not near:
        near = [state.run_id for state in sorted(known.values(), key=newness, reverse=True)]
        return f"The newest: {', '.join(near[:NEAREST])}."
    return f"Nearest: {', '.join(near[:NEAREST])}."
