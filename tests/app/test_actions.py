"""What the page does, without a page: forms become command lines, and runs are told in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.actions import Actions
from app.exports import FOLDER, Exports
from app.forms import estimate
from app.forms.fields import Choice
from app.forms.form import PROMPT, Form, remark, whole
from app.jobs.job import Job, Progress
from app.jobs.queue import Jobs
from app.presenters import card, line, table
from configs import serialization
from configs.run import RunConfig
from sds3d.cli import arguments
from sds3d.runs.provenance import versions
from tests.support.app.polling import STUB, over, swept


@pytest.fixture
def actions(tmp_path: Path) -> Iterator[Actions]:
    jobs = Jobs(tmp_path / "runs", command=STUB)
    yield Actions(jobs)
    swept(jobs)


def finished(folder: Path, steps: int = 100, seconds: float = 7.0) -> None:
    """A run of the command line, as far as the page looks at it."""
    folder.mkdir(parents=True)
    (folder / "run.yaml").write_text(serialization.dump(replace(arguments.generate(["a cat"]).run, steps=steps)))
    (folder / "asset.glb").write_bytes(b"glTF")
    times = {"optimisation": seconds, "mesh": 4.0, "pictures_and_checks": 1.0}
    report = {"prompt": "a cat", "steps": steps, "seconds": times, "versions": versions()}
    (folder / "report.json").write_text(json.dumps(report))


# --- forms ---


def test_a_form_becomes_the_words_of_the_command_line() -> None:
    form = Form("  a   cat ", Choice(objective="csd"), "a dog", 7, None, {"steps": "20", "scene.count": "500"})
    run = arguments.generate(form.words()).run
    assert (run.prompt, run.negative, run.seed, run.steps, run.views) == ("a cat", "a dog", 7, 20, 4)
    assert type(run.objective).__name__ == "CSD" and run == form.config()


def test_a_run_is_asked_again_with_the_form_it_came_from(actions: Actions) -> None:
    form = Form("a cat", Choice("draft", "mini", "csd", "linear", "splats"), "a dog", 7, None, {"steps": "20"})
    id = actions.generate(form, "ann")
    assert actions.asked(id) == form


def test_a_run_of_the_command_line_is_asked_again_too(actions: Actions) -> None:
    said = ["a cat", "--objective", "csd", "--scene", "nerf", "--steps", "20", "--times", "linear", "--seed", "4"]
    config = arguments.generate([*said, "--negative", "a dog", "--limits.unit", "--scene.samples", "64"]).run
    folder = actions.jobs.store.runs / "by-hand"
    folder.mkdir()
    (folder / "run.yaml").write_text(serialization.dump(config))
    form = actions.asked("by-hand")
    assert dict(form.changed) == {"steps": "20", "limits.unit": "True", "scene.samples": "64"}
    assert form.config() == config
    (folder / "run.yaml").write_text(serialization.dump(replace(config, prior="/a/folder")))
    with pytest.raises(ValueError, match="unknown prior"):
        actions.asked("by-hand")


@pytest.mark.parametrize("value", ["3", 2.5, True, float("nan"), float("inf"), None])
def test_a_whole_number_is_one(value: object) -> None:
    with pytest.raises(ValueError, match="expected a whole number"):
        whole("seed", value)


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (Form(""), "the prompt is empty"),
        (Form(" \n "), "the prompt is empty"),
        (Form("a cat " * PROMPT), f"at most {PROMPT}"),
        (Form("a tedy baer"), "nearest: "),
        (Form("a cat", negative="x" * 400), "negative prompt"),
        (Form("a cat", seed=-1), "seed is -1"),
        (Form("a cat", changed={"scene.count": "9000"}), "count is 9000"),
        (Form("a cat", minutes=0.0), "time budget"),
        (Form("a cat", minutes=5.0, changed={"steps": "20"}), "clear one"),
    ],
)
def test_a_form_that_does_not_fit_makes_no_run(actions: Actions, form: Form, words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        actions.generate(form, "ann")
    assert "\n" not in str(refused.value) and actions.jobs.list() == []


def test_words_that_are_passed_over_are_told() -> None:
    assert "sparkling" in remark("a sparkling cat") and remark("a cat") == ""


def test_a_prompt_is_no_flag(actions: Actions) -> None:
    for prompt in ("--help cat", "-x cat", "--out=/tmp cat"):
        with pytest.raises(ValueError):
            actions.generate(Form(prompt), "ann")


@pytest.mark.parametrize(
    ("names", "seeds", "minutes", "words"),
    [
        ([], 1, 1.0, "no objective"),
        (["sds", "os:system"], 1, 1.0, "unknown objective"),
        (["sds"], 0, 1.0, "seeds"),
        (["sds"] * 7, 10, 1.0, "up to 60"),
        (["sds"], 1, 0.0, "minutes"),
    ],
)
def test_a_comparison_that_does_not_fit_is_refused(
    actions: Actions, names: list[str], seeds: int, minutes: float, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        actions.compare("a cat", names, seeds, minutes, Choice(), "ann")


def test_painting_says_nothing_of_scene_and_times(actions: Actions) -> None:
    finished(actions.jobs.store.runs / "done")
    form = Form("", Choice(objective="csd"), "a dog", 3, None, {"steps": "5", "limits.unit": "True"})
    job = actions.jobs.get(actions.refine("done", form, "ann"))
    said = list(job.words)
    assert said[0] == "done" and "--limits.unit" in said and "--negative=a dog" in said
    assert not [word for word in said if word.startswith(("--scene", "--times"))]
    run = arguments.refine(
        [str(actions.jobs.store.runs / "done"), *said[1:]], lambda folder, trust: RunConfig("a cat")
    ).run
    assert (run.steps, run.seed, run.limits.unit, run.negative) == (5, 3, True, "a dog")


def test_an_edit_keeps_prior_and_scene_of_its_run(actions: Actions) -> None:
    folder = actions.jobs.store.runs / "done"
    finished(folder)
    with pytest.raises(ValueError, match="nothing to start from"):
        actions.edit("done", Form("a dog"), "ann")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "step-0000100.safetensors").write_bytes(b"")
    form = Form("a dog", Choice(prior="toy", scene="nerf"), "", 3, None, {"steps": "5", "scene.resolution": "16"})
    for objective, expected in (("", "DDS"), ("csd", "CSD")):
        asked = replace(form, choice=replace(form.choice, objective=objective))
        job = actions.jobs.get(actions.edit("done", asked, "ann"))
        assert (job.command, job.prompt, job.words[0]) == ("edit", "a dog", "done")
        run = arguments.edit(
            [str(folder), *job.words[1:]], lambda folder, trust: serialization.read(folder / "run.yaml")
        ).run
        assert (run.prompt, run.steps, run.seed, run.prior) == ("a dog", 5, 3, "mini")
        assert type(run.objective).__name__ == expected and run.scene == arguments.generate(["a cat"]).run.scene
    with pytest.raises(ValueError, match="prompt is empty"):
        actions.edit("done", Form(" "), "ann")
    with pytest.raises(ValueError, match="dragon"):
        actions.edit("done", Form("a dragon"), "ann")


# --- estimates ---


def test_an_estimate_comes_from_runs_like_it(actions: Actions) -> None:
    runs = actions.jobs.store.runs
    assert "first steps will tell" in actions.estimate(Form("a cat"))
    finished(runs / "one", 100, 7.0)
    finished(runs / "two", 100, 9.0)
    assert "800 steps at 80 ms, from 2 runs like it" in actions.estimate(Form("a cat"))
    assert "first steps will tell" in actions.estimate(Form("a cat", Choice(objective="vsd")))
    said = actions.budgeted(Form("a cat", minutes=2.0))
    steps = int(said[said.index("--steps") + 1])
    known = actions.known(Form("a cat"))
    assert known is not None and known.around + steps * known.step <= 120 < known.around + (steps + 1) * known.step


def test_a_run_of_another_machine_says_nothing(actions: Actions, tmp_path: Path) -> None:
    folder = actions.jobs.store.runs / "other"
    finished(folder)
    report = json.loads((folder / "report.json").read_text())
    (folder / "report.json").write_text(json.dumps({**report, "versions": {"machine": "abacus"}}))
    assert estimate.kept(arguments.generate(["a cat"]).run, [folder]) is None


# --- exports ---


def test_exports_are_known_before_they_are_made(actions: Actions) -> None:
    folder = actions.jobs.store.runs / "done"
    finished(folder)
    rows = {row["name"]: row for row in actions.exported("done")}
    assert rows["asset.glb"]["state"] == "ready" and rows["asset.glb"]["path"] == str(folder / "asset.glb")
    assert rows["blender"]["state"] == "absent" and rows["blender"]["path"] == "" and "spz" not in rows
    with pytest.raises(ValueError, match="no export called"):
        actions.export("done", "../../etc")


def test_an_export_older_than_its_asset_counts_for_nothing(actions: Actions) -> None:
    folder, exports = actions.jobs.store.runs / "done", Exports(actions.jobs.store)
    finished(folder)
    (folder / FOLDER).mkdir()
    (folder / "web.glb").write_bytes(b"1234")
    note = {"name": "web", "about": "", "state": "ready", "file": "web.glb", "bytes": 4, "wrong": [], "checked": True}
    (folder / FOLDER / "web.json").write_text(json.dumps(note))
    assert next(row for row in exports.rows("done") if row.name == "web").state == "ready"
    later = (folder / FOLDER / "web.json").stat().st_mtime + 5
    import os

    os.utime(folder / "asset.glb", (later, later))
    assert next(row for row in exports.rows("done") if row.name == "web").state == "absent"


# --- words ---


def test_a_run_is_told_from_its_beginning_to_its_end(actions: Actions) -> None:
    id = actions.jobs.submit("generate", ("quick cat",), "ann").id
    over(actions.jobs, id)
    told = actions.look(id)
    assert (told["badge"], told["share"], told["asset"], told["cancel"]) == ("Finished", 1.0, "asset.glb", False)
    assert "3 steps" in told["line"] and json.dumps(told)


@pytest.mark.parametrize(
    ("job", "progress", "words"),
    [
        (Job("a", "generate"), Progress(place=3), "Place 3 in the queue."),
        (Job("a", "generate"), Progress(place=1), "Next in the queue."),
        (Job("a", "generate", state="running"), Progress(), "Opening the prior"),
        (Job("a", "generate", state="running"), Progress(5, 9, 0.5, 65.0), "Step 5 of 9 · 1:05 min left."),
        (Job("a", "generate", state="running"), Progress(9, 9), "Making the mesh"),
        (Job("a", "generate", state="running", stopping=True), Progress(5, 9), "Exporting what there is."),
        (Job("a", "generate", state="stopped"), Progress(5, 9), "What there was is kept."),
        (Job("a", "compare", state="running"), Progress(1, 3), "1 of 3 runs done"),
    ],
)
def test_every_state_has_a_line(job: Job, progress: Progress, words: str, tmp_path: Path) -> None:
    assert words in line(job, progress)
    assert json.dumps(card(job, progress, tmp_path))


def test_the_table_of_a_comparison_has_a_row_for_each_objective() -> None:
    rows = table({"standings": {"sds": {"recognised": {"mean": 7.5, "spread": 0.5}}, "csd": {}}})
    assert [row[0] for row in rows] == ["Objective", "sds", "csd"] and "7.5 ± 0.5" in rows[1]
    assert table({}) == []


def test_the_gallery_is_told_a_page_at_a_time(actions: Actions) -> None:
    for number in range(30):
        finished(actions.jobs.store.runs / f"run-{number}")
    first, second = actions.runs(), actions.runs(page=1)
    assert (first["total"], first["pages"], len(first["runs"]), len(second["runs"])) == (30, 2, 24, 6)
    assert actions.runs("run-29")["total"] == 1 and actions.runs(page=99)["page"] == 1
