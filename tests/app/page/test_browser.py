"""The page as a visitor sees it, in a real browser with real, short runs."""

from __future__ import annotations

import io
import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from tests.support.app.browser_fixtures import (
    CHROMIUM,
    TIMEOUT_MS,
    Server,
    browser,
    fill_form,
    open_tab,
    run_in_address,
    shorten_run,
    shown_step,
    wait_for_badge,
    wait_until,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)"),
]
pytest.importorskip("gradio", reason='gradio is missing (pip install "sds3d[app]")')
pytest.importorskip("playwright", reason="playwright is missing (pip install playwright)")

CUBE = """v -1 -1 -1\nv 1 -1 -1\nv 1 1 -1\nv -1 1 -1\nv -1 -1 1\nv 1 -1 1\nv 1 1 1\nv -1 1 1
f 1 4 3 2\nf 5 6 7 8\nf 1 2 6 5\nf 3 4 8 7\nf 2 3 7 6\nf 1 5 8 4\n"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("page") / "runs", "--waiting", "30")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def requested_urls(server: Server) -> Iterator[list[str]]:
    """Every address that the browser asks in a test: all of them are the server's."""
    found: list[str] = []
    yield found
    hosts = {urlsplit(address).netloc for address in found if not address.startswith(("data:", "blob:"))}
    assert hosts == {f"127.0.0.1:{server.port}"}


def canvas_pixels(page: Any, selector: str) -> np.ndarray:
    from PIL import Image

    image = page.locator(selector).screenshot(timeout=TIMEOUT_MS)
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"), np.float64)


def test_first_visit_makes_an_asset(chromium: Any, server: Server, requested_urls: list[str], tmp_path: Path) -> None:
    import trimesh

    began = time.monotonic()
    page = open_tab(chromium, server, requested_urls)
    loaded = time.monotonic() - began
    page.get_by_role("button", name="a cat").click()
    page.wait_for_function("document.querySelector('#prompt textarea').value === 'a cat'")
    fill_form(page, "a cat", 12)
    began = time.monotonic()
    page.get_by_role("button", name="Generate").click()
    page.wait_for_selector("#live-generate .tile", timeout=TIMEOUT_MS)
    preview = time.monotonic() - began
    wait_for_badge(page, "Finished")
    page.wait_for_selector("#viewer-generate canvas[data-drawn=mesh]", timeout=TIMEOUT_MS)
    assert canvas_pixels(page, "#viewer-generate canvas").std() > 10
    page.get_by_role("radio", name="Splats").click()
    page.wait_for_selector("#viewer-generate canvas[data-drawn=splats]", timeout=TIMEOUT_MS)
    assert canvas_pixels(page, "#viewer-generate canvas").std() > 10
    page.locator("#files-generate .mark.good").first.wait_for(timeout=TIMEOUT_MS)
    with page.expect_download() as download:
        page.locator("#files-generate a[data-file='asset.glb']").click()
    download.value.save_as(tmp_path / "asset.glb")
    assert len(trimesh.load(tmp_path / "asset.glb", force="mesh").faces) > 100
    page.locator("#files-generate button[data-make='print']").click()
    page.locator("#files-generate [data-row='print'] a").wait_for(timeout=TIMEOUT_MS)
    page.context.close()
    figures = {"load_seconds": round(loaded, 2), "preview_seconds": round(preview, 2)}
    (server.runs.parent / "figures.json").write_text(json.dumps(figures))
    print(figures)


def test_unreadable_prompt_is_rejected_immediately(chromium: Any, server: Server, requested_urls: list[str]) -> None:
    page, before = open_tab(chromium, server, requested_urls), sorted(server.runs.iterdir())
    page.locator("#prompt textarea").fill("a <b>tedy baer</b>")
    page.get_by_role("button", name="Generate").click()
    words = page.locator("#said [role=alert]")
    words.wait_for()
    assert "does not know" in words.inner_text() and page.locator("#said b").count() == 0
    assert sorted(server.runs.iterdir()) == before
    page.context.close()


def test_reloaded_tab_shows_its_run(chromium: Any, server: Server, requested_urls: list[str]) -> None:
    page = open_tab(chromium, server, requested_urls)
    fill_form(page, "a snowman", 4000)
    page.get_by_role("button", name="Generate").click()
    id = run_in_address(page)
    wait_until(lambda: shown_step(page) > 0, TIMEOUT_MS / 1000)
    page.reload()
    page.wait_for_selector("#prompt textarea")
    wait_for_badge(page, "Running")
    assert run_in_address(page) == id
    before = shown_step(page)
    page.context.close()
    again = open_tab(chromium, server, requested_urls)
    assert run_in_address(again) == id
    wait_until(lambda: shown_step(again) > before, TIMEOUT_MS / 1000)
    again.locator("#live-generate .cancel").click()
    wait_for_badge(again, "Stopped")
    wait_until(lambda: (server.runs / id / "asset.glb").exists(), TIMEOUT_MS / 1000)
    again.wait_for_selector("#viewer-generate canvas[data-drawn=mesh]", timeout=TIMEOUT_MS)
    again.context.close()


def test_two_tabs_have_separate_runs(chromium: Any, server: Server, requested_urls: list[str]) -> None:
    first, second = open_tab(chromium, server, requested_urls), open_tab(chromium, server, requested_urls)
    fill_form(first, "a red mug", 12)
    fill_form(second, "a blue mug", 12)
    first.get_by_role("button", name="Generate").click()
    second.get_by_role("button", name="Generate").click()
    ids = run_in_address(first), run_in_address(second)
    assert len(set(ids)) == 2
    for page, words in ((first, "a red mug"), (second, "a blue mug")):
        wait_for_badge(page, "Finished")
        assert page.locator("#live-generate h2").inner_text() == words
        page.context.close()


def test_killed_server_recovers_its_runs(chromium: Any, server: Server, requested_urls: list[str]) -> None:
    page = open_tab(chromium, server, requested_urls)
    fill_form(page, "a hamburger", 4000)
    page.get_by_role("button", name="Generate").click()
    id = run_in_address(page)
    wait_until(lambda: shown_step(page) > 0, TIMEOUT_MS / 1000)
    server.kill()
    page.locator("#live-generate .line", has_text="does not answer").wait_for()
    before = (server.runs / id / "metrics.jsonl").stat().st_size
    wait_until(lambda: (server.runs / id / "metrics.jsonl").stat().st_size > before, TIMEOUT_MS / 1000)
    server.start()
    page.locator("#live-generate .line", has_text="Step").wait_for()
    os.killpg(int((server.runs / ".jobs" / f"{id}.pid").read_text()), signal.SIGKILL)
    wait_for_badge(page, "Interrupted")
    if (server.runs / id / "checkpoints").is_dir():
        page.locator("#live-generate .resume").click()
        wait_for_badge(page, "Running")
        page.locator("#live-generate .cancel").click()
        wait_for_badge(page, "Stopped")
    page.context.close()


def test_gallery_search_clone_and_delete(chromium: Any, server: Server, requested_urls: list[str]) -> None:
    page = open_tab(chromium, server, requested_urls)
    page.get_by_role("tab", name="Gallery").click()
    page.locator("#gallery input").fill("blue mug")
    page.wait_for_function("document.querySelectorAll('#gallery article').length === 1")
    page.locator("#gallery").get_by_role("button", name="again with changes").click()
    page.wait_for_function("document.querySelector('#prompt textarea')?.value === 'a blue mug'")
    page.locator("#fields-generate .count", has_text="10 changed").wait_for()
    page.get_by_role("tab", name="Gallery").click()
    page.locator("#gallery").get_by_role("button", name="Delete a-blue-mug").click()
    assert (server.runs / "a-blue-mug").exists()
    page.locator("#gallery dialog .yes").click()
    wait_until(lambda: not (server.runs / "a-blue-mug").exists(), 30)
    page.context.close()


def test_batch_fills_the_sheet(chromium: Any, server: Server, requested_urls: list[str]) -> None:
    page = open_tab(chromium, server, requested_urls)
    page.get_by_role("tab", name="Batch").click()
    page.locator("#batch-prompts textarea").fill("a cat\na flibbertigibbet\na mug")
    shorten_run(page, 3, "batch")
    page.get_by_role("button", name="Make them all").click()
    page.locator("#batch-said [role=alert]", has_text="row 2").wait_for()
    page.locator("section.batch .line", has_text="2 of 2 made").wait_for(timeout=2 * TIMEOUT_MS)
    assert page.locator("section.batch article").count() == 2
    page.context.close()


def test_texture_edit_and_compare(chromium: Any, server: Server, requested_urls: list[str], tmp_path: Path) -> None:
    page = open_tab(chromium, server, requested_urls)
    page.get_by_role("tab", name="Texture").click()
    (tmp_path / "cube.obj").write_text(CUBE)
    page.locator("#model input[type=file]").set_input_files(tmp_path / "cube.obj")
    page.locator("#model-about", has_text="faces").wait_for(timeout=TIMEOUT_MS)
    page.locator("#texture-prompt textarea").fill("a red mug")
    shorten_run(page, 3, "texture", {})
    page.get_by_role("button", name="Paint", exact=True).click()
    page.locator("#live-texture .badge", has_text="Finished").wait_for(timeout=3 * TIMEOUT_MS)
    page.get_by_role("tab", name="Gallery").click()
    page.get_by_role("tab", name="Texture").click()
    page.get_by_role("tab", name="Edit a run").click()
    page.locator("#edit-run input").click()
    page.get_by_role("option", name="a red mug").first.click()
    page.locator("#edit-prompt textarea").fill("a blue mug")
    page.get_by_role("button", name="Edit", exact=True).click()
    page.locator("#live-texture h2", has_text="a blue mug").wait_for(timeout=TIMEOUT_MS)
    page.locator("#live-texture .badge", has_text="Finished").wait_for(timeout=3 * TIMEOUT_MS)
    page.get_by_role("tab", name="Compare").click()
    page.locator("#compare-prompt textarea").fill("a cat")
    page.locator("#compare-minutes textarea, #compare-minutes input").first.fill("0.05")
    page.get_by_role("button", name="Compare", exact=True).click()
    page.locator("#live-compare .badge", has_text="Finished").wait_for(timeout=3 * TIMEOUT_MS)
    assert page.locator("#live-compare .standings tbody tr").count() == 3
    page.locator("#live-compare .whole").click()
    page.frame_locator("#live-compare iframe").locator("video").first.wait_for(timeout=TIMEOUT_MS)
    page.context.close()


def post_json(server: Server, path: str, body: object = None) -> tuple[int, str]:
    """(status, text) of a request that no page makes."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.address + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode("utf-8", "replace")


def call_endpoint(server: Server, name: str, *values: object) -> str:
    """The last event of an endpoint's answer."""
    status, text = post_json(server, f"gradio_api/call/{name}", {"data": list(values)})
    assert status == 200, text
    return post_json(server, f"gradio_api/call/{name}/{json.loads(text)['event_id']}")[1]


def test_rejects_path_traversal(server: Server) -> None:
    secret = server.runs.parent / "secret.txt"
    secret.write_text("hidden words")
    for path in ("/etc/passwd", str(secret), f"{server.runs}/../secret.txt", f"{server.runs}/.jobs/server.lock"):
        status, text = post_json(server, f"gradio_api/file={path}")
        assert status in (403, 404) and "hidden" not in text and "root:" not in text
    for id in ("../secret.txt", "..", "/etc", ".jobs", "a-cat/../.."):
        assert "there is no run" in call_endpoint(server, "status", id)
        assert "error" in call_endpoint(server, "export", id, "blender")
        assert "error" in call_endpoint(server, "delete", id)
    assert secret.exists()
    for calls in (
        {"prior": "/etc"},
        {"objective": "os:system"},
        {"values": {"source": "/etc"}},
        {"image": "/etc/passwd"},
    ):
        assert "error" in call_endpoint(server, "generate", {"prompt": "a cat", **calls})
    assert "no uploaded file" in call_endpoint(server, "texture", {"path": str(secret)}, {"prompt": "a cat"})


def test_twenty_concurrent_visitors(server: Server) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = list(
            pool.map(lambda seed: call_endpoint(server, "generate", {"prompt": "a cat", "seed": seed}), range(25))
        )
    added = [json.loads(text.split("data: ")[-1])[0] for text in answers if "event: complete" in text]
    refused = [text for text in answers if "event: complete" not in text]
    assert len(added) == len(set(added)) and 15 <= len(added) <= 20
    assert refused and all("wait" in text or "waiting" in text for text in refused)
    places = {json.loads(call_endpoint(server, "status", id).split("data: ")[-1])[0]["line"] for id in added}
    assert len(places) == len(added)
    for id in added:
        assert "complete" in call_endpoint(server, "cancel", id)
