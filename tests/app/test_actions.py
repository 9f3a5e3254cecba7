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
from app.forms.form import MAX_PROMPT_CHARS, Form, parse_int, prompt_warning
from app.jobs.job import Job, Progress
from app.jobs.queue import Jobs
from app.presenters import comparison_table, run_card, status_line
from configs import serialization
from configs.run import RunConfig
from sds3d.cli import arguments
from sds3d.runs.provenance import versions
from tests.support.app.polling import STUB_COMMAND, cancel_all, wait_until_over


@pytest.fixture
def actions(tmp_path: Path) -> Iterator[Actions]:
    jobs = Jobs(tmp_path / "runs", command=STUB_COMMAND)
    yield Actions(jobs)
    cancel_all(jobs)


def write_finished_run(folder: Path, steps: int = 100, seconds: float = 7.0) -> None:
    """A run of the command line, as far as the page looks at it."""
    folder.mkdir(parents=True)
    (folder / "run.yaml").write_text(serialization.to_yaml(replace(arguments.generate(["a cat"]).config, steps=steps)))
    (folder / "asset.glb").write_bytes(b"glTF")
    times = {"optimisation": seconds, "mesh": 4.0, "pictures_and_checks": 1.0}
    report = {"prompt": "a cat", "steps": steps, "seconds": times, "versions": versions()}
    (folder / "report.json").write_text(json.dumps(report))


# --- forms ---


def test_form_becomes_command_line_args() -> None:
    form = Form("  a   cat ", Choice(objective="csd"), "a dog", 7, None, {"steps": "20", "scene.init_count": "500"})
    run = arguments.generate(form.args()).config
    assert (run.prompt, run.negative_prompt, run.seed, run.steps, run.batch_size) == ("a cat", "a dog", 7, 20, 4)
    assert type(run.objective).__name__ == "CSD" and run == form.config()


def test_form_is_restored_from_a_job(actions: Actions) -> None:
    form = Form("a cat", Choice("draft", "mini", "csd", "linear", "splats"), "a dog", 7, None, {"steps": "20"})
    id = actions.generate(form, "ann")
    assert actions.form_for(id) == form


def test_form_is_restored_from_an_external_run(actions: Actions) -> None:
    text = ["a cat", "--objective", "csd", "--scene", "nerf", "--steps", "20", "--timesteps", "linear", "--seed", "4"]
    config = arguments.generate(
        [*text, "--negative-prompt", "a dog", "--clipping.normalize", "--scene.samples-per-diameter", "64"]
    ).config
    folder = actions.jobs.store.runs / "by-hand"
    folder.mkdir()
    (folder / "run.yaml").write_text(serialization.to_yaml(config))
    form = actions.form_for("by-hand")
    assert dict(form.overrides) == {"steps": "20", "clipping.normalize": "True", "scene.samples_per_diameter": "64"}
    assert form.config() == config
    (folder / "run.yaml").write_text(serialization.to_yaml(replace(config, prior="/a/folder")))
    with pytest.raises(ValueError, match="unknown prior"):
        actions.form_for("by-hand")


@pytest.mark.parametrize("value", ["3", 2.5, True, float("nan"), float("inf"), None])
def test_rejects_fractional_integers(value: object) -> None:
    with pytest.raises(ValueError, match="expected a whole number"):
        parse_int("seed", value)


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (Form(""), "the prompt is empty"),
        (Form(" \n "), "the prompt is empty"),
        (Form("a cat " * MAX_PROMPT_CHARS), f"at most {MAX_PROMPT_CHARS}"),
        (Form("a tedy baer"), "nearest: "),
        (Form("a cat", negative="x" * 400), "negative prompt"),
        (Form("a cat", seed=-1), "seed is -1"),
        (Form("a cat", overrides={"scene.init_count": "9000"}), "count is 9000"),
        (Form("a cat", minutes=0.0), "time budget"),
        (Form("a cat", minutes=5.0, overrides={"steps": "20"}), "clear one"),
    ],
)
def test_invalid_form_submits_no_run(actions: Actions, form: Form, words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        actions.generate(form, "ann")
    assert "\n" not in str(refused.value) and actions.jobs.list() == []


def test_unknown_words_are_reported() -> None:
    assert "sparkling" in prompt_warning("a sparkling cat") and prompt_warning("a cat") == ""


def test_rejects_prompts_that_look_like_flags(actions: Actions) -> None:
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
def test_rejects_invalid_comparisons(
    actions: Actions, names: list[str], seeds: int, minutes: float, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        actions.compare("a cat", names, seeds, minutes, Choice(), "ann")


def test_texture_omits_scene_and_timesteps(actions: Actions) -> None:
    write_finished_run(actions.jobs.store.runs / "done")
    form = Form("", Choice(objective="csd"), "a dog", 3, None, {"steps": "5", "clipping.normalize": "True"})
    job = actions.jobs.get(actions.refine("done", form, "ann"))
    text = list(job.args)
    assert text[0] == "done" and "--clipping.normalize" in text and "--negative-prompt=a dog" in text
    assert not [word for word in text if word.startswith(("--scene", "--timesteps"))]
    run = arguments.refine(
        [str(actions.jobs.store.runs / "done"), *text[1:]], lambda folder, trust: RunConfig("a cat")
    ).config
    assert (run.steps, run.seed, run.clipping.normalize, run.negative_prompt) == (5, 3, True, "a dog")


def test_edit_keeps_prior_and_scene(actions: Actions) -> None:
    folder = actions.jobs.store.runs / "done"
    write_finished_run(folder)
    with pytest.raises(ValueError, match="nothing to start from"):
        actions.edit("done", Form("a dog"), "ann")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "step-0000100.safetensors").write_bytes(b"")
    form = Form("a dog", Choice(prior="toy", scene="nerf"), "", 3, None, {"steps": "5", "scene.resolution": "16"})
    for objective, expected in (("", "DDS"), ("csd", "CSD")):
        calls = replace(form, choice=replace(form.choice, objective=objective))
        job = actions.jobs.get(actions.edit("done", calls, "ann"))
        assert (job.command, job.prompt, job.args[0]) == ("edit", "a dog", "done")
        run = arguments.edit(
            [str(folder), *job.args[1:]], lambda folder, trust: serialization.load_config(folder / "run.yaml")
        ).config
        assert (run.prompt, run.steps, run.seed, run.prior) == ("a dog", 5, 3, "mini")
        assert type(run.objective).__name__ == expected and run.scene == arguments.generate(["a cat"]).config.scene
    with pytest.raises(ValueError, match="prompt is empty"):
        actions.edit("done", Form(" "), "ann")
    with pytest.raises(ValueError, match="dragon"):
        actions.edit("done", Form("a dragon"), "ann")


# --- estimates ---


def test_estimate_uses_similar_runs(actions: Actions) -> None:
    runs = actions.jobs.store.runs
    assert "first steps will tell" in actions.estimate(Form("a cat"))
    write_finished_run(runs / "one", 100, 7.0)
    write_finished_run(runs / "two", 100, 9.0)
    assert "800 steps at 80 ms, from 2 runs like it" in actions.estimate(Form("a cat"))
    assert "first steps will tell" in actions.estimate(Form("a cat", Choice(objective="vsd")))
    text = actions.args_with_budget(Form("a cat", minutes=2.0))
    steps = int(text[text.index("--steps") + 1])
    known = actions.cached_estimate(Form("a cat"))
    assert (
        known is not None
        and known.overhead_s + steps * known.step_s <= 120 < known.overhead_s + (steps + 1) * known.step_s
    )


def test_estimate_ignores_other_machines(actions: Actions, tmp_path: Path) -> None:
    folder = actions.jobs.store.runs / "other"
    write_finished_run(folder)
    report = json.loads((folder / "report.json").read_text())
    (folder / "report.json").write_text(json.dumps({**report, "versions": {"machine": "abacus"}}))
    assert estimate.from_history(arguments.generate(["a cat"]).config, [folder]) is None


# --- exports ---


def test_available_exports_are_listed(actions: Actions) -> None:
    folder = actions.jobs.store.runs / "done"
    write_finished_run(folder)
    rows = {row["name"]: row for row in actions.export_rows("done")}
    assert rows["asset.glb"]["state"] == "ready" and rows["asset.glb"]["path"] == str(folder / "asset.glb")
    assert rows["blender"]["state"] == "absent" and rows["blender"]["path"] == "" and "spz" not in rows
    with pytest.raises(ValueError, match="no export called"):
        actions.export("done", "../../etc")


def test_stale_exports_are_ignored(actions: Actions) -> None:
    folder, exports = actions.jobs.store.runs / "done", Exports(actions.jobs.store)
    write_finished_run(folder)
    (folder / FOLDER).mkdir()
    (folder / "web.glb").write_bytes(b"1234")
    note = {
        "name": "web",
        "description": "",
        "state": "ready",
        "file": "web.glb",
        "bytes": 4,
        "problems": [],
        "checked": True,
    }
    (folder / FOLDER / "web.json").write_text(json.dumps(note))
    assert next(row for row in exports.rows("done") if row.name == "web").state == "ready"
    later = (folder / FOLDER / "web.json").stat().st_mtime + 5
    import os

    os.utime(folder / "asset.glb", (later, later))
    assert next(row for row in exports.rows("done") if row.name == "web").state == "absent"


# --- words ---


def test_run_card_over_a_whole_run(actions: Actions) -> None:
    id = actions.jobs.submit("generate", ("quick cat",), "ann").id
    wait_until_over(actions.jobs, id)
    result = actions.card(id)
    assert (result["badge"], result["share"], result["asset"], result["cancel"]) == (
        "Finished",
        1.0,
        "asset.glb",
        False,
    )
    assert "3 steps" in result["line"] and json.dumps(result)


@pytest.mark.parametrize(
    ("job", "progress", "words"),
    [
        (Job("a", "generate"), Progress(queue_position=3), "Place 3 in the queue."),
        (Job("a", "generate"), Progress(queue_position=1), "Next in the queue."),
        (Job("a", "generate", state="running"), Progress(), "Opening the prior"),
        (Job("a", "generate", state="running"), Progress(5, 9, 0.5, 65.0), "Step 5 of 9 · 1:05 min left."),
        (Job("a", "generate", state="running"), Progress(9, 9), "Making the mesh"),
        (Job("a", "generate", state="running", stopping=True), Progress(5, 9), "Exporting what there is."),
        (Job("a", "generate", state="stopped"), Progress(5, 9), "What there was is kept."),
        (Job("a", "compare", state="running"), Progress(1, 3), "1 of 3 runs done"),
    ],
)
def test_every_state_has_a_status_line(job: Job, progress: Progress, words: str, tmp_path: Path) -> None:
    assert words in status_line(job, progress)
    assert json.dumps(run_card(job, progress, tmp_path))


def test_comparison_table_has_a_row_per_objective() -> None:
    rows = comparison_table({"standings": {"sds": {"recognised": {"mean": 7.5, "spread": 0.5}}, "csd": {}}})
    assert [row[0] for row in rows] == ["Objective", "sds", "csd"] and "7.5 ± 0.5" in rows[1]
    assert comparison_table({}) == []


def test_gallery_is_paged(actions: Actions) -> None:
    for number in range(30):
        write_finished_run(actions.jobs.store.runs / f"run-{number}")
    first, second = actions.runs(), actions.runs(page=1)
    assert (first["total"], first["pages"], len(first["runs"]), len(second["runs"])) == (30, 2, 24, 6)
    assert actions.runs("run-29")["total"] == 1 and actions.runs(page=99)["page"] == 1
