"""A server of the page in a process of its own, and a browser that looks at it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-gpu-watchdog",
)
"""3D is drawn in software, without --disable-gpu, which makes it slower; its watchdog takes a busy machine for a
hang."""
PATIENCE = 240_000
"""Milliseconds that a busy machine may take for anything."""
SHORT = {
    "scene.count": "400",
    "scene.max_count": "500",
    "scene.opacity": "0.9",
    "mesh.faces": "500",
    "mesh.texture": "64",
    "mesh.resolution": "32",
    "mesh.views": "3",
    "mesh.outline": "32",
    "mesh.pictures": "48",
}
"""Advanced fields of a run whose mesh takes a moment."""


class Server:
    """`python -m app` on a folder of runs."""

    def __init__(self, runs: Path, *flags: str) -> None:
        self.runs, self.flags, self.port = runs, flags, free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> float:
        """Serves; returns the seconds until it did."""
        began = time.monotonic()
        command = [sys.executable, "-m", "app", "--runs", str(self.runs), "--port", str(self.port), *self.flags]
        log = (self.runs.parent / "server.log").open("ab")
        surroundings = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        self.process = subprocess.Popen(command, stdout=log, stderr=log, env=surroundings)
        until(lambda: listens(self.port) or self.process.poll() is not None, 180)
        assert self.process.poll() is None, (self.runs.parent / "server.log").read_text()[-2000:]
        return time.monotonic() - began

    def kill(self) -> None:
        """As a crash ends it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        """Ends it and the runs that it started."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
        for number in (self.runs / ".jobs").glob("*.pid"):
            with_pid = int(number.read_text() or 0)
            try:
                if with_pid and os.getsid(with_pid) == with_pid:
                    os.killpg(with_pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


@contextmanager
def browser() -> Iterator[Any]:
    """Debian's Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield opened
        opened.close()


def tab(opened: Any, server: Server, asked: list[str], path: str = "", **context: Any) -> Any:
    """A new visitor's tab on the page; `asked` gets the address of every request."""
    visitor = opened.new_context(viewport={"width": 1280, "height": 900}, **context)
    visitor.set_default_timeout(PATIENCE)
    page = visitor.new_page()
    visitor.on("request", lambda request: asked.append(request.url))
    page.goto(server.address + path, timeout=PATIENCE)
    page.wait_for_selector("#prompt textarea")
    return page


def fill(page: Any, prompt: str, steps: int) -> None:
    """Fills the form for a short run."""
    page.locator("#prompt textarea").fill(prompt)
    shorten(page, steps, "generate")


def shorten(page: Any, steps: int, place: str, more: Mapping[str, str] = SHORT) -> None:
    """Sets the advanced fields of a tab for a short run."""
    box = page.locator(f"#fields-{place}")
    if not box.is_visible():
        page.locator(f"#choices-{place} button").first.click()
    box.wait_for()
    page.wait_for_timeout(1000)
    for name, value in {"steps": str(steps), **more}.items():
        script = "(field, value) => { field.value = value; field.dispatchEvent(new Event('input', {bubbles: true})); }"
        box.locator(f'[data-name="{name}"]').evaluate(script, value)
    page.wait_for_timeout(500)
    box.locator(".count", has_text=f"{1 + len(more)} changed").wait_for()


def run_of(page: Any) -> str:
    """The run in a tab's address, once there is one."""
    page.wait_for_function("new URL(location.href).searchParams.get('run')")
    found: str = page.evaluate("new URL(location.href).searchParams.get('run')")
    return found


def badge(page: Any, words: str, place: str = "generate") -> None:
    """Waits until the card of a run says so."""
    page.locator(f"#live-{place} .badge", has_text=words).wait_for(timeout=PATIENCE)


def step_of(page: Any) -> int:
    """The step that the card tells of, 0 before the first."""
    words = page.locator("#live-generate .line").inner_text().split()
    return int(words[1].replace(",", "")) if words[:1] == ["Step"] else 0


def until(true: Callable[[], object], seconds: float) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "it never came to that"
        time.sleep(0.2)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
