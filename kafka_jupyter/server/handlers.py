"""The routes under `<base_url>/kafka-jupyter/`. A handler checks who asks and what for; the manager answers."""

from __future__ import annotations

import functools
import math
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar, cast

import msgspec
from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado import web

from kafka_jupyter.errors import (
    BadWish,
    BrokerError,
    CannotRetry,
    KafkaJupyterError,
    NotYourRun,
    RunActive,
    RunEnded,
    RunEnding,
    RunNotFound,
    SubmitUnknown,
)
from kafka_jupyter.protocol import ids
from kafka_jupyter.runs.state import State
from kafka_jupyter.server.manager import REQUESTS, Manager, RunFilter
from kafka_jupyter.server.sse import Stream

RESOURCE = "kafka_jupyter"
MANAGER = "kafka_jupyter_manager"  # in the web application's settings
PAGE, PAGE_LIMIT = 50, 500  # runs in one answer
FOLLOWED_LIMIT = 200  # runs that one stream may name
REASON_LIMIT = 500  # characters
_STATUS: dict[type[KafkaJupyterError], int] = {
    BadWish: 400,
    NotYourRun: 403,
    RunNotFound: 404,
    RunActive: 409,
    RunEnded: 409,
    RunEnding: 409,
    CannotRetry: 409,
    SubmitUnknown: 503,
    BrokerError: 503,
}


class Asked(msgspec.Struct):
    """The body of a request."""

    reason: Annotated[str, msgspec.Meta(max_length=REASON_LIMIT)] = ""
    request_id: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{0,64}\Z")] = ""
    force: bool = False  # another person's run is meant


class SettingsAsked(Asked, kw_only=True):
    learning_rate: Annotated[float, msgspec.Meta(ge=0)]


class RetryAsked(Asked):
    """What shall be different; left out: as it was. `memory` in bytes."""

    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    device: str | None = None
    memory: int | None = None
    priority: str | None = None
    labels: dict[str, str] | None = None

    def edits(self) -> dict[str, Any]:
        own = self.__struct_fields__[len(Asked.__struct_fields__) :]
        return {name: getattr(self, name) for name in own}


Body = TypeVar("Body", bound=Asked)
Verb = TypeVar("Verb", bound=Callable[..., Awaitable[None]])


def guarded(action: str) -> Callable[[Verb], Verb]:
    """For a handler's verb: who asks is known, may do this, and is no other site's page (jupyter_server itself looks at GETs only here)."""

    def guard(verb: Verb) -> Verb:
        @functools.wraps(verb)
        async def checked(self: Handler, *args: str) -> None:
            self.check_xsrf_cookie()
            await verb(self, *args)

        # Both named: left out, jupyter_server 2.21.1 remembers those of the first handler that it meets.
        allowed: Any = authorized(action=action, resource=RESOURCE)(checked)
        return cast(Verb, web.authenticated(allowed))

    return guard


class Handler(APIHandler):
    """Errors become JSON `{"message": …}`; they are never put into the HTTP reason, where a line break would split the answer."""

    _track_activity = False  # an open page asks by itself: that must not keep an idle server alive

    async def prepare(self) -> None:  # type: ignore[override]  # as APIHandler's own
        if "token" in self.request.query_arguments:
            raise web.HTTPError(403, "A token in a URL ends up in logs and histories: send it in the Authorization header.")
        await super().prepare()

    @property
    def manager(self) -> Manager:
        found: Manager = self.settings[MANAGER]
        return found

    async def answer(self, made: Awaitable[Any], status: int = 200) -> None:
        try:
            body = await made
        except KafkaJupyterError as error:
            self.refuse(error)
        else:
            self.set_status(status)
            self.finish(body if isinstance(body, bytes) else msgspec.json.encode(body))

    def refuse(self, error: KafkaJupyterError) -> None:
        self.set_status(next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500))
        self.finish(msgspec.json.encode({"message": str(error), "error": type(error).__name__}))

    def number(self, name: str, default: int, low: int, high: int) -> int:
        text = self.get_query_argument(name, str(default))
        if not (text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high):
            raise web.HTTPError(400, f"{name} must be a number from {low} to {high}")
        return int(text)

    def asked(self, kind: type[Body]) -> Body:
        """The body of the request, which may be empty where nothing is needed. Raises 400."""
        try:
            return msgspec.json.decode(self.request.body.strip() or b"{}", type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            wanted = ", ".join(kind.__struct_fields__)
            raise web.HTTPError(400, f"The body must be a JSON object of {wanted} ({REASON_LIMIT} characters of reason at most)") from error

    @property
    def person(self) -> str:
        return str(self.current_user.name or self.current_user.username)

    def run_ids(self, text: str, least: int = 1) -> tuple[str, ...]:
        """In the order given, each once. Raises 400."""
        named = tuple(dict.fromkeys(filter(None, text.split(","))))
        if not least <= len(named) <= FOLLOWED_LIMIT or not all(map(ids.RUN_ID.match, named)):
            raise web.HTTPError(400, f"What was sent must name {least} to {FOLLOWED_LIMIT} run ids, with commas between them")
        return named

    def some_ids(self, name: str, least: int = 1) -> tuple[str, ...] | None:
        """`run_ids` of an argument that may be left out: None then, which means all runs."""
        return self.run_ids(self.get_query_argument(name), least) if name in self.request.query_arguments else None


class RunsHandler(Handler):
    @guarded("read")
    async def get(self) -> None:
        states = frozenset(filter(None, self.get_query_argument("state", "").upper().split(",")))
        if not states <= set(State):
            raise web.HTTPError(400, f"state must be of {', '.join(State)}")
        name, owner, text = (self.get_query_argument(key, "") for key in ("name", "owner", "q"))
        limit, offset = self.number("limit", PAGE, 1, PAGE_LIMIT), self.number("offset", 0, 0, 10**8)
        await self.answer(self.manager.runs(RunFilter(states, name, owner, text), limit, offset))


class RunHandler(Handler):
    @guarded("read")
    async def get(self, run_id: str) -> None:
        await self.answer(self.manager.run(_checked(run_id)))


class DetailsHandler(Handler):
    @guarded("read")
    async def get(self, run_id: str) -> None:
        await self.answer(self.manager.details(_checked(run_id), str(self.settings.get("server_root_dir", ""))))


class OutputHandler(Handler):
    """`runs=a,b`: what the output of a cell holds once these runs have ended. The page writes it into the notebook when somebody asks."""

    @guarded("read")
    async def get(self) -> None:
        await self.answer(self.manager.output(self.run_ids(self.get_query_argument("runs", ""))))


class RequestHandler(Handler):
    """The body may be empty, or `{"reason": "…", "request_id": "…", "force": true}`; the same id asked twice is one request."""

    _track_activity = True

    @guarded("write")
    async def post(self, run_id: str, kind: str) -> None:
        asked = self.asked(Asked)
        request_id = asked.request_id or ids.new_request_id()
        await self.answer(self.manager.request(kind, _checked(run_id), request_id, self.person, asked.reason, asked.force), 202)


class SettingsHandler(Handler):
    """The body is that of a request with `"learning_rate": 1e-4` in it."""

    _track_activity = True

    @guarded("write")
    async def post(self, run_id: str) -> None:
        asked = self.asked(SettingsAsked)
        if not math.isfinite(asked.learning_rate):
            raise web.HTTPError(400, "learning_rate must be a number, at least 0")
        request_id, wanted = asked.request_id or ids.new_request_id(), {"learning_rate": asked.learning_rate}
        await self.answer(self.manager.change(_checked(run_id), request_id, self.person, asked.reason, wanted, asked.force), 202)


class RetryHandler(Handler):
    """The body may be empty, or say what the new run shall have otherwise (`RetryAsked`). Answers with its id."""

    _track_activity = True

    @guarded("write")
    async def post(self, run_id: str) -> None:
        asked = self.asked(RetryAsked)
        await self.answer(self.manager.retry(_checked(run_id), self.person, asked.edits(), asked.force), 202)


class WorkersHandler(Handler):
    @guarded("read")
    async def get(self) -> None:
        await self.answer(self.manager.workers())


class HealthHandler(Handler):
    @guarded("read")
    async def get(self) -> None:
        await self.answer(self.manager.health())


class EventsHandler(Handler):
    """`runs=a,b`: only those; `detail=a`: batches and log lines only of those. `Last-Event-ID`, or `cursor`, resumes."""

    _stream: Stream | None = None

    @guarded("read")
    async def get(self) -> None:
        runs, detail = self.some_ids("runs"), self.some_ids("detail", least=0)
        cursor = self.request.headers.get("Last-Event-ID") or self.get_query_argument("cursor", "")
        try:
            session = await self.manager.session()
            if session.hub.streams >= self.manager.limits.streams:
                raise BrokerError("Too many pages are open on this server.")
            joined = await session.join(runs, detail, cursor)
        except KafkaJupyterError as error:
            return self.refuse(error)
        try:
            self._stream = Stream(self, joined, self.manager.limits)
            await self._stream.run()
        finally:
            session.leave(joined)

    def on_connection_close(self) -> None:
        if self._stream is not None:
            self._stream.client_left()


def _checked(run_id: str) -> str:
    if not ids.RUN_ID.match(run_id):
        raise web.HTTPError(400, "That is not a run id: lower-case letters, digits and dashes, at most 80")
    return run_id


def routes() -> list[tuple[str, type[Handler]]]:
    root = "/kafka-jupyter"
    return [
        (rf"{root}/runs", RunsHandler),
        (rf"{root}/runs/([^/]+)", RunHandler),
        (rf"{root}/runs/([^/]+)/details", DetailsHandler),
        (rf"{root}/runs/([^/]+)/({'|'.join(REQUESTS)})", RequestHandler),
        (rf"{root}/runs/([^/]+)/settings", SettingsHandler),
        (rf"{root}/runs/([^/]+)/retry", RetryHandler),
        (rf"{root}/output", OutputHandler),
        (rf"{root}/workers", WorkersHandler),
        (rf"{root}/health", HealthHandler),
        (rf"{root}/events", EventsHandler),
    ]
