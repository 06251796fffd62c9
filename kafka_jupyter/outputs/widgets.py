"""Which widget models of a notebook's saved state were for a card that is final now. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

OURS = "kafka_jupyter.notebook.widget.RunWidget"  # what anywidget calls the card's widget in its state
_REFERENCE = "IPY_MODEL_"


def unused(models: Mapping[str, Any], closed: set[str], shown: set[str]) -> set[str]:
    """The card models in `closed` and what belongs to them (their layout), except for what an output shows or another model names."""
    names = {model_id: _named_in(value, models) for model_id, value in models.items()}
    candidates = _reached((model_id for model_id in closed if _is_ours(models.get(model_id))), names)
    return candidates - _reached({*models.keys() - candidates, *(shown & models.keys())}, names)


def _is_ours(model: Any) -> bool:
    state = model.get("state") if isinstance(model, dict) else None
    return isinstance(state, dict) and state.get("_anywidget_id") == OURS


def _named_in(value: Any, models: Mapping[str, Any]) -> set[str]:
    """The models that a value names anywhere, as a reference or by its id (the outputs in an Output widget do that)."""
    found, left = set(), [value]
    while left:
        each = left.pop()
        if isinstance(each, str):
            name = each.removeprefix(_REFERENCE)
            if name in models:
                found.add(name)
        elif isinstance(each, dict):
            left += each.values()
        elif isinstance(each, list):
            left += each
    return found


def _reached(roots: Iterable[str], names: Mapping[str, set[str]]) -> set[str]:
    reached, left = set(), list(roots)
    while left:
        model_id = left.pop()
        if model_id not in reached:
            reached.add(model_id)
            left += names[model_id]
    return reached
