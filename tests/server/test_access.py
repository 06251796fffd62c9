"""Who may ask: every verb of every route, looked up in the running web application."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from jupyter_server.auth import Authorizer
from jupyter_server.base.handlers import APIHandler
from traitlets.config import Config

from kafka_jupyter.brokers.log import Log
from tests.server.raw import Answer, Server

VERBS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def our_rules(web_app: Any) -> Iterator[tuple[str, type[APIHandler]]]:
    """(path with a run id in it, handler) of each of our routes in this web application."""
    for outer in web_app.default_router.rules:
        for rule in getattr(outer.target, "rules", []):
            pattern = getattr(rule.matcher, "regex", None)
            if pattern is not None and "kafka-jupyter" in pattern.pattern:
                path = pattern.pattern.split("kafka-jupyter/", 1)[1].rstrip("$")
                yield path.replace("([^/]+)", "digits-3f2a9c01b7d4").replace("(stop|cancel|pause|resume)", "stop"), rule.target


def own_verbs(handler: type[APIHandler]) -> list[str]:
    return [verb for verb in VERBS if getattr(handler, verb.lower()) is not getattr(APIHandler, verb.lower())]


@pytest.fixture
def rules(jp_web_app: Any) -> list[tuple[str, str]]:
    """(verb, path) of all that the extension answers."""
    found = [(verb, path) for path, handler in our_rules(jp_web_app) for verb in own_verbs(handler)]
    assert len(found) == 10, found
    return found


async def expect(server: Server, rules: list[tuple[str, str]], status: int, query: str = "", **request: Any) -> None:
    for verb, path in rules:
        answer: Answer = await server.request(verb, path + query, **request)
        assert answer.status == status, (verb, path, answer.body)
        assert "message" in answer.json


async def test_nobody_gets_in_without_credentials(server: Server, rules: list[tuple[str, str]]) -> None:
    await expect(server, rules, 403, auth=False)
    await expect(server, rules, 403, auth=False, headers={"Authorization": "token wrong"})


async def test_a_token_in_a_url_is_refused_even_if_it_is_right(server: Server, rules: list[tuple[str, str]]) -> None:
    token = server.auth["Authorization"].split()[1]
    await expect(server, rules, 403, f"?token={token}", auth=False)
    await expect(server, rules, 403, f"?token={token}")


async def test_verbs_that_a_route_does_not_have_are_not_there(server: Server, jp_web_app: Any) -> None:
    for path, handler in our_rules(jp_web_app):
        for verb in set(VERBS) - set(own_verbs(handler)) - {"HEAD"}:
            assert (await server.request(verb, path)).status == 405


class Nobody(Authorizer):
    """Denies everything, and remembers what it was asked."""

    asked: list[tuple[str, str]] = []

    def is_authorized(self, handler: Any, user: Any, action: str, resource: str) -> bool:
        if resource == "kafka_jupyter":
            self.asked.append((action, resource))
        return False


class TestWithAnAuthorizerThatDenies:
    @pytest.fixture
    def jp_server_config(self, traits: dict[str, Any]) -> Config:
        server = {"jpserver_extensions": {"kafka_jupyter": True}, "authorizer_class": Nobody}
        return Config({"ServerApp": server, "KafkaJupyterApp": traits})

    async def test_every_verb_asks_the_authorizer_by_its_own_action(self, server: Server, rules: list[tuple[str, str]]) -> None:
        Nobody.asked.clear()
        await expect(server, rules, 403)
        assert Nobody.asked == [("write" if verb == "POST" else "read", "kafka_jupyter") for verb, _ in rules]


class TestWithACookie:
    """As a page that has logged in: no token in the header, so the XSRF check counts."""

    @pytest.fixture
    def cookie(self, server: Server, jp_serverapp: Any, jp_asyncio_loop: Any) -> str:
        return str(jp_asyncio_loop.run_until_complete(logged_in(server)))

    async def test_a_post_without_the_xsrf_token_is_refused(self, server: Server, log: Log, cookie: str) -> None:
        answer = await server.post("runs/digits-3f2a9c01b7d4/stop", auth=False, headers={"Cookie": cookie})
        assert answer.status == 403
        assert "_xsrf" in answer.json["message"]

    async def test_a_post_with_the_xsrf_token_is_answered(self, server: Server, log: Log, cookie: str) -> None:
        headers = {"Cookie": f"{cookie}; _xsrf=abc", "X-XSRFToken": "abc"}
        assert (await server.post("runs/digits-3f2a9c01b7d4/stop", auth=False, headers=headers)).status == 404

    async def test_a_get_from_another_site_is_refused(self, server: Server, log: Log, cookie: str) -> None:
        for path in ("runs", "events", "health", "workers", "output", "runs/digits-3f2a9c01b7d4"):
            foreign = {"Cookie": cookie, "Referer": "https://evil.example/page"}
            assert (await server.get(path, auth=False, headers=foreign)).status == 403

    async def test_a_get_from_our_own_page_is_answered(self, server: Server, log: Log, cookie: str) -> None:
        own = {"Cookie": cookie, "Referer": f"http://127.0.0.1:{server.port}/a%40b/lab"}
        assert (await server.get("runs", auth=False, headers=own)).status == 200


async def logged_in(server: Server) -> str:
    """The login cookie that a page gets with the server's first answer to its token."""
    answer = await Server(server.port, server.root.removesuffix("kafka-jupyter/"), server.auth, "api/").get("status")
    assert answer.status == 200
    return answer.headers["set-cookie"].split(";")[0]


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
