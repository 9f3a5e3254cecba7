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
TIMEOUT_MS = 240_000
"""Milliseconds that a busy machine may take for anything."""
SHORT_RUN_FIELDS = {
    "scene.init_count": "400",
    "scene.cap_max": "500",
    "scene.init_opacity": "0.9",
    "mesh_extraction.faces": "500",
    "mesh_extraction.texture_size": "64",
    "mesh_extraction.resolution": "32",
    "mesh_extraction.views": "3",
    "mesh_extraction.silhouette_size": "32",
    "mesh_extraction.texture_render_size": "48",
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
        started = time.monotonic()
        command = [sys.executable, "-m", "app", "--runs", str(self.runs), "--port", str(self.port), *self.flags]
        log = (self.runs.parent / "server.log").open("ab")
        env = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        self.process = subprocess.Popen(command, stdout=log, stderr=log, env=env)
        wait_until(lambda: is_listening(self.port) or self.process.poll() is not None, 180)
        assert self.process.poll() is None, (self.runs.parent / "server.log").read_text()[-2000:]
        return time.monotonic() - started

    def kill(self) -> None:
        """As a crash ends it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
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


def open_tab(opened: Any, server: Server, requested_urls: list[str], path: str = "", **context: Any) -> Any:
    """A new visitor's tab on the page; `requested_urls` gets the address of every request."""
    visitor = opened.new_context(viewport={"width": 1280, "height": 900}, **context)
    visitor.set_default_timeout(TIMEOUT_MS)
    page = visitor.new_page()
    visitor.on("request", lambda request: requested_urls.append(request.url))
    page.goto(server.address + path, timeout=TIMEOUT_MS)
    page.wait_for_selector("#prompt textarea")
    return page


def fill_form(page: Any, prompt: str, steps: int) -> None:
    """Fills the form for a short run."""
    page.locator("#prompt textarea").fill(prompt)
    shorten_run(page, steps, "generate")


def shorten_run(page: Any, steps: int, tab_name: str, values: Mapping[str, str] = SHORT_RUN_FIELDS) -> None:
    """Sets the advanced fields of a tab for a short run."""
    box = page.locator(f"#fields-{tab_name}")
    if not box.is_visible():
        page.locator(f"#choices-{tab_name} button").first.click()
    box.wait_for()
    page.wait_for_timeout(1000)
    for name, value in {"steps": str(steps), **values}.items():
        script = "(field, value) => { field.value = value; field.dispatchEvent(new Event('input', {bubbles: true})); }"
        box.locator(f'[data-name="{name}"]').evaluate(script, value)
    page.wait_for_timeout(500)
    box.locator(".count", has_text=f"{1 + len(values)} changed").wait_for()


def run_in_address(page: Any) -> str:
    """The run in a tab's address, once there is one."""
    page.wait_for_function("new URL(location.href).searchParams.get('run')")
    found: str = page.evaluate("new URL(location.href).searchParams.get('run')")
    return found


def wait_for_badge(page: Any, text: str, tab_name: str = "generate") -> None:
    """Waits until the card of a run says so."""
    page.locator(f"#live-{tab_name} .badge", has_text=text).wait_for(timeout=TIMEOUT_MS)


def shown_step(page: Any) -> int:
    """The step that the card tells of, 0 before the first."""
    words = page.locator("#live-generate .line").inner_text().split()
    return int(words[1].replace(",", "")) if words[:1] == ["Step"] else 0


def wait_until(condition: Callable[[], object], seconds: float) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it never came to that"
        time.sleep(0.2)


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
