"""The handler matrix: every method of every route that the web application lists as ours, asked for by every kind of caller.

`ROUTES` says what each answers to who may ask, `tests/server/test_access.py` who may not and what those are told. A route that is in
one of the two only, table or application, is a complaint: so a new route costs one line here, or it is red.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jupyter_server.base.handlers import APIHandler
from tornado.web import RequestHandler

from kafka_jupyter.brokers.log import Log
from kafka_jupyter.brokers.reader import Reader
from kafka_jupyter.protocol import control, topics
from kafka_jupyter.server.manager import Manager
from tests.server.raw import Answer, Server, eventually
from tests.support.playing import Player

ROOT = "kafka-jupyter/"
VERBS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
Key = tuple[str, str]  # verb, path below ROOT with {} for a run id


@dataclasses.dataclass(frozen=True)
class Route:
    """`status` is for who may ask. `failed`: of a run that failed, otherwise of one that runs. `until`: an answer without an end."""

    action: str
    status: int
    body: bytes = b""
    failed: bool = False
    until: bytes = b""


def reads(until: bytes = b"") -> Route:
    return Route("read", 200, until=until)


def writes(body: bytes = b"", failed: bool = False) -> Route:
    """Who may ask makes at least one record."""
    return Route("write", 202, body, failed)


ROUTES: dict[Key, Route] = {
    ("GET", "runs"): reads(),
    ("GET", "runs/{}"): reads(),
    ("GET", "runs/{}/details"): reads(),
    ("POST", "runs/{}/stop"): writes(),
    ("POST", "runs/{}/cancel"): writes(),
    ("POST", "runs/{}/pause"): writes(),
    ("POST", "runs/{}/resume"): writes(),
    ("POST", "runs/{}/settings"): writes(b'{"learning_rate": 1e-4}'),
    ("POST", "runs/{}/retry"): writes(failed=True),
    ("GET", "output"): Route("read", 400),  # it must name runs: who may not ask is not told so
    ("GET", "workers"): reads(),
    ("GET", "health"): reads(),
    ("GET", "events"): reads(until=b"retry:"),
}


@dataclasses.dataclass(frozen=True)
class No:
    """A refusal: its status, and words of its message."""

    status: int
    words: str


@dataclasses.dataclass(frozen=True)
class Caller:
    """`headers` and `query` with the names of credentials in braces. What it is told where it reads and where it writes; None: answered."""

    name: str
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    query: str = ""
    read: No | None = None
    write: No | None = None

    def told(self, route: Route) -> No | None:
        return self.read if route.action == "read" else self.write


def own_rules(web_app: Any) -> Iterator[tuple[str, type[RequestHandler]]]:
    """(pattern below the base_url, handler) of all that is ours by its path or by its code."""
    for outer in [*web_app.default_router.rules, *web_app.wildcard_router.rules]:
        for rule in getattr(outer.target, "rules", []):
            pattern = getattr(getattr(rule.matcher, "regex", None), "pattern", "")
            if re.search("kafka.?jupyter", pattern) or str(getattr(rule.target, "__module__", "")).startswith("kafka_jupyter"):
                yield pattern, rule.target


def paths_of(pattern: str) -> list[str]:
    """`…/kafka-jupyter/runs/([^/]+)/(stop|cancel)$` → `runs/{}/stop`, `runs/{}/cancel`."""
    _, found, path = pattern.rstrip("$").partition(ROOT)
    parts = re.split(r"\((\[\^/\]\+|[a-z_|-]+)\)", path)
    written = ["".join(part) for part in itertools.product(*(["{}"] if part == "[^/]+" else part.split("|") for part in parts))]
    assert found, f"this route is ours and not below {ROOT}: {pattern}"
    assert not re.search(r"[\\()\[\]*+?.|]", "".join(written)), f"paths_of cannot read this pattern: {pattern}"
    return written


def own_verbs(handler: type[RequestHandler]) -> list[str]:
    """What it answers itself. HEAD and OPTIONS count if they are not those of Jupyter's own base class."""
    verbs = [verb for verb in (*VERBS, *handler.SUPPORTED_METHODS) if hasattr(handler, verb.lower())]
    bases = [inspect.getattr_static(RequestHandler, "get"), inspect.getattr_static(APIHandler, "options")]
    return [verb for verb in dict.fromkeys(verbs) if inspect.getattr_static(handler, verb.lower()) not in bases]


def keys_of(web_app: Any) -> set[Key]:
    return {(verb, path) for pattern, handler in own_rules(web_app) for path in paths_of(pattern) for verb in own_verbs(handler)}


def differences(web_app: Any, routes: Mapping[Key, Route] = ROUTES) -> list[str]:
    found = keys_of(web_app)
    missing = [f"{verb} {path} is not in the table" for verb, path in sorted(found - routes.keys())]
    return missing + [f"{verb} {path} is not in the application" for verb, path in sorted(routes.keys() - found)]


class Matrix:
    """Asks a running server. `credentials`: what callers send, by the name in their braces."""

    def __init__(self, server: Server, log: Log, manager: Manager, credentials: Mapping[str, str]) -> None:
        self.server, self.log, self.manager, self.credentials = server, log, manager, credentials

    async def complaints(self, callers: Iterable[Caller], routes: Mapping[Key, Route] = ROUTES) -> list[str]:
        """What is not as it should be, in words; empty if all is."""
        found: list[str] = []
        players = {failed: await self.player(failed) for failed in (False, True)}
        with contextlib.closing(Reader(self.log.cluster)) as reader:
            for caller in callers:
                before = self.ends(reader)
                for key, route in routes.items():
                    if caller.told(route) is not None or route.action == "read":
                        found += await self._complaints(caller, key, route, players[route.failed])
                if self.ends(reader) != before:
                    found.append(f"{caller.name}: what was read or refused has written")
                for key, route in routes.items():
                    if caller.told(route) is None and route.action == "write":
                        player = await self.player(route.failed)  # of each its own: who is stopped cannot be paused
                        before = self.ends(reader)
                        found += await self._complaints(caller, key, route, player)
                        if self.ends(reader) == before:
                            found.append(f"{caller.name}: {' '.join(key)} has written nothing")
        hub = (await self.manager.session()).hub
        await eventually(lambda: hub.streams == 0, "somebody who was refused, or has left, has a stream")
        return found

    async def _complaints(self, caller: Caller, key: Key, route: Route, player: Player) -> list[str]:
        answer, told = await self.ask(caller, key, route, player), caller.told(route)
        wrong = _answer(answer, route) if told is None else _refusal(answer, told)
        return [f"{caller.name}: {' '.join(key)}: {what}" for what in wrong]

    async def ask(self, caller: Caller, key: Key, route: Route, player: Player) -> Answer:
        verb, path = key
        headers = {name: value.format_map(self.credentials) for name, value in caller.headers.items()}
        where = path.format(player.run_id) + caller.query.format_map(self.credentials)
        return await self.server.request(verb, where, route.body, headers, auth=False, until=route.until)

    async def player(self, failed: bool) -> Player:
        """A run that the server has read, and of which everything may be asked."""
        player = Player.new(self.log)
        player.submit()
        player.claim()
        player.start()
        if failed:
            player.say(control.Failed(**player.own(), retryable=False, reason="exception", error="ValueError", message="bad loss"))
        follower, state = (await self.manager.session()).follower, "FAILED" if failed else "RUNNING"
        await eventually(lambda: str(getattr(follower.state(player.run_id), "state", "")) == state, f"it never became {state}")
        return player

    def ends(self, reader: Reader) -> dict[tuple[str, int], int]:
        """Where each partition of each topic ends."""
        names = [spec.name for spec in topics.table()]
        return {place: reader.bounds(place)[1] for name in names for place in self.log.topics.all_places(name)}


def _answer(answer: Answer, route: Route) -> list[str]:
    return [] if answer.status == route.status else [f"{answer.status} instead of {route.status}: {answer.body[:200]!r}"]


def _refusal(answer: Answer, expected: No) -> list[str]:
    if answer.status != expected.status:
        return [f"{answer.status} instead of {expected.status}: {answer.body[:200]!r}"]
    if not answer.headers.get("content-type", "").startswith("application/json"):
        return [f"refused as {answer.headers.get('content-type')}"]
    message = json.loads(answer.body).get("message")
    return [] if message and expected.words in message else [f"{message!r} instead of {expected.words!r}"]
