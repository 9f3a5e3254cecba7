"""Every command that a GPU takes part in, on the pretended device."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from app.jobs.queue import Jobs
from sds3d.__main__ import main
from tests.support.app.polling import cancel_all, wait_until_over
from tests.support.pretend_cuda.counters import COUNTERS
from tests.support.sds3d.command_line import Captured, short_films
from tests.support.sds3d.model_runs import Folder

TEXT = (
    "--batch-size 1 --mesh-extraction.faces 300 --mesh-extraction.texture-size 32 --mesh-extraction.resolution 24 "
    "--mesh-extraction.views 3 --mesh-extraction.silhouette-size 24 "
    "--mesh-extraction.texture-render-size 32 --device cuda"
)
FINISH = TEXT.split()
SPLATS = ["--scene.init-count", "100", "--scene.cap-max", "140", "--scene.init-opacity", "0.9"]
NERF = [
    "--scene",
    "nerf",
    "--scene.resolution",
    "12",
    "--scene.resolution-end",
    "12",
    "--scene.samples-per-diameter",
    "24",
]
MESH = ["--scene", "mesh", "--scene.faces", "80", "--scene.texture-size", "16"]
ROOT = Path(__file__).parents[2]
BEAR = "a red teddy bear"


@pytest.fixture(autouse=True)
def _short() -> object:
    with short_films():
        yield


def made(words: list[str], folder: Path, prior: Path, steps: int = 2) -> Path:
    """The folder of a run that went well, by its command and the flags before those of every run."""
    given = [*words, "--prior", str(prior), "--steps", str(steps), *FINISH, "--out", str(folder)]
    assert main(given) == 0
    assert COUNTERS.launches.total() > 0
    assert (folder / "asset.glb").is_file() and main(["check", str(folder / "asset.glb")]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("scene", [SPLATS, NERF, MESH], ids=["splats", "nerf", "mesh"])
def test_generate_resume_export_and_edit(
    scene: list[str], prior_folder: Path, tmp_path: Path, capsys: Captured
) -> None:
    run = made(["generate", BEAR, *scene], tmp_path / "run", prior_folder)
    report = json.loads((run / "report.json").read_text())
    assert report["gpu_peak_memory_mb"] >= 0
    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < row["prior_seconds"] <= row["seconds"] and "gpu_peak_memory_mb" in row for row in rows)
    assert main(["resume", str(run), "--steps", "3"]) == 0
    assert main(["export", str(run), "--format", "obj", "--to", str(tmp_path / "other.obj")]) == 0
    edited = ["edit", str(run), "a blue teddy bear", "--objective", "dds", "--steps", "1", "--device", "cuda"]
    assert main([*edited, "--out", str(tmp_path / "edited")]) == 0, capsys.readouterr().err


def test_plan_tells_time_and_memory_of_the_gpu(prior_folder: Path, capsys: Captured) -> None:
    assert main(["plan", BEAR, "--prior", str(prior_folder), *SPLATS, *FINISH, "--json"]) == 0
    facts = [json.loads(row) for row in capsys.readouterr().out.splitlines()][-1]
    assert 0 < facts["prior_seconds"] <= facts["step_seconds"]
    assert 0 < facts["allocated_mb"] <= facts["peak_mb"] < facts["device_mb"]


@pytest.mark.slow
def test_batch(prior_folder: Path, tmp_path: Path) -> None:
    """Runs in threads of their own that share the passes of the prior."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red teddy bear\na blue mug\n")
    given = ["batch", str(prompts), "--prior", str(prior_folder), "--steps", "2", *SPLATS, *FINISH]
    assert main([*given, "--out", str(tmp_path / "runs")]) == 0
    assert all((tmp_path / "runs" / name / "asset.glb").is_file() for name in ("001", "002"))


@pytest.mark.slow
def test_compare(prior_folder: Path, tmp_path: Path) -> None:
    given = ["compare", BEAR, "--objectives", "sds,csd", "--seeds", "1", "--prior", str(prior_folder), "--steps", "1"]
    assert main([*given, "--device", "cuda:1", "--out", str(tmp_path / "compared")]) == 0


@pytest.mark.slow
def test_texture(prior_folder: Path, tmp_path: Path) -> None:
    run = made(["generate", BEAR, *SPLATS], tmp_path / "run", prior_folder)
    given = ["texture", str(run / "asset.glb"), BEAR, "--scene.texture-size", "16"]
    made(given, tmp_path / "painted", prior_folder)


def test_doctor_tries_what_draws_on_the_gpu(capsys: Captured) -> None:
    main(["doctor", "--json"])
    findings = {row["name"]: row for row in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["cuda"]["state"] == "ok" and "compiled" in findings["gsplat"]["detail"]


@pytest.mark.slow
def test_doctor_selftest(capsys: Captured) -> None:
    main(["doctor", "--selftest", "--json"])
    findings = {row["name"]: row for row in json.loads(capsys.readouterr().out)["findings"]}
    for name in ("splats", "voxels", "hash tables", "mesh", "a step"):
        assert findings[f"{name} on cuda"]["state"] == "ok", findings[f"{name} on cuda"]


def test_a_model_of_others_by_the_command_line(folder: Folder, tmp_path: Path) -> None:
    critic = ["--objective", "vsd", "--critic.rank", "1"]
    given = ["generate", BEAR, *SPLATS, "--prior-options.image-size", "16", "--vram", "6", *critic]
    made(given, tmp_path / "painted", folder("sd"))


@pytest.mark.slow
def test_jobs_of_the_page(prior_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job is the command line in a process of its own."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    jobs = Jobs(tmp_path / "runs", command=(sys.executable, "-m", "tests.support.pretend_cuda"))
    job = jobs.submit("generate", ("a cat", "--steps", "2", *SPLATS, *FINISH), "ann")
    try:
        assert wait_until_over(jobs, job.id).state == "done", jobs.get(job.id).reason
        rows = (jobs.store.folder(job.id) / "metrics.jsonl").read_text().splitlines()
        assert all("gpu_memory_mb" in json.loads(row) for row in rows)
    finally:
        cancel_all(jobs)
