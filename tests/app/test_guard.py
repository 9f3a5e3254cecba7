"""The middleware in front of the page: hosts, origins, logins."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from app.guard import LOCKOUT_S, MAX_CLIENTS, MAX_FAILURES, Guard, Lockout


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def request(guard: Guard, path: str = "/", method: str = "GET", client: str = "10.0.0.7", **headers: str) -> int:
    """Status of the answer to a request; headers by their names with underscores for dashes."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("the body is not read here")

    named = ({"host": "localhost:7860"} | headers).items()
    blocks = SimpleNamespace(fns={0: SimpleNamespace(api_name="generate")})
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "client": (client, 1),
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in named],
        "app": SimpleNamespace(tokens={"secret": "me"}, get_blocks=lambda: blocks),
    }
    asyncio.run(guard(scope, receive, send))
    status: int = sent[0]["status"]
    return status


def answering(status: int) -> Any:
    """An application that answers everything with one status."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})

    return app


@pytest.mark.parametrize(
    ("host", "options", "status"),
    [
        ("localhost:7860", {}, 200),
        ("127.0.0.1:7860", {}, 200),
        ("[::1]:7860", {}, 200),
        ("LOCALHOST", {}, 200),
        ("", {}, 421),
        ("evil.example", {}, 421),
        ("localhost.evil.example", {}, 421),
        ("localhost@evil.example", {}, 421),
        ("192.168.1.5:7860", {}, 421),
        ("[::1", {}, 421),
        ("192.168.1.5:7860", {"any_address": True}, 200),
        ("rebound.example", {"any_address": True}, 421),
        ("my.proxy", {"hosts": ["My.Proxy"]}, 200),
        ("abc.gradio.live", {"share": True}, 200),
        ("abc.gradio.live", {}, 421),
        ("evilgradio.live", {"share": True}, 421),
    ],
)
def test_rejects_foreign_hosts(host: str, options: dict[str, Any], status: int) -> None:
    assert request(Guard(answering(200), **options), host=host) == status


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("POST", {}, 200),
        ("POST", {"origin": "http://localhost:7860"}, 200),
        ("POST", {"origin": "http://localhost:7860", "sec_fetch_site": "same-origin"}, 200),
        ("POST", {"origin": "http://localhost:9999"}, 403),
        ("POST", {"origin": "http://evil.example"}, 403),
        ("POST", {"origin": "null"}, 403),
        ("POST", {"sec_fetch_site": "cross-site"}, 403),
        ("POST", {"sec_fetch_site": "same-site"}, 403),
        ("GET", {"sec_fetch_site": "cross-site"}, 200),
        ("GET", {"origin": "http://evil.example"}, 403),
        ("OPTIONS", {"origin": "http://evil.example"}, 403),
    ],
)
def test_rejects_cross_origin_writes(method: str, headers: dict[str, str], status: int) -> None:
    assert request(Guard(answering(200)), "/gradio_api/upload", method, **headers) == status


@pytest.mark.parametrize(
    "path", ["cancel", "reset", "heartbeat/x", "app_id", "token", "upload", "run/generate", "stream/x"]
)
def test_requires_login(path: str) -> None:
    guard = Guard(answering(200), needs_login=True)
    assert request(guard, f"/gradio_api/{path}", "POST") == 401
    assert request(guard, f"/gradio_api/{path}", "POST", cookie="access-token-x=wrong") == 401
    assert request(guard, f"/gradio_api/{path}", "POST", cookie="a=b; access-token-x=secret") == 200
    assert request(guard, "/") == request(guard, "/assets/index.js") == 200


def test_lockout_grows_exponentially() -> None:
    clock = Clock()
    guard = Guard(answering(400), needs_login=True, lockout=Lockout(clock))
    statuses = [request(guard, "/login", "POST") for _ in range(60)]
    assert statuses == [400] * MAX_FAILURES + [429] * (60 - MAX_FAILURES)
    assert request(guard, "/login/", "POST", client="10.0.0.8") == 400
    clock.now += LOCKOUT_S + 1
    assert [request(guard, "/login", "POST") for _ in range(2)] == [400, 429]
    clock.now += LOCKOUT_S + 1
    assert request(guard, "/login", "POST") == 429


def test_success_resets_lockout_and_memory_is_bounded() -> None:
    lockout = Lockout(Clock())
    for _ in range(MAX_FAILURES):
        lockout.record("a", success=False)
    assert lockout.wait_s("a") > 0
    lockout.record("a", success=True)
    assert lockout.wait_s("a") == 0
    for number in range(2 * MAX_CLIENTS):
        lockout.record(str(number), success=False)
    assert len(lockout._failures) <= MAX_CLIENTS
