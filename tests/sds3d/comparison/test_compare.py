"""Comparisons: what is spent, what is kept, what is found again, and a page that stands on its own."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest
import torch

from configs import serialization
from configs.run import RunConfig
from guidance.priors.mini.prior import MiniPrior
from renderers.splats.scene import SplatScene
from sds3d.__main__ import main
from sds3d.cli.arguments import generate
from sds3d.comparison import compare as compare_module
from sds3d.comparison import entry as comparison_entry
from sds3d.comparison.compare import Comparison, claim_folder, run_comparison
from sds3d.comparison.entry import RESULT, Budget, Entry, Usage, count_calls, finished, run_entry
from sds3d.comparison.page import page
from sds3d.comparison.sheet import read_views, write_views
from sds3d.comparison.statistics import METRICS, summarize
from sds3d.console import Console
from sds3d.runs.run_directory import RunDirectory
from sds3d.training.loop import StopSignal
from sds3d.training.trainer import Trainer
from tests.support.sds3d.comparison_rows import row_of

QUIET = Console("quiet")
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module", autouse=True)
def _short_films() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison_entry, "FRAMES", 2)
        yield


def words(prior_folder: Path, out: Path, *more: str) -> list[str]:
    """A comparison of seconds."""
    common = ["compare", "a red teddy bear", "--prior", str(prior_folder), "--device", "cpu", "--out", str(out)]
    return [*common, "--objectives", "sds,csd", "--seeds", "2", "--steps", "2", *more]


@pytest.fixture(scope="module")
def done(prior_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a comparison that went well."""
    out = tmp_path_factory.mktemp("compare") / "bear"
    assert main(words(prior_folder, out, "--quiet")) == 0
    return out


@pytest.fixture
def entry(config: RunConfig) -> Entry:
    return Entry("sds", config)


# --- budgets ---


@pytest.mark.parametrize("unit", ["minutes", "answers"])
def test_progress_follows_what_is_spent(unit: Any) -> None:
    """At whatever pace, done / last_step is the share of the budget, but for rounding."""
    budget = Budget(unit, 2.0 if unit == "minutes" else 1600)
    for pace in (0.05, 0.9):
        for done in range(1, 100):
            spent = Usage(seconds=done * pace, steps=done, prior_calls=done * 8)
            last = budget.last_step(spent)
            assert last > done
            assert done / last == pytest.approx(min(budget.share(spent), done / (done + 1)), rel=1 / last)


def test_a_budget_of_steps_is_the_number_of_steps() -> None:
    assert Budget("steps", 40).last_step(Usage()) == Budget("steps", 40).last_step(Usage(steps=7)) == 40


@pytest.mark.parametrize("amount", [0, -1, float("nan"), float("inf")])
def test_a_budget_is_positive(amount: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Budget("minutes", amount)


def test_answers_are_conditions_times_pictures(prior: MiniPrior) -> None:
    spent = Usage()
    watched = count_calls(prior, spent)
    x, t = torch.randn(3, 12, 4, 4), torch.full((3,), 0.5)
    wanted = prior.encode_prompt(["a mug"] * 3)
    given = watched.predict_noise(x, t, [wanted, wanted])
    assert spent.prior_calls == 6 and torch.equal(given, prior.predict_noise(x, t, [wanted, wanted]))
    assert spent.prior_calls == 6, "the prior itself does not count"
    assert watched.camera_conditioned and watched.image_size == prior.image_size


def test_equal_answers_are_equal_up_to_a_step(entry: Entry, prior: MiniPrior, tmp_path: Path) -> None:
    row = run_entry(entry, prior, Budget("answers", 10), tmp_path, QUIET, StopSignal())
    assert row is not None
    assert row["answers"] == 12 and row["steps"] == 3, "two conditions, two views"
    assert row["answers_per_step"] == 4


def test_time_ends_a_run_at_the_end_of_its_course(
    entry: Entry, prior: MiniPrior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that goes on by an eighth of a second from look to look: one at the start, one a step."""
    ticks = (number / 8 for number in count())
    monkeypatch.setattr(comparison_entry, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    seen: list[float] = []
    settle = SplatScene.post_step

    def noting(scene: SplatScene, progress: float, *rest: Any) -> None:
        seen.append(progress)
        settle(scene, progress, *rest)

    monkeypatch.setattr(SplatScene, "post_step", noting)
    row = run_entry(entry, prior, Budget("minutes", 0.02), tmp_path, QUIET, StopSignal())
    assert row is not None and (row["seconds"], row["steps"], row["seconds_per_step"]) == (1.25, 10, 0.125)
    assert seen == [step / 10 for step in range(10)]
    assert serialization.load_config(entry.folder(tmp_path) / "run.yaml").steps == 10


# --- one run ---


def test_the_seed_and_not_the_counting_decides_what_comes_out(entry: Entry, prior: MiniPrior, tmp_path: Path) -> None:
    plain = Trainer(replace(entry.config, steps=3), prior, torch.device("cpu"))
    for _ in plain.steps():
        pass
    run_entry(entry, prior, Budget("steps", 3), tmp_path, QUIET, StopSignal())
    state, _ = RunDirectory.open(entry.folder(tmp_path)).latest()
    assert torch.equal(state["scene.means"], plain.training_state()["scene.means"])


def test_a_run_is_found_again_only_for_the_same_request(entry: Entry, prior: MiniPrior, tmp_path: Path) -> None:
    assert finished(entry, tmp_path) is None
    row = run_entry(entry, prior, Budget("steps", 1), tmp_path, QUIET, StopSignal())
    assert finished(entry, tmp_path) == row
    assert finished(replace(entry, config=replace(entry.config, batch_size=3)), tmp_path) is None
    (entry.folder(tmp_path) / RESULT).write_text("{")
    assert finished(entry, tmp_path) is None


def test_a_run_that_goes_wrong_is_a_result(
    entry: Entry, prior: MiniPrior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SplatScene, "failure_reason", lambda scene: "the splats have exploded")
    row = run_entry(entry, prior, Budget("steps", 5), tmp_path / "runs", QUIET, StopSignal())
    assert row is not None and "exploded" in row["trouble"] and row["steps"] == 1
    assert finished(entry, tmp_path / "runs") == row
    found = summarize(tmp_path, [row])
    assert found["sds"]["saturation"].mean is None and found["sds"]["variance"].mean is None
    assert "exploded" in page("a bear", "", [row], found) and "<video" not in page("a bear", "", [row], found)


def test_views_are_kept_with_their_opacity(tmp_path: Path) -> None:
    views = torch.rand(3, 8, 8, 4)
    write_views(tmp_path, views)
    assert torch.allclose(read_views(tmp_path), views, atol=0.5 / 255 + 1e-6)


# --- the command ---


def test_everything_is_there(done: Path) -> None:
    names = {path.relative_to(done).as_posix() for path in done.iterdir()}
    assert names == {"comparison.json", "results.json", "sheet.png", "index.html", "runs"}
    report = json.loads((done / "results.json").read_text())
    assert [(row["objective"], row["seed"]) for row in report["runs"]] == [
        ("sds", 0), ("sds", 1), ("csd", 0), ("csd", 1),
    ]  # fmt: skip
    assert set(report["standings"]) == {"sds", "csd"} and set(report["measures"]) == {m.key for m in METRICS}
    assert all(row["steps"] == 2 and 0 <= row["sharpness"] <= 1 for row in report["runs"])
    assert report["standings"]["sds"]["variance"]["mean"] >= 0
    for row in report["runs"]:
        assert {"turntable.mp4", "views.png", "front.png", "run.yaml"} <= set(os.listdir(done / row["folder"]))


def test_what_is_done_is_not_done_again(
    done: Path, prior_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def again(*rest: object) -> None:
        raise AssertionError("a finished run was done again")

    monkeypatch.setattr(compare_module, "run_entry", again)
    before = (done / "results.json").read_bytes()
    assert main(words(prior_folder, done)) == 0
    told = capsys.readouterr().out
    assert "0 runs to do, 4 done before" in told and "saturation" in told and str(done / "index.html") in told
    assert (done / "results.json").read_bytes() == before


def test_an_interrupt_leaves_what_there_is_and_the_same_command_goes_on(
    prior_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    step, out = Trainer._step, tmp_path / "out"
    steps: list[int] = []

    def interrupted(run: Trainer) -> Any:
        steps.append(run.step)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return step(run)

    monkeypatch.setattr(Trainer, "_step", interrupted)
    asked = words(prior_folder, out, "--seeds", "1")
    assert main(asked) == 130
    assert "stopped with 1 of 2 runs done" in capsys.readouterr().out
    assert [path.name for path in (out / "runs").iterdir()] == ["sds-seed-0"]
    assert len(json.loads((out / "results.json").read_text())["runs"]) == 1
    monkeypatch.setattr(Trainer, "_step", step)
    assert main([*asked, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert "1 run to do, 1 done before" in rows[0]["message"]
    assert sum("folder" in row for row in rows) == 1 and rows[-1]["page"] == str(out / "index.html")


def test_every_objective_starts_as_generate_would(prior_folder: Path) -> None:
    for name in ("sds", "csd", "nfsd"):
        mine = compare_module.asked(Comparison("a mug", Budget("steps", 1), "draft", str(prior_folder)), name)
        theirs = generate(["a mug", "--objective", name, "--prior", str(prior_folder)]).config
        assert mine == theirs


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--objectives", "sds,sdds"], "unknown objective 'sdds'; did you mean"),
        (["--objectives", "sds,dds"], "dds needs an asset to change"),
        (["--objectives", " , "], "no objective is named"),
        (["--seeds", "0"], "seeds is 0; expected at least 1"),
        (["--minutes", "1"], "not allowed with"),
        (["--prior", "nowhere"], "unknown prior"),
    ],
)
def test_mistakes_end_in_one_line(
    prior_folder: Path, tmp_path: Path, capsys: Captured, more: Sequence[str], told: str
) -> None:
    assert main(words(prior_folder, tmp_path / "out", *more)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and told in err
    assert not (tmp_path / "out").exists()


def test_no_time_is_refused(prior_folder: Path, tmp_path: Path, capsys: Captured) -> None:
    start = ["compare", "a mug", "--prior", str(prior_folder), "--out", str(tmp_path / "out")]
    assert main([*start, "--minutes", "0"]) == 2 and "minutes is 0.0; expected" in capsys.readouterr().err
    assert main([*start, "--passes", "-3"]) == 2 and "answers is -3; expected" in capsys.readouterr().err


def test_a_folder_holds_one_comparison(done: Path, prior_folder: Path, tmp_path: Path, capsys: Captured) -> None:
    other = Comparison("a mug", Budget("steps", 2), "draft", str(prior_folder))
    with pytest.raises(ValueError, match=r'another comparison \("a red teddy bear", 2 steps a run'):
        claim_folder(done, other)
    (tmp_path / "diary.txt").write_text("dear diary")
    with pytest.raises(ValueError, match="something else"):
        claim_folder(tmp_path, other)
    claim_folder(tmp_path / "new", other)
    claim_folder(tmp_path / "new", other)


def test_what_can_not_be_run_is_refused_before_anything_is(
    entry: Entry, prior: MiniPrior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare_module, "run_entry", lambda *rest: pytest.fail("a run was started"))
    bad = Entry("csd", replace(entry.config, device="cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="CUDA"):
        run_comparison([entry, bad], Comparison("a mug", Budget("steps", 1), "draft", "mini"), prior, tmp_path, QUIET)


# --- the page ---


class Outline(HTMLParser):
    """What a page is made of; fails where tags do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def outline(text: str) -> Outline:
    parsed = Outline()
    parsed.feed(text)
    assert parsed.open == []
    return parsed


def test_the_page_stands_on_its_own(done: Path) -> None:
    text = (done / "index.html").read_text()
    assert "http" not in text and "url(" not in text and "@import" not in text
    parsed = outline(text)
    assert not parsed.of("link") and all("src" not in script for script in parsed.of("script"))
    for attributes in [*parsed.of("img"), *parsed.of("video")]:
        for key in ("src", "poster"):
            if (source := attributes.get(key)) is not None:
                assert (done / unquote(source)).is_file(), source


def test_the_page_can_be_read_without_seeing_it(done: Path) -> None:
    parsed = outline((done / "index.html").read_text())
    assert parsed.of("html")[0]["lang"] == "en" and len(parsed.of("h1")) == 1
    assert all(image.get("alt") for image in parsed.of("img"))
    assert len({film.get("aria-label") for film in parsed.of("video")}) == len(parsed.of("video")) == 4
    assert all("controls" in film and "muted" in film and "loop" in film for film in parsed.of("video"))
    assert len(parsed.of("caption")) == len(parsed.of("table")) == 2
    assert all(head.get("scope") in ("row", "col") for head in parsed.of("th"))
    assert parsed.of("meta")[1]["content"] == "width=device-width, initial-scale=1"


def test_what_the_user_wrote_is_text(tmp_path: Path) -> None:
    name, prompt = "mine:<b>", '<script>alert("x")</script> & "co"'
    rows = [row_of(name, 0, folder="runs/a b?-seed-0"), row_of("vsd", 0, trouble="<i>bad</i>")]
    found = summarize(tmp_path, [dict(row, trouble="x") for row in rows])
    text = page(prompt, "1 step", rows, found)
    parsed = outline(text)
    assert not parsed.of("b") or all("style" in attributes for attributes in parsed.of("b"))
    assert len(parsed.of("script")) == 1 and "&lt;script&gt;" in text and "&lt;i&gt;bad" in text
    assert parsed.of("video")[0]["src"] == "runs/a%20b%3F-seed-0/turntable.mp4"
