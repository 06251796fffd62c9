"""Manager: what handlers ask. Opens the session with the first request, and again after Kafka has moved or the reading has ended."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import difflib
import functools
import importlib.metadata
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from kafka_jupyter.errors import BrokerUnreachable, KafkaJupyterError, NotYourRun, RunActive, RunEnded, RunNotFound
from kafka_jupyter.protocol import control
from kafka_jupyter.server.limits import Limits
from kafka_jupyter.settings import Settings

if TYPE_CHECKING:  # both load the Kafka client, which a server that is never asked does without
    from kafka_jupyter.runs.state import RunState
    from kafka_jupyter.server.session import Session

NEAREST = 3  # ids that a 404 names
CHECK_PERIOD_S = 2.0  # between two looks at whether the local Kafka has moved
VERSIONS = ("kafka_jupyter", "confluent-kafka", "jupyter_server")  # distributions that `health` names
REQUESTS: dict[str, type[control.Request]] = {
    "stop": control.StopRequested,
    "cancel": control.CancelRequested,
    "pause": control.PauseRequested,
    "resume": control.ResumeRequested,
}


@dataclasses.dataclass(frozen=True)
class RunFilter:
    """Which runs `GET runs` answers; empty means any."""

    states: frozenset[str] = frozenset()
    name: str = ""
    owner: str = ""
    text: str = ""  # in id, name, owner or a label, whatever the case

    def takes(self, state: RunState) -> bool:
        name, owner, labels = "", "", {}
        if state.submitted is not None:
            name, owner, labels = state.submitted.name, state.submitted.owner, state.submitted.labels
        if (self.name and name != self.name) or (self.owner and owner != self.owner) or (self.states and state.state not in self.states):
            return False
        if not self.text:
            return True
        words = (state.run_id, name, owner, *labels, *labels.values(), *(f"{key}={value}" for key, value in labels.items()))
        return any(self.text.casefold() in word.casefold() for word in words)


class Manager:
    """One per server process. `settings` is asked anew whenever a session is opened."""

    def __init__(self, settings: Callable[[], Settings], limits: Limits) -> None:
        self.limits = limits
        self._settings = settings
        self._session: Session | None = None
        self._opening: asyncio.Task[Session] | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._checked_s = 0.0
        self._closed = False

    # --- what is asked

    async def runs(self, wanted: RunFilter, limit: int, offset: int) -> dict[str, Any]:
        """Newest first."""
        session = await self.session()
        if wanted == RunFilter():
            with session.follower.still():
                page, total = session.follower.newest(offset, limit), len(session.follower.states())
        else:
            found = [state for state in session.follower.newest() if wanted.takes(state)]
            page, total = found[offset : offset + limit], len(found)
        return {"runs": session.cards(page), "total": total, "me": session.settings.owner}

    async def run(self, run_id: str) -> bytes:
        """`{"run": …, "rows": […], "cursor": …}` as JSON. Raises RunNotFound."""
        session = await self.session()
        self._state(session, run_id)
        return await session.whole(run_id)

    async def details(self, run_id: str, root: str) -> dict[str, Any]:
        """What it trains, its attempts and artifacts, and where its notebook is below `root`. Raises RunNotFound."""
        session = await self.session()
        self._state(session, run_id)
        return await session.details(run_id, root)

    async def output(self, run_ids: Sequence[str]) -> bytes:
        """`{"final": true, "data": {mime: …}}` as JSON: one output that shows these runs. Raises RunNotFound, RunActive."""
        session = await self.session()
        for state in [self._state(session, run_id) for run_id in run_ids]:
            if not state.terminal:
                raise RunActive(run_id=state.run_id, state=str(state.state))
        return await session.output(run_ids)

    async def request(self, kind: str, run_id: str, request_id: str, by: str, reason: str, force: bool = False) -> dict[str, Any]:
        """Appends what a person asks for; that it is in the log says nothing yet about the run.

        Raises RunNotFound, RunEnded, RunEnding (stop and cancel may still be asked for), and NotYourRun unless `force`.
        """
        return await self._ask(REQUESTS[kind](run_id=run_id, request_id=request_id, by=by, reason=reason), force)

    async def change(
        self, run_id: str, request_id: str, by: str, reason: str, settings: dict[str, Any], force: bool = False
    ) -> dict[str, Any]:
        """As `request`, for other settings."""
        return await self._ask(
            control.SettingsRequested(run_id=run_id, request_id=request_id, by=by, reason=reason, settings=settings), force
        )

    async def retry(self, run_id: str, by: str, edits: dict[str, Any], force: bool = False) -> dict[str, Any]:
        """Submits the run that goes on from this one's last checkpoint; the same one, however often it is asked for.

        Raises RunNotFound, CannotRetry, TaskGone, RetriedAlready, BadWish, and NotYourRun unless `force`.
        """
        session = await self.session()
        state = self._state(session, run_id)
        return {"run_id": await session.retry(state, edits, by, lambda: _check_owner(session, state, force)), "retry_of": run_id}

    async def _ask(self, record: control.Request, force: bool) -> dict[str, Any]:
        session = await self.session()
        state = self._state(session, record.run_id)
        if state.terminal:
            raise RunEnded(run_id=record.run_id, state=str(state.state))
        session.check_steerable(record, state)
        _check_owner(session, state, force)
        await session.append(record)
        return {"run_id": record.run_id, "request_id": record.request_id}

    async def workers(self) -> dict[str, Any]:
        session = await self.session()
        return {"workers": session.follower.workers()}

    async def health(self) -> dict[str, Any]:
        """`status`: ok; reconnecting (we know the runs, Kafka does not answer); unavailable (there was no Kafka yet)."""
        answer: dict[str, Any] = {"status": "unavailable", "message": "", "servers": "", "lag": None, "versions": _versions()}
        try:
            session = await self.session()
        except KafkaJupyterError as error:
            return answer | {"message": str(error)}
        known = session.follower
        answer |= {"servers": session.servers, "runs": len(known.states()), "workers": len(known.workers()), "junk": dict(session.log.junk)}
        answer |= {"streams": session.hub.streams, "kept_bytes": session.hub.size}
        try:
            return answer | {"status": "ok", "lag": await session.lag()}
        except KafkaJupyterError as error:
            return answer | {"status": "reconnecting", "message": str(error)}

    # --- the session

    async def session(self) -> Session:
        """The session, opened if there is none that can be used. Raises BrokerError, SettingsError."""
        session = self._session
        if session is not None and session.usable and not await self._moved(session):
            return session
        if self._closed:
            raise BrokerUnreachable("This server is being shut down.")
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._open(), name="kafka_jupyter-open")
        return await asyncio.shield(self._opening)

    async def close(self) -> None:
        """Says `bye` to every stream and ends every thread."""
        self._closed = True
        if self._opening is not None:
            await asyncio.wait({self._opening})
        if self._session is not None:
            await self._end(self._session, over=True)
            self._session = None
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)

    async def _open(self) -> Session:
        try:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(4, thread_name_prefix="kafka_jupyter-server")
            old, self._session = self._session, None
            if old is not None:
                await self._end(old, over=False)
            loop = asyncio.get_running_loop()
            self._session = await loop.run_in_executor(self._executor, functools.partial(self._open_here, loop, self._executor))
            return self._session
        finally:
            self._opening = None

    def _open_here(self, loop: asyncio.AbstractEventLoop, executor: ThreadPoolExecutor) -> Session:
        from kafka_jupyter.server.session import Session  # loads the Kafka client, on this thread

        return Session.open(self._settings(), loop, executor, self.limits)

    async def _end(self, session: Session, over: bool) -> None:
        session.end_streams(over)
        deadline = time.monotonic() + self.limits.goodbye_s
        while session.hub.streams and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        await asyncio.get_running_loop().run_in_executor(self._executor, session.close)

    async def _moved(self, session: Session) -> bool:
        if time.monotonic() - self._checked_s < CHECK_PERIOD_S:
            return False
        self._checked_s = time.monotonic()
        return await asyncio.get_running_loop().run_in_executor(self._executor, session.moved)

    def _state(self, session: Session, run_id: str) -> RunState:
        state = session.follower.state(run_id)
        if state is None:
            known = [each.run_id for each in session.follower.states()]
            nearest = difflib.get_close_matches(run_id, known, n=NEAREST, cutoff=0.4)
            raise RunNotFound(run_id=run_id, nearest=f"Nearest: {', '.join(nearest)}." if nearest else "")
        return state


def _check_owner(session: Session, state: RunState, force: bool) -> None:
    owner = state.submitted.owner if state.submitted is not None else ""
    if owner and owner != session.settings.owner and not force:
        raise NotYourRun("Run {run_id} belongs to {owner}. Ask with force if you mean it.", run_id=state.run_id, owner=owner)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in VERSIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # we may run from a checkout
            versions[name] = importlib.metadata.version(name)
    return versions
