"""Pictures of the page in each of its states: docs/page/*.png.

Serves the page on a folder of its own, into which finished runs are copied from --seen, makes one more run to watch,
and looks at all of it with a browser. Takes some minutes. Needs gradio, Playwright's driver and a Chromium.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.app.browser_fixtures import (  # noqa: E402
    TIMEOUT_MS,
    Server,
    browser,
    run_in_address,
    shown_step,
    wait_for_badge,
    wait_until,
)

DESKTOP = {"width": 1240, "height": 880}
PHONE = {"width": 400, "height": 860}
COLOURS = 200
"""Of a picture: few enough for small files."""
WATCHED = "a red armchair"
STEPS, SHOWN_AT = 800, 100


class Pictures:
    """Takes pictures of a page that is served."""

    def __init__(self, opened: Any, server: Server, out: Path) -> None:
        self.opened, self.server, self.out = opened, server, out

    @contextmanager
    def visitor(self, size: dict[str, int], dark: bool, path: str = "") -> Iterator[Any]:
        """A tab on the page."""
        scheme = "dark" if dark else "light"
        context = self.opened.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
        context.set_default_timeout(TIMEOUT_MS)
        page = context.new_page()
        page.goto(self.server.address + path)
        page.wait_for_selector("#prompt textarea")
        yield page
        context.close()

    def take(self, page: Any, name: str, whole: bool = False) -> None:
        """A picture of a tab, as docs/page/NAME.png."""
        from PIL import Image

        page.wait_for_timeout(1500)
        file = self.out / f"{name}.png"
        page.screenshot(path=file, full_page=whole, timeout=TIMEOUT_MS)
        with Image.open(file) as picture:
            picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)
        sys.stdout.write(f"{file} {file.stat().st_size // 1000} kB\n")

    def tab(self, name: str, title: str, before: Callable[[Any], None] = lambda page: None) -> None:
        """A picture of one tab of the page."""
        with self.visitor(DESKTOP, dark=False) as page:
            page.get_by_role("tab", name=title).click()
            before(page)
            self.take(page, name)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    p.add_argument("--seen", type=Path, default=ROOT / "runs" / "gallery", help="folder with finished runs")
    p.add_argument("--finished", default="a-teddy-bear", help="the one of them that is shown")
    p.add_argument("--comparison", default="", help="a comparison among them, which is shown too")
    p.add_argument("--out", type=Path, default=ROOT / "docs" / "page")
    given = p.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        runs = Path(place) / "runs"
        for folder in sorted(given.seen.iterdir()):
            if folder.is_dir() and not folder.name.startswith("."):
                shutil.copytree(folder, runs / folder.name, ignore=shutil.ignore_patterns("checkpoints"))
        server = Server(runs)
        server.start()
        try:
            with browser() as opened:
                _all(Pictures(opened, server, given.out), given.finished, given.comparison)
        finally:
            server.stop()
    return 0


def _all(shots: Pictures, finished: str, comparison: str) -> None:
    with shots.visitor(DESKTOP, dark=False) as page:
        shots.take(page, "first")
    with shots.visitor(DESKTOP, dark=False) as page:
        page.locator("#choices-generate button").first.click()
        page.locator("#fields-generate summary").first.click()
        page.locator("#fields-generate details.group").nth(1).locator("summary").click()
        page.locator('[data-name="objective.guidance_scale"]').fill("3")
        page.locator('[data-name="objective.guidance_scale"]').scroll_into_view_if_needed()
        shots.take(page, "advanced")
    _finished(shots, finished)
    shots.tab("gallery", "Gallery", lambda page: page.locator("article").first.wait_for())
    shots.tab("texture", "Texture")
    if comparison:
        with shots.visitor(DESKTOP, dark=False, path=f"?run={comparison}") as page:
            wait_for_badge(page, "Finished", "compare")
            page.locator("#live-compare .sheet").wait_for()
            shots.take(page, "compare")
    else:
        shots.tab("compare", "Compare")
    _going(shots)


def _finished(shots: Pictures, run: str) -> None:
    for name, size, dark in (
        ("finished", DESKTOP, False),
        ("finished-dark", DESKTOP, True),
        ("phone", PHONE, False),
        ("phone-dark", PHONE, True),
    ):
        with shots.visitor(size, dark, f"?run={run}") as page:
            page.wait_for_selector("#viewer-generate canvas[data-drawn=mesh]", timeout=TIMEOUT_MS)
            page.locator("#files-generate .mark.good").first.wait_for(timeout=TIMEOUT_MS)
            if size is DESKTOP:
                page.locator("#live-generate .scrub").scroll_into_view_if_needed()
                shots.take(page, name, whole=True)
            else:
                page.locator("#live-generate").evaluate("node => node.scrollIntoView()")
                shots.take(page, name)


def _going(shots: Pictures) -> None:
    """A run while it goes on, and a batch that waits behind it."""
    with shots.visitor(DESKTOP, dark=False) as page:
        page.locator("#prompt textarea").fill(WATCHED)
        page.get_by_role("button", name="Generate").click()
        id = run_in_address(page)
        wait_until(lambda: shown_step(page) >= SHOWN_AT, TIMEOUT_MS / 250)
        shots.take(page, "running")
        page.get_by_role("tab", name="Batch").click()
        page.locator("#batch-prompts textarea").fill("a blue teapot\na snowman\na wooden boat\na green toaster")
        page.get_by_role("button", name="Make them all").click()
        page.locator("section.batch article").nth(3).wait_for()
        shots.take(page, "batch")
        page.get_by_role("tab", name="Generate").click()
        page.locator("#prompt textarea").fill("a flibbertigibbet")
        page.get_by_role("button", name="Generate").click()
        page.locator("#said [role=alert]").wait_for()
        shots.take(page, "refused")
        page.evaluate("id => history.replaceState(null, '', '?run=' + id)", id)


if __name__ == "__main__":
    sys.exit(main())
