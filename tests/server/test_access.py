"""Who may ask: every kind of caller at every verb of every route, as the running web application lists them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from jupyter_server.auth import Authorizer
from jupyter_server.auth.decorator import authorized
from tornado import web
from traitlets.config import Config

from kafka_jupyter.brokers.log import Log
from kafka_jupyter.protocol import control, ids
from kafka_jupyter.server.handlers import Handler, guarded
from kafka_jupyter.server.manager import Manager
from tests.server.matrix import ROUTES, VERBS, Caller, Matrix, No, differences, reads, writes
from tests.server.raw import Server
from tests.support import hub

TOKEN = {"Authorization": "token {token}"}
PAGE = {"Cookie": "{login}; _xsrf={xsrf}", "X-XSRFToken": "{xsrf}", "Referer": "{own}/lab", "Origin": "{own}"}
EVIL = "https://evil.example"
IN_A_URL = No(403, "A token in a URL ends up in logs")
FOREIGN, CROSS = No(404, ""), No(403, f"Blocking Cross Origin request from {EVIL}/page")
NO_XSRF, WRONG_XSRF = No(403, "'_xsrf' argument missing from POST"), No(403, "XSRF cookie does not match POST argument")
UNKNOWN, DENIED = No(403, "Blocking request from unknown origin"), No(403, "User is not authorized to")
FORBIDDEN = No(403, "Forbidden")

WITH_A_TOKEN = [
    Caller("a script with a token", TOKEN),
    Caller("a bearer of the token", {"Authorization": "Bearer {token}"}),
    Caller("another site's page that knows the token", {**TOKEN, "Origin": EVIL, "Referer": f"{EVIL}/page"}),
    Caller("a page under another name of this host", {**TOKEN, "Host": "evil.example"}, "", FORBIDDEN, FORBIDDEN),
]
NOBODY = [
    Caller("nobody", {}, "", FORBIDDEN, NO_XSRF),
    Caller("nobody with a wrong token", {"Authorization": "token wrong"}, "", FORBIDDEN, NO_XSRF),
    Caller("nobody with an empty token", {"Authorization": "token "}, "", FORBIDDEN, NO_XSRF),
    Caller("nobody with a cookie of another server", {**PAGE, "Cookie": "{forged}; _xsrf={xsrf}"}, "", FORBIDDEN, FORBIDDEN),
]
WITH_A_TOKEN_IN_THE_URL = [
    Caller("the token in the URL", {}, "?token={token}", IN_A_URL, IN_A_URL),
    Caller("the token in the URL, written otherwise", {}, "?a=b&%74oken={token}", IN_A_URL, IN_A_URL),
    Caller("the token in URL and header", TOKEN, "?token={token}", IN_A_URL, IN_A_URL),
    Caller("a page with the token in its URL", PAGE, "?token={token}", IN_A_URL, IN_A_URL),
    Caller("an empty token in the URL", TOKEN, "?token=", IN_A_URL, IN_A_URL),
]
WITH_A_COOKIE = [
    Caller("our own page", PAGE),
    Caller("our own page, whose address nobody tells", {"Cookie": PAGE["Cookie"], "X-XSRFToken": "{xsrf}"}),
    Caller("our own page without XSRF", {"Cookie": "{login}", "Referer": "{own}/lab"}, "", None, NO_XSRF),
    Caller("a cookie alone", {"Cookie": "{login}"}, "", UNKNOWN, NO_XSRF),
    Caller("a cookie with another XSRF", {"Cookie": PAGE["Cookie"], "X-XSRFToken": "{xsrf2}"}, "", UNKNOWN, WRONG_XSRF),
    Caller("another site's page", {"Cookie": PAGE["Cookie"], "Referer": f"{EVIL}/page"}, "", CROSS, NO_XSRF),
    Caller("another site's script", {**PAGE, "Origin": EVIL}, "", FOREIGN, FOREIGN),
    Caller("a script of no site", {**PAGE, "Origin": "null"}, "", FOREIGN, FOREIGN),
]

FETCH = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}
TYPED = {"Cookie": "{login}", "Sec-Fetch-Mode": "navigate"}
PICTURE = {"Cookie": "{login}", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Site": "cross-site"}
HUB_PAGE = {"Cookie": "{login}; _xsrf={xsrf}", "X-XSRFToken": "{xsrf}", "Origin": "{own}", **FETCH}
OTHER_XSRF = {"Cookie": "{login}; _xsrf={xsrf2}", "X-XSRFToken": "{xsrf2}"}
MADE_UP = {"Cookie": "{login}; _xsrf=abc", "X-XSRFToken": "abc"}
ON_A_HUB = [
    Caller("a page of the hub", HUB_PAGE),
    Caller("a page of the hub with its token", {**TOKEN, **FETCH}),
    Caller("a script with a token of the hub", TOKEN),
    Caller("a page without XSRF", {"Cookie": "{login}", **FETCH}, "", FORBIDDEN, NO_XSRF),
    Caller("XSRF in the cookie only", {"Cookie": "{login}; _xsrf={xsrf}", **FETCH}, "", FORBIDDEN, NO_XSRF),
    Caller("XSRF of another session", {**HUB_PAGE, **OTHER_XSRF}, "", FORBIDDEN, WRONG_XSRF),
    Caller("a made-up pair of XSRF", {**HUB_PAGE, **MADE_UP}, "", FORBIDDEN, WRONG_XSRF),
    Caller("a cookie of another session", {**HUB_PAGE, "Cookie": "{login2}; _xsrf={xsrf}"}, "", FORBIDDEN, WRONG_XSRF),
    Caller("a person who types the address", TYPED, "", None, NO_XSRF),
    Caller("a form on another site", {**TYPED, "Origin": EVIL}, "", FOREIGN, NO_XSRF),
    Caller("a picture on another site", PICTURE, "", FORBIDDEN, NO_XSRF),
    Caller("another site's script", {**HUB_PAGE, "Origin": EVIL, "Sec-Fetch-Site": "cross-site"}, "", FOREIGN, FOREIGN),
]


async def of_a_page(server: Server) -> dict[str, str]:
    """What a browser holds after the first answer to a token, and after the login page."""
    root = server.root.removesuffix("kafka-jupyter/")
    first = await Server(server.port, root, server.auth, "api/").get("status")
    pages = [await Server(server.port, root, {}, "").get("login") for _ in range(2)]
    login, *xsrf = (answer.headers["set-cookie"].split(";")[0] for answer in (first, *pages))
    assert login.startswith("username-")
    assert all(each.startswith("_xsrf=") for each in xsrf)
    held = {"token": server.auth["Authorization"].split()[1], "login": login, "forged": f"{login.partition('=')[0]}=abc"}
    return held | {"own": f"http://127.0.0.1:{server.port}", "xsrf": xsrf[0][6:], "xsrf2": xsrf[1][6:]}


@pytest.fixture
def matrix(server: Server, log: Log, manager: Manager, jp_asyncio_loop: Any) -> Matrix:
    return Matrix(server, log, manager, jp_asyncio_loop.run_until_complete(of_a_page(server)))


async def test_every_caller_gets_from_every_route_what_is_due(matrix: Matrix, jp_web_app: Any) -> None:
    assert differences(jp_web_app) == []
    assert await matrix.complaints([*NOBODY, *WITH_A_TOKEN, *WITH_A_TOKEN_IN_THE_URL, *WITH_A_COOKIE]) == []


async def test_verbs_that_a_route_does_not_have_are_not_there(matrix: Matrix) -> None:
    """OPTIONS is Jupyter's own, is asked for without credentials before a request of another site, and allows none."""
    for path in {path for _, path in ROUTES}:
        for verb in VERBS:
            if (verb, path) in ROUTES or verb == "OPTIONS":
                continue
            answer = await matrix.server.request(verb, path.format("digits-3f2a9c01b7d4"))
            assert answer.status == 405, (verb, path)
            assert verb == "HEAD" or "message" in answer.json
            assert (await matrix.server.request(verb, path.format("digits-3f2a9c01b7d4"), auth=False)).status in (403, 405)
        asked = {"Origin": EVIL, "Access-Control-Request-Headers": "authorization"}
        answer = await matrix.server.request("OPTIONS", path.format("digits-3f2a9c01b7d4"), headers=asked, auth=False)
        assert (answer.body, answer.headers.get("access-control-allow-origin")) == (b"", None)


class Some(Authorizer):
    """Denies what it is told to deny, and remembers what it was asked."""

    denied: frozenset[str] = frozenset()
    asked: list[tuple[str, str]] = []

    def is_authorized(self, handler: Any, user: Any, action: str, resource: str) -> bool:
        if handler.request.path.startswith("/a%40b/kafka-jupyter/"):
            self.asked.append((action, resource))
        return action not in self.denied


class TestWithAnAuthorizer:
    @pytest.fixture
    def jp_server_config(self, jp_server_config: Config, monkeypatch: pytest.MonkeyPatch) -> Config:
        monkeypatch.setattr(Some, "asked", [])
        jp_server_config.ServerApp.authorizer_class = Some
        return jp_server_config

    @pytest.mark.parametrize("denied", ["read", "write"])
    async def test_who_may_only_read_or_only_write_gets_only_that(
        self, matrix: Matrix, monkeypatch: pytest.MonkeyPatch, denied: str
    ) -> None:
        monkeypatch.setattr(Some, "denied", frozenset({denied}))
        refusal = No(403, f"User is not authorized to {denied} on resource: kafka_jupyter.")
        told = {denied: refusal}
        some = [Caller(f"who may not {denied}", headers, "", told.get("read"), told.get("write")) for headers in (TOKEN, PAGE)]
        assert await matrix.complaints(some) == []
        assert set(Some.asked) == {("read", "kafka_jupyter"), ("write", "kafka_jupyter")}

    async def test_a_handler_without_its_guard_is_found(self, matrix: Matrix, jp_web_app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """The matrix itself is tried: each of these handlers lacks something else."""
        monkeypatch.setattr(Some, "denied", frozenset({"write"}))
        lacking = {"all": Open, "a right": OnlyLoggedIn, "the action": GuardedAsRead, "xsrf": WithoutXsrf, "quiet": Hasty}
        jp_web_app.add_handlers(".*$", [(rf"/a%40b/kafka-jupyter/{name.replace(' ', '-')}", kind) for name, kind in lacking.items()])
        new = {("GET", "a-right"), ("GET", "all"), ("GET", "xsrf"), ("POST", "all"), ("POST", "quiet"), ("POST", "the-action")}
        assert differences(jp_web_app) == [f"{verb} {path} is not in the table" for verb, path in sorted(new)]
        table = {(verb, path): reads() if verb == "GET" else writes() for verb, path in new}
        assert differences(jp_web_app, ROUTES | table) == []
        writers = [Caller("who may not write", TOKEN, "", None, DENIED)]
        found = await matrix.complaints([*NOBODY, *WITH_A_COOKIE, *writers], table)
        assert "nobody: GET all: 200 instead of 403: b'{}'" in found
        assert "another site's page: GET a-right: 200 instead of 403: b'{}'" in found
        assert "another site's page: GET xsrf: 200 instead of 403: b'{}'" in found
        assert "who may not write: POST the-action: 202 instead of 403: b'{}'" in found
        assert "who may not write: what was read or refused has written" in found
        assert differences(jp_web_app, {("GET", "nowhere"): reads(), **ROUTES, **table}) == ["GET nowhere is not in the application"]


class Open(Handler):
    async def get(self) -> None:
        self.finish(b"{}")

    async def post(self) -> None:
        self.set_status(202)
        self.finish(b"{}")


class OnlyLoggedIn(Handler):
    @web.authenticated
    async def get(self) -> None:
        self.finish(b"{}")


class WithoutXsrf(Handler):
    @web.authenticated
    @authorized(action="read", resource="kafka_jupyter")
    async def get(self) -> None:
        self.finish(b"{}")


class GuardedAsRead(Handler):
    @guarded("read")
    async def post(self) -> None:
        self.set_status(202)
        self.finish(b"{}")


class Hasty(Handler):
    """Does it first and asks then."""

    async def post(self) -> None:
        session = await self.manager.session()
        await session.append(control.StopRequested(run_id="digits-3f2a9c01b7d4", request_id=ids.new_request_id(), by="ada"))
        raise web.HTTPError(403, DENIED.words)


class TestOnAHub:
    @pytest.fixture
    def jp_base_url(self) -> str:
        return "/user/ada%40b.example/lab-1/"

    @pytest.fixture
    def jp_server_config(self, jp_server_config: Config) -> Config:
        jp_server_config.ServerApp.identity_provider_class = hub.HubIdentity
        return jp_server_config

    async def test_every_caller_gets_from_every_route_what_is_due(
        self, server: Server, log: Log, manager: Manager, jp_web_app: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.patch(monkeypatch, jp_web_app)
        one, other = [await hub.logged_in(server, token, session) for token, session in hub.LOGINS]
        credentials = {"own": f"http://127.0.0.1:{server.port}", "token": hub.HubIdentity.token, **one}
        credentials |= {f"{name}2": value for name, value in other.items()}
        assert differences(jp_web_app) == []
        assert await Matrix(server, log, manager, credentials).complaints([*NOBODY[:3], *WITH_A_TOKEN_IN_THE_URL[:3], *ON_A_HUB]) == []


class TestAtTheRoot:
    @pytest.fixture
    def jp_base_url(self) -> str:
        return "/"

    async def test_routes_are_there_and_as_closed(self, matrix: Matrix, jp_web_app: Any) -> None:
        assert differences(jp_web_app) == []
        assert await matrix.complaints([*NOBODY, *WITH_A_TOKEN[:1], *WITH_A_TOKEN_IN_THE_URL[:1], *WITH_A_COOKIE[:2]]) == []


async def test_below_another_base_url_than_the_servers_own_nothing_is_answered(server: Server, log: Log) -> None:
    for root in ("/", "/a@b/b/", "/c/"):
        for path in ("runs", "health"):
            assert (await Server(server.port, root, server.auth).get(path)).status == 404


def test_loading_the_extension_loads_no_kafka_client_and_no_keras() -> None:
    code = (
        "import sys, kafka_jupyter\n"
        "(point,) = kafka_jupyter._jupyter_server_extension_points()\n"
        "app = point['app']()\n"
        "assert point['module'] == 'kafka_jupyter.server' and app.name == 'kafka_jupyter'\n"
        "print(sorted({'confluent_kafka', 'keras', 'numpy', 'ipywidgets', 'fsspec'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "[]", done.stderr
