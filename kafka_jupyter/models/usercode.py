"""What of a person's own code travels with a `fit`, what it needs on the worker, and what of it cannot travel, by name and place.

Code of the notebook goes by value. What it imports goes by name: from packages that are installed here, which the worker must have in the
same version, or from modules beside the notebook, which it cannot have unless their files are sent along.
"""

from __future__ import annotations

import dataclasses
import dis
import functools
import importlib.metadata
import importlib.util
import inspect
import os
import pathlib
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kafka_jupyter.errors import CannotTravel, SettingsError
from kafka_jupyter.models import byvalue
from kafka_jupyter.models.likeness import Likeness
from kafka_jupyter.protocol.task import MODULE, MODULES_LIMIT

SIZE_LIMIT = 64 << 20  # bytes of pickled code and of what hangs on it
SEARCH_DEPTH = 12
TEXT_LIMIT = 4 << 20  # characters of all modules that are sent along
# Every worker has these, in the versions that a task asks for anyway.
GIVEN = frozenset({"keras", "tensorflow", "numpy", "kafka_jupyter", "cloudpickle", "ml_dtypes"})


@dataclasses.dataclass(frozen=True)
class Included:
    """Modules beside the notebook that are sent along. `files`: path below the folder that they are imported from → text."""

    modules: frozenset[str] = frozenset()
    files: dict[str, str] = dataclasses.field(default_factory=dict)


def included(paths: Iterable[str], root: pathlib.Path) -> Included:
    """The `.py` files that are named, and those in the folders that are named; `root`: what the paths are relative to.

    Raises SettingsError for what is not there, is no module, leads out of its folder, or is too much.
    """
    files: dict[str, str] = {}
    for text in paths:
        path = root / text
        found = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        top = path.resolve()
        for file in found:
            name = file.relative_to(path.parent).as_posix()
            if not file.resolve().is_relative_to(top) or not MODULE.match(name):
                raise _not_included(text, f"{name} is no module, or a link that leads elsewhere")
            try:
                files[name] = file.read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise _not_included(text, str(error)) from error
        if not found:
            raise _not_included(text, "there is no .py file in it")
    if len(files) > MODULES_LIMIT or sum(map(len, files.values())) > TEXT_LIMIT:
        raise _not_included(f"{len(files)} files", f"at most {MODULES_LIMIT} files with {TEXT_LIMIT >> 20} MiB are sent along")
    return Included(frozenset(name.partition("/")[0].removesuffix(".py") for name in files), files)


def _not_included(what: str, why: str) -> SettingsError:
    return SettingsError(name=f"include={what!r}", why=why, source="an argument")


class Travelling:
    """Met while things are pickled. `own`: what a person has defined, as people call it, in the order in which it was met."""

    def __init__(self, included: frozenset[str] = frozenset()) -> None:
        """`included`: modules whose files are sent along."""
        self._included = included
        self.likeness = Likeness()
        self.own: dict[str, None] = {}
        self.modules: set[str] = set()  # top-level names of what is imported

    def visit(self, thing: Any) -> None:
        """Raises Untransportable for code that the worker could not import."""
        self.likeness.meet(thing)
        if isinstance(thing, types.ModuleType):
            self._needs(thing.__name__, f"the module {thing.__name__}")
        elif isinstance(thing, (type, types.FunctionType)):
            if byvalue.goes_by_name(thing):
                self._needs(thing.__module__ or "", f"{thing.__module__}.{thing.__qualname__}")
            elif not is_installed(thing):
                kind = "class" if isinstance(thing, type) else "lambda" if thing.__name__ == "<lambda>" else "function"
                if "<locals>" not in thing.__qualname__.rpartition(".")[0] and (kind == "class" or "." not in thing.__qualname__):
                    self.own[f"{kind} {thing.__name__}" if kind != "lambda" else "a lambda"] = None
                if isinstance(thing, types.FunctionType):
                    for name in imported(thing.__code__):
                        self._needs(name, f"the module {name}")

    def _needs(self, module: str, what: str) -> None:
        top = module.partition(".")[0]
        if not top or top in sys.stdlib_module_names or top in ("__main__", "builtins") or top in GIVEN:
            return
        if top in self._included:
            return
        file = file_of(top)
        if file is not None and not byvalue.is_installed(file) and not distributions(top):
            raise byvalue.Untransportable(what, f"it is defined in {os.path.relpath(file)}, which the worker does not have")
        self.modules.add(top)

    def packages(self) -> dict[str, str]:
        """Distributions that the worker must have, with their versions here."""
        found = {name: importlib.metadata.version(name) for module in sorted(self.modules) for name in distributions(module)}
        return {name: version for name, version in found.items() if version}


def pickled(things: Mapping[str, Any], beside: Iterable[Any], known: Mapping[int, Any], travelling: Travelling) -> bytes:
    """`byvalue.dump`. Raises CannotTravel naming what cannot travel and where it hangs."""
    beside = list(beside)
    try:
        data = byvalue.dump(things, beside, known, travelling.visit)
    except CannotTravel:
        raise
    except Exception as failure:  # whatever an object raises that does not want to be pickled
        raise _named(things, beside, known, failure) from failure
    if len(data) > SIZE_LIMIT:
        name, size = max(_sizes(things, beside, known), key=lambda pair: pair[1])
        why = f"with all that hangs on it it has {size >> 20} MiB, at most {SIZE_LIMIT >> 20} travel as code"
        way_out = "Pass large arrays as data of `fit`, not as attributes or globals."
        raise CannotTravel(what=name, where="the cell", why=why, way_out=way_out)
    return data


def imported(code: types.CodeType) -> Iterator[str]:
    """Top-level names of what a function imports when it is called, functions in it included."""
    for instruction in dis.get_instructions(code):
        if instruction.opname == "IMPORT_NAME" and instruction.argval:
            yield str(instruction.argval).partition(".")[0]
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from imported(constant)


def is_installed(thing: Any) -> bool:
    """Whether the code of a class or function comes with an installed package, or with Python."""
    try:
        return byvalue.is_installed(inspect.getfile(thing))
    except TypeError:  # a class that is built in
        return bool(thing.__module__ != "__main__")
    except OSError:  # one of a notebook
        return False


@functools.cache
def file_of(module: str) -> str | None:
    """Where a top-level module stands; None for what has no file."""
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return None
    if found is None:
        return None
    if found.origin is None:  # a package without __init__.py
        return next(iter(found.submodule_search_locations or ()), None)
    return None if found.origin in ("built-in", "frozen") else found.origin


@functools.cache
def _by_module() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def distributions(module: str) -> list[str]:
    return sorted(set(_by_module().get(module, ())))


# --- what went wrong, and where


def _named(things: Mapping[str, Any], beside: list[Any], known: Mapping[int, Any], failure: Exception) -> CannotTravel:
    """Looks for the innermost thing that cannot be pickled by itself."""
    where, culprit = "the cell", failure
    for name, thing in things.items():
        found = _failure(thing, beside, known)
        if found is not None:
            where, culprit = _innermost(thing, name, found, beside, known, 0, {id(thing)})
            break
    if isinstance(culprit, byvalue.Untransportable):
        what, why = culprit.what, culprit.why
    else:
        what, why = _spelled(culprit), "it belongs to this process"
    way_out = "Make it where it is used, in a callback's `on_train_begin`, say, or leave it out."
    if "which the worker does not have" in why:
        way_out = "Send the file along: --include, with the file or its folder."
    return CannotTravel(what=what, where=where, why=why, way_out=way_out)


def _spelled(failure: Exception) -> str:
    """`cannot pickle '_thread.lock' object` → a _thread.lock."""
    text = str(failure)
    if text.startswith("cannot pickle ") and text.count("'") >= 2:
        return f"a {text.split(chr(39))[1]}"
    return text[:200] or type(failure).__name__


def _failure(thing: Any, beside: list[Any], known: Mapping[int, Any]) -> Exception | None:
    try:
        byvalue.dump({"": thing}, beside, known)
    except Exception as failure:  # noqa: BLE001
        return failure
    return None


def _innermost(
    thing: Any, where: str, failure: Exception, beside: list[Any], known: Mapping[int, Any], depth: int, seen: set[int]
) -> tuple[str, Exception]:
    for name, child in _children(thing) if depth < SEARCH_DEPTH else ():
        if id(child) in seen or isinstance(child, (str, bytes, int, float, bool, type(None))):
            continue
        seen.add(id(child))
        found = _failure(child, beside, known)
        if found is not None:
            return _innermost(child, f"{where}{name}", found, beside, known, depth + 1, seen)
    return where, failure


def _children(thing: Any) -> Iterator[tuple[str, Any]]:
    """What hangs on a thing, with how a person would write it; what they named themselves first."""
    if isinstance(thing, Mapping):
        yield from ((f"[{key!r}]", value) for key, value in thing.items())
    elif isinstance(thing, (list, tuple, set, frozenset)):
        yield from ((f"[{i}]", value) for i, value in enumerate(thing))
    elif isinstance(thing, types.MethodType):
        yield ".__self__", thing.__self__
        yield ".__func__", thing.__func__
    elif isinstance(thing, functools.partial):
        yield from ((f".{name}", getattr(thing, name)) for name in ("func", "args", "keywords"))
    elif isinstance(thing, types.FunctionType):
        for name, cell in zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=False):
            try:
                yield f", its variable {name}", cell.cell_contents
            except ValueError:
                continue
        names = _global_names(thing.__code__)
        yield from ((f", the global {name}", thing.__globals__[name]) for name in sorted(names & thing.__globals__.keys()))
        yield from ((f", default {i}", value) for i, value in enumerate(thing.__defaults__ or ()))
    elif isinstance(thing, type):
        if not is_installed(thing):
            yield from ((f".{name}", value) for name, value in vars(thing).items() if not name.startswith("__") or callable(value))
    elif hasattr(thing, "__dict__"):
        named = sorted(vars(thing).items(), key=lambda pair: pair[0].startswith("_"))
        yield from ((f".{name}", value) for name, value in named)
        yield "", type(thing)


def _global_names(code: types.CodeType) -> set[str]:
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*map(_global_names, inner))


def _sizes(things: Mapping[str, Any], beside: list[Any], known: Mapping[int, Any]) -> Iterator[tuple[str, int]]:
    for name, thing in things.items():
        yield name, len(byvalue.dump({"": thing}, beside, known))
