"""ASGI middleware in front of every route: which hosts, origins and visitors are answered.

It refuses requests for host names that are not this server's (DNS rebinding), requests that a page of another origin
sends (cross-site request forgery), everything but the login page to visitors who have not logged in, and logins after
too many wrong passwords.
"""

from __future__ import annotations

import ipaddress
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))
ALL_INTERFACES = frozenset(("0.0.0.0", "::", ""))
"""Values of `--host` that listen on every address."""
SHARE_SUFFIX = ".gradio.live"
"""Host names of gradio's tunnel."""
MAX_FAILURES = 5
"""Wrong passwords of one client before its logins are refused."""
LOCKOUT_S = 30.0
"""Seconds that logins are refused for; twice as long after each further wrong password, up to an hour."""
MAX_LOCKOUT_S = 3600.0
MAX_CLIENTS = 10_000
"""Clients whose failed logins are remembered."""
_PUBLIC_PATHS = ("/", "/login", "/login/", "/favicon.ico", "/robots.txt", "/manifest.json", "/theme.css", "/logout")
_PUBLIC_PREFIXES = ("/assets/", "/static/", "/svelte/", "/pwa_icon", "/gradio_api/theme.css", "/gradio_api/login_check")
_ENDPOINT = re.compile(r"/gradio_api/(?:run|api|call(?:/v2)?)/([^/]+)/?")
_STARTUP = "/gradio_api/startup-events"


@dataclass
class Lockout:
    """Counts wrong passwords by client and tells for how long a client has to wait."""

    clock: Callable[[], float] = time.monotonic
    _failures: dict[str, int] = field(default_factory=dict)
    _until: dict[str, float] = field(default_factory=dict)

    def wait_s(self, client: str) -> float:
        """Seconds until `client` may try again; 0 if it may."""
        return max(0.0, self._until.get(client, 0.0) - self.clock())

    def record(self, client: str, success: bool) -> None:
        """Notes the outcome of a login."""
        if success:
            self._failures.pop(client, None)
            self._until.pop(client, None)
            return
        if client not in self._failures and len(self._failures) >= MAX_CLIENTS:
            oldest = next(iter(self._failures))
            self._failures.pop(oldest)
            self._until.pop(oldest, None)
        count = self._failures.get(client, 0) + 1
        self._failures[client] = count
        if count >= MAX_FAILURES:
            self._until[client] = self.clock() + min(MAX_LOCKOUT_S, LOCKOUT_S * 2 ** (count - MAX_FAILURES))


class Guard:
    """The middleware around `app`."""

    def __init__(
        self,
        app: App,
        hosts: Iterable[str] = (),
        any_address: bool = False,
        share: bool = False,
        needs_login: bool = False,
        lockout: Lockout | None = None,
    ) -> None:
        """
        Args:
            hosts: host names that are answered besides those of the loopback interface.
            any_address: whether IP addresses are answered too, for a server that listens on all of them.
            share: whether gradio's tunnel is.
            needs_login: whether visitors have to log in.
        """
        self._app = app
        self._hosts = LOOPBACK | {name.lower().strip("[]") for name in hosts}
        self._any_address, self._share, self._needs_login = any_address, share, needs_login
        self._lockout = lockout or Lockout()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers it with a refusal."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin1").lower(): value.decode("latin1") for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is None and _is_login(scope):
            await self._login(scope, receive, send)
        elif refusal is None:
            await self._app(scope, receive, send)
        else:
            await _send_status(scope, send, *refusal)

    def _refusal(self, scope: Scope, headers: Mapping[str, str]) -> tuple[int, str] | None:
        """Status and one line for a request that is refused, None for one that is not."""
        host = headers.get("host", "")
        if not self._allowed(_hostname(host)):
            return 421, f"this server does not answer for the host {host[:100]!r}; start it with --allow-host NAME"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return 403, f"requests from pages of {origin[:100]!r} are refused"
        writes = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD", "OPTIONS")
        if writes and headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return 403, "requests from pages of other sites are refused"
        is_open = _is_public(scope["path"], _from_loopback(scope))
        if self._needs_login and not is_open and not _has_session(scope, headers):
            return 401, "not logged in; open the page and log in first"
        if (call := _ENDPOINT.fullmatch(scope["path"])) and call[1] not in _endpoints(scope):
            return 404, f"there is no endpoint {call[1][:80]!r}; see docs/page.md"
        return None

    def _allowed(self, name: str) -> bool:
        if name in self._hosts or (self._share and name.endswith(SHARE_SUFFIX)):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return bool(self._any_address)

    async def _login(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a login on, unless its client has to wait."""
        client = (scope.get("client") or ("unknown", 0))[0]
        wait = self._lockout.wait_s(client)
        if wait > 0:
            await _send_status(scope, send, 429, f"too many wrong passwords; try again in {wait:.0f} seconds")
            return

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._lockout.record(client, message["status"] < 400)
            await send(message)

        await self._app(scope, receive, watched)


def _endpoints(scope: Scope) -> set[str]:
    """Names of the endpoints that gradio serves."""
    return {str(fn.api_name) for fn in scope["app"].get_blocks().fns.values()}


def _hostname(host: str) -> str:
    """The name in a Host header, without port and brackets; empty for one that is malformed."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _is_login(scope: Scope) -> bool:
    return bool(scope["type"] == "http" and scope["method"] == "POST" and scope["path"].rstrip("/") == "/login")


def _is_public(path: str, local: bool) -> bool:
    """Whether a path is served to visitors who have not logged in: the login page and its files."""
    return path in _PUBLIC_PATHS or path.startswith(_PUBLIC_PREFIXES) or (local and path == _STARTUP)


def _from_loopback(scope: Scope) -> bool:
    return (scope.get("client") or ("",))[0] in LOOPBACK


def _has_session(scope: Scope, headers: Mapping[str, str]) -> bool:
    """Whether a request has the cookie of a login that gradio remembers."""
    tokens = getattr(scope["app"], "tokens", {})
    cookies = (pair.strip().partition("=") for pair in headers.get("cookie", "").split(";"))
    return any(name.startswith("access-token-") and value in tokens for name, _, value in cookies)


async def _send_status(scope: Scope, send: Send, status: int, line: str) -> None:
    """Answers with a status and one line, as JSON in the form of FastAPI's errors."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": line[:120]})
        return
    body = json.dumps({"detail": line}).encode()
    sent = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": body})
