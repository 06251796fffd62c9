"""Who asks, as JupyterHub 5 and 6 have it in a single-user server (`HubOAuth`, `JupyterHubIdentityProvider`), without a hub.

What differs from plain jupyter_server: who has logged in is known by a signed cookie with a token of the hub. `_xsrf` is no secret that is
sent twice but a signed value of session and token, so that one of another session or a made-up pair is worth nothing. GETs by script are
checked too; which requests are, `Sec-Fetch-*` says. A cookie without the right `_xsrf` is as good as none. Whose a token is the real one
asks the hub; here it stands in `TOKENS`.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from jupyter_server.auth import IdentityProvider, User
from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.handlers import JupyterHandler
from tornado import web

from tests.server.raw import Server

SERVER_TOKEN = "hub-token-of-the-server"  # what JupyterLab's page is given
TOKENS = {SERVER_TOKEN: "ada", "hub-token-of-ada": "ada", "another-token-of-ada": "ada"}
LOGINS = [("hub-token-of-ada", "session-1"), ("another-token-of-ada", "session-2")]
CLIENT = "jupyterhub-user-ada"  # the OAuth client, and the name of its cookie
SESSION = "jupyterhub-session-id"  # set by the hub itself


class Callback(JupyterHandler):
    """Where a page comes back to from the hub's login: `?access=` stands for the exchange of the code for a token."""

    @allow_unauthenticated
    def get(self) -> None:
        token, session = self.get_query_argument("access"), self.get_query_argument("session")
        self.set_cookie(SESSION, session, path="/")
        self.set_signed_cookie(CLIENT, token, path=self.base_url, httponly=True)
        self.set_cookie("_xsrf", _signed(self, _bound(session, token)).decode(), path=self.base_url)
        self.finish("{}")


class HubIdentity(IdentityProvider):
    token = SERVER_TOKEN

    def get_handlers(self) -> list[tuple[str, object]]:
        return [("/oauth_callback", Callback)]

    def validate_security(self, app: Any, ssl_options: Any = None) -> None:
        pass

    async def get_user(self, handler: web.RequestHandler) -> User | None:  # type: ignore[override]
        if hasattr(handler, "_jupyterhub_user"):
            return handler._jupyterhub_user  # type: ignore[no-any-return]
        handler._jupyterhub_user = None  # type: ignore[attr-defined]
        header = self.auth_header_pat.match(handler.request.headers.get("Authorization", ""))
        name = TOKENS.get(header[2]) if header else None
        if name is not None:
            handler._token_authenticated = True  # type: ignore[attr-defined]
        elif (cookie := _cookie(handler)) and _passes(handler):
            name = TOKENS.get(cookie)
        handler._jupyterhub_user = User(name) if name else None  # type: ignore[attr-defined]
        return handler._jupyterhub_user  # type: ignore[attr-defined, no-any-return]


async def logged_in(server: Server, token: str, session: str) -> dict[str, str]:
    """What a browser holds after the hub's login: `login`, its cookies, and `xsrf`."""
    root = server.root.removesuffix("kafka-jupyter/")
    answer = await Server(server.port, root, {}, "").get(f"oauth_callback?access={token}&session={session}")
    set_cookies = [value.split(";")[0] for value in answer.headers["set-cookie"].split("\n")]
    xsrf = next(cookie for cookie in set_cookies if cookie.startswith("_xsrf="))
    return {"login": "; ".join(cookie for cookie in set_cookies if cookie != xsrf), "xsrf": xsrf.removeprefix("_xsrf=")}


def patch(monkeypatch: pytest.MonkeyPatch, web_app: web.Application) -> None:
    """As the hub's extension does it: in Jupyter's own class, for all handlers of the server."""
    web_app.settings["xsrf_cookies"] = False  # tornado's own look comes before anybody is known
    monkeypatch.setattr(JupyterHandler, "check_xsrf_cookie", _check)
    monkeypatch.setattr(JupyterHandler, "xsrf_token", property(_token))


def _check(handler: Any) -> None:
    if getattr(handler, "_token_authenticated", False) or not _needs_check(handler):
        return
    found = handler.get_argument("_xsrf", None) or handler.request.headers.get("X-XSRFToken")
    if not found:
        raise web.HTTPError(403, f"'_xsrf' argument missing from {handler.request.method}")
    if found.encode() != handler.xsrf_token:
        raise web.HTTPError(403, f"XSRF cookie does not match {handler.request.method} argument")


def _needs_check(handler: Any) -> bool:
    mode, site = (handler.request.headers.get(f"Sec-Fetch-{name}", "unspecified") for name in ("Mode", "Site"))
    if handler.request.method not in ("GET", "HEAD", "OPTIONS"):
        return True
    return not (mode in ("navigate", "unspecified") or (mode == "no-cors" and site == "same-origin"))


def _passes(handler: Any) -> bool:
    try:
        handler.check_xsrf_cookie()
    except web.HTTPError:
        return False
    return True


def _token(handler: Any) -> bytes:
    """The one that is in the cookie if it is of this session and token, else a new one, which nobody has sent."""
    bound = _bound(handler.get_cookie(SESSION, ""), _cookie(handler) or "")
    sent = (handler.get_cookie("_xsrf") or "").encode()
    try:
        raw = base64.urlsafe_b64decode(sent + b"=" * (-len(sent) % 4))
    except ValueError:
        raw = b""
    known = web.decode_signed_value(handler.application.settings["cookie_secret"], "_xsrf", raw, max_age_days=31, min_version=2)
    return sent if known == bound else _signed(handler, bound)


def _signed(handler: Any, bound: bytes) -> bytes:
    return base64.urlsafe_b64encode(handler.create_signed_value("_xsrf", bound)).rstrip(b"=")


def _bound(session: str, token: str) -> bytes:
    return f"{session}:{hashlib.sha256(token.encode()).hexdigest()}".encode()


def _cookie(handler: Any) -> str | None:
    found = handler.get_signed_cookie(CLIENT)
    return found.decode() if found else None
