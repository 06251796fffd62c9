"""Built-in callbacks ↔ class name and JSON arguments; the files they write; the state they end in.

Keras' callbacks have no `get_config`: the arguments are read back from the attributes of the same name. Where an attribute is not
what the constructor took, `_READ` knows it.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import numbers
import os
import pathlib
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kafka_jupyter.errors import CannotTravel
from kafka_jupyter.models import remembered
from kafka_jupyter.protocol.task import CallbackSpec

CONTENT_LIMIT = 64 << 10  # characters of an existing file that an appending CSVLogger goes on with

# class → the argument that names what it writes ("" where it writes nothing)
_TRAVELS = {
    "EarlyStopping": "",
    "ReduceLROnPlateau": "",
    "TerminateOnNaN": "",
    "SwapEMAWeights": "",
    "RemoteMonitor": "",
    "History": "",
    "ProgbarLogger": "",
    "ModelCheckpoint": "filepath",
    "CSVLogger": "filename",
    "TensorBoard": "log_dir",
    "BackupAndRestore": "backup_dir",
}
_FOLDERS = ("TensorBoard", "BackupAndRestore")

# (class or "", argument) → its value on a live object
_READ: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("CSVLogger", "separator"): lambda live: live.sep,
    ("", "min_delta"): lambda live: abs(live.min_delta),  # changes its sign once used
    ("ModelCheckpoint", "initial_value_threshold"): lambda live: live.best,
    ("TensorBoard", "profile_batch"): lambda live: _profiled(live),
}
# Progress that a used object takes into its next `fit`; Keras resets the rest in on_train_begin.
_CARRIED = ("_batches_seen_since_last_saving", "_last_batch_seen", "_current_epoch", "_ema_weights_in_model", "history")
# Not part of what a person sees, or tied to the process.
_SKIPPED = frozenset({"params", "monitor_op", "min_delta", "model", "seen", "target", "epochs", "verbose"})


def capture(callbacks: Any, by_value: dict[str, Any] | None = None) -> list[CallbackSpec]:
    """What `fit(callbacks=…)` got. User code is added to `by_value`, by its place, where there is one. Raises CannotTravel for user code
    where there is none, and for what needs files that are only here."""
    specs: list[CallbackSpec] = []
    for place, live in enumerate(flat(callbacks)):
        try:
            specs.append(_capture_one(live, place))
        except CannotTravel:
            if by_value is None or (type(live).__name__ in _TRAVELS and is_keras_own(live)):
                raise
            specs.append(CallbackSpec(type(live).__name__, by_value=True))
            by_value[place_of(place)] = live
    return specs


def place_of(place: int) -> str:
    """How a person finds a callback."""
    return f"callbacks[{place}]"


def is_keras_own(live: Any) -> bool:
    """Whether a callback is of one of Keras' own classes."""
    kind = type(live)
    return kind.__module__.partition(".")[0] == "keras" and getattr(keras.callbacks, kind.__name__, None) is kind


def flat(callbacks: Any) -> list[Any]:
    """The callback objects in `fit(callbacks=…)`, in Keras' order."""
    if callbacks is None:
        return []
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return list(callbacks.callbacks)
    return [live for live in keras.tree.flatten(callbacks) if live is not None]


def _capture_one(live: Any, place: int) -> CallbackSpec:
    kind = type(live)
    where = f"callbacks[{place}]"
    name = kind.__name__
    if not is_keras_own(live):
        raise _refused(f"the callback {name}", where, f"{kind.__module__}.{name} is user code", "Use built-in callbacks")
    if name not in _TRAVELS:
        raise _refused(f"the callback {name}", where, "it calls code that runs here", "Use a built-in schedule or callback")
    for attribute, value in vars(live).items():
        if callable(value) and inspect.isfunction(inspect.getattr_static(kind, attribute, None)):
            raise _refused(f"{name}, method {attribute}", where, "it was replaced on this object", f"Use an unchanged {name}")
    path_argument = _TRAVELS[name]
    arguments = {key: _plain(_argument(live, name, key), f"{where}, {key}") for key in _parameters(kind) if key != path_argument}
    path = str(getattr(live, path_argument)) if path_argument else ""
    if path:
        _split_path(name, path, where)
    state = {key: _plain(vars(live)[key], where) for key in _CARRIED if vars(live).get(key)}
    return CallbackSpec(name, arguments, path_argument, path, state | _existing(name, live, path, where))


def _parameters(kind: type) -> list[str]:
    parameters = inspect.signature(kind).parameters.values()
    return [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]


def _argument(live: Any, name: str, key: str) -> Any:
    read = _READ.get((name, key)) or _READ.get(("", key))
    return read(live) if read else getattr(live, key)


def _profiled(live: Any) -> Any:
    start, stop = live._start_batch, live._stop_batch
    return 0 if not start else [start, stop] if start != stop else start


def _existing(name: str, live: Any, path: str, where: str) -> dict[str, Any]:
    """Files that are here already and change what the callback does."""
    if name == "CSVLogger" and live.append and os.path.exists(path):
        text = pathlib.Path(path).read_text("utf-8")
        if len(text) > CONTENT_LIMIT:
            raise _refused(f"CSVLogger(append=True) on {path}", where, f"the file has {len(text)} characters already", "Log to a new file")
        return {"content": text}
    if name == "BackupAndRestore" and os.path.isdir(path) and os.listdir(path):
        raise _refused(
            f"BackupAndRestore on {path}", where, "there is a backup to go on from", "Restore it here first, or use an empty folder"
        )
    return {}


def _plain(value: Any, where: str) -> Any:
    """`value` as JSON. Numpy and Keras give scalars of their own; what is not finite is spelled out."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist(), where)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        return number if math.isfinite(number) else {"$float": repr(number)}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, where) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, where) for item in value]
    raise _refused(f"a {type(value).__name__}", where, "it is not plain data", "Use numbers and strings")


def _live(value: Any) -> Any:
    if isinstance(value, dict):
        return float(value["$float"]) if set(value) == {"$float"} else {key: _live(item) for key, item in value.items()}
    return [_live(item) for item in value] if isinstance(value, list) else value


def _refused(what: str, where: str, why: str, way_out: str) -> CannotTravel:
    return CannotTravel(what=what, where=where, why=why, way_out=f"{way_out}, or let it travel: `--trust code`.")


# --- on the worker


def build(
    specs: Iterable[CallbackSpec], folder: str | os.PathLike[str], objects: Mapping[str, Any] | None = None
) -> list[keras.callbacks.Callback]:
    """The callbacks, in order; what they write goes below `folder`. `objects`: those that came by value.

    Raises CannotTravel for anything that `capture` would not make.
    """
    return [_build_one(spec, place, pathlib.Path(folder), objects or {}) for place, spec in enumerate(specs)]


def outputs(specs: Iterable[CallbackSpec], folder: str | os.PathLike[str]) -> dict[str, str]:
    """What the callbacks have written: path as the person would have found it → local file. With what code has written beside them."""
    beside = pathlib.Path(folder) / BESIDE
    found = {file.relative_to(beside).as_posix(): str(file) for file in _files(beside)[:BESIDE_LIMIT]}
    for place, spec in enumerate(specs):
        if spec.path_argument:
            base, _ = _split_path(spec.class_name, spec.path, f"callbacks[{place}]")
            own = _own_folder(pathlib.Path(folder), place)
            for file in _files(own):
                found[os.path.join(base, file.relative_to(own))] = str(file)
    return found


BESIDE = "beside"  # the working directory of code: what it writes under a relative name lies there
BESIDE_LIMIT = 1000  # files of code that are kept, the first by their names
_PLACE = re.compile(r"callback-(\d{1,4})/[^/].*")


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Ordered by name. No links: what they lead to is not this training's."""
    return [file for file in sorted(folder.rglob("*")) if file.is_file() and not file.is_symlink() and "__pycache__" not in file.parts]


def written(folder: pathlib.Path) -> list[str]:
    """What all callbacks and code have written, by place below the child's folder: `callback-0/best.keras`, `beside/notes.txt`."""
    files = [file for part in sorted(folder.glob("callback-*")) for file in _files(part)]
    return [file.relative_to(folder).as_posix() for file in (*files, *_files(folder / BESIDE)[:BESIDE_LIMIT])]


def flush(live_callbacks: Iterable[keras.callbacks.Callback]) -> None:
    """What TensorBoard has told its writers is in its files."""
    for live in live_callbacks:
        if isinstance(live, keras.callbacks.TensorBoard):
            for writer in live._writers.values():
                writer.flush()


def index_of(place: str) -> int | None:
    """Which callback has written the file at this place, -1 for other code; None if it cannot be a place that `written` names."""
    if ".." in place.split("/") or "\0" in place:
        return None
    found = _PLACE.fullmatch(place)
    return int(found[1]) if found else -1 if re.fullmatch(rf"{BESIDE}/[^/].*", place) else None


def _own_folder(folder: pathlib.Path, place: int) -> pathlib.Path:
    return folder / f"callback-{place}"


def _build_one(spec: CallbackSpec, place: int, folder: pathlib.Path, objects: Mapping[str, Any]) -> keras.callbacks.Callback:
    where = place_of(place)
    if spec.by_value:
        live = objects.get(where)
        if not isinstance(live, keras.callbacks.Callback):
            raise _refused(f"the callback {spec.class_name[:80]}", where, "it is not in the code of the task", "Submit it again")
        return live
    if spec.class_name not in _TRAVELS or spec.path_argument != _TRAVELS[spec.class_name]:
        raise _refused(f"the callback {spec.class_name[:80]}", where, "it is not on the list of callbacks that travel", "Use another one")
    kind = getattr(keras.callbacks, spec.class_name)
    arguments: dict[str, Any] = {}
    if spec.path_argument:
        _, rest = _split_path(spec.class_name, spec.path, where)
        own = _own_folder(folder, place)
        own.mkdir(parents=True, exist_ok=True)
        target = own / rest
        target.parent.mkdir(parents=True, exist_ok=True) if "{" not in str(target.parent) else None
        arguments[spec.path_argument] = str(target)
        if "content" in spec.state:
            target.write_text(str(spec.state["content"]), "utf-8")
    try:
        arguments |= {key: _live(value) for key, value in spec.arguments.items() if key in _parameters(kind) and key != spec.path_argument}
        made = kind(**arguments)
    except (TypeError, ValueError) as error:
        raise _refused(f"the callback {spec.class_name}", where, str(error)[:200], "Use other arguments") from error
    for key in _CARRIED:
        if key in spec.state:
            setattr(made, key, _live(spec.state[key]))
    return made


_FORMAT = re.compile(r"0?\d{0,2}(\.\d{1,2})?[deEfFgG]?")


def _split_path(name: str, path: str, where: str) -> tuple[str, str]:
    """The folder in which the person finds the files, and what the callback writes below it, which may be a template.

    A template gets numbers of the run; anything with which it could name a file elsewhere is refused.
    """
    if name in _FOLDERS:
        return path, "."
    parts = pathlib.PurePath(path).parts or ("",)
    first = next((i for i, part in enumerate(parts) if "{" in part), len(parts) - 1)
    base, rest = os.path.join(*parts[:first]) if first else "", parts[min(first, len(parts) - 1) :]
    if not rest or any(part in ("..", "/", "") for part in rest) or not all(_harmless(part) for part in rest):
        raise _refused(f"{name} on {path!r}", where, "it does not name a file", "Use a plain path such as 'best-{epoch:02d}.keras'")
    return base, os.path.join(*rest)


def _harmless(part: str) -> bool:
    try:
        fields = list(string.Formatter().parse(part))
    except ValueError:
        return False
    return ".." not in part and all(
        field is None or (re.fullmatch(r"\w+", field) and not conversion and _FORMAT.fullmatch(spec or ""))
        for _, field, spec, conversion in fields
    )


# --- how they ended


def final_state(callbacks: Iterable[keras.callbacks.Callback]) -> list[dict[str, Any]]:
    """The JSON attributes of each: `wait`, `stopped_epoch`, `best`, `best_epoch`, `history`, …"""
    return [_state_of(live) for live in callbacks]


def _state_of(live: keras.callbacks.Callback) -> dict[str, Any]:
    if not is_keras_own(live):
        return {"class": type(live).__name__, "notes": remembered.notes(live)}
    settings = set(_parameters(type(live))) - {"initial_value_threshold"}
    state: dict[str, Any] = {"class": type(live).__name__}
    for key, value in vars(live).items():
        if key in _SKIPPED or key in settings or (key.startswith("_") and key not in _CARRIED):
            continue
        if value is None or isinstance(value, (bool, str, numbers.Real, np.ndarray)) or key in ("history", "epoch"):
            state[key] = _plain(value, key)
    return state


def restore_final_state(live_callbacks: Any, states: Sequence[dict[str, Any]]) -> None:
    """Show on the kernel's objects how their twins ended. Files and settings are left alone."""
    for live, state in zip(flat(live_callbacks), states, strict=False):
        if state.get("class") != type(live).__name__:
            continue
        if not is_keras_own(live):
            with contextlib.suppress(ValueError, TypeError, AttributeError):  # the weights are what matters
                remembered.bring_back(live, state.get("notes"))
            continue
        for key, value in state.items():
            if key != "class" and key not in _SKIPPED and not hasattr(type(live), key):  # a method or property is no state
                setattr(live, key, _live(value))
