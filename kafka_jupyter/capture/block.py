"""`train()`: a `with` block whose `fit`s are captured, in scripts, helper modules and cells."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterable, Iterator

from kafka_jupyter.capture import host, patch
from kafka_jupyter.capture.options import Options
from kafka_jupyter.capture.session import Session, no_fit
from kafka_jupyter.errors import SettingsError
from kafka_jupyter.settings import Settings


@contextlib.contextmanager
def train(
    name: str = "",
    *,
    background: bool = False,
    attach: bool = False,
    on_interrupt: str | None = None,
    queue_timeout: float | None = None,
    profile: str | None = None,
    trust: str | None = None,
    include: Iterable[str] = (),
    check: bool = True,
    dry_run: bool = False,
    settings: Settings | None = None,
) -> Iterator[Session]:
    """Every Keras `fit` in the block is trained on a worker; the options are those of `%%kafka_train`.

        with kafka_jupyter.train("digits"):
            model.fit(x, y, epochs=20)

    `.runs` of what it gives are the runs of the block. Raises what submit and the runs raise, and CaptureError if there was no `fit`.
    """
    options = Options(name, background, attach, on_interrupt, queue_timeout, profile, trust, tuple(include), check, dry_run)
    found = options.settings()
    if settings is not None:
        found = settings if on_interrupt is None else settings.replace(on_interrupt=on_interrupt)
    if found.on_interrupt not in ("detach", "stop", "cancel"):
        raise SettingsError(name=f"on_interrupt={on_interrupt!r}", why="must be detach, stop or cancel", source="an argument")
    patch.install()
    caller = sys._getframe(2)  # of the `with` statement: the frames of this generator and of contextlib lie in between
    here = host.current()
    place = here.place()
    place = dataclasses.replace(place, key=f"{place.key or caller.f_code.co_filename}:{caller.f_lineno}:{name}")
    session = Session(options, found, here.view(place, not background), place)
    outer = patch.current.get()
    if isinstance(outer, Session):
        outer.used = True
    token = patch.current.set(session)
    try:
        yield session
    finally:
        patch.current.reset(token)
        session.close()
    if not session.used:
        raise no_fit()
