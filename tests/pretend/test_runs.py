"""Whole runs on the pretended device by the command line: nothing beside the run ends it, and assets are the CPU's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sds3d.__main__ import main
from sds3d.runs.result import Result
from sds3d.runs.run_directory import RunDirectory
from sds3d.training import previews
from tests.support.sds3d.command_line import short_films
from tests.support.sds3d.four_views import shown

TEXT = (
    "--steps 3 --batch-size 1 --scene.init-count 100 --scene.cap-max 140 --scene.init-opacity 0.9 "
    "--mesh-extraction.faces 300 --mesh-extraction.texture-size 32 --mesh-extraction.resolution 24 "
    "--mesh-extraction.views 3 --mesh-extraction.silhouette-size 24 --mesh-extraction.texture-render-size 32"
)
SMALL = TEXT.split()
Captured = pytest.CaptureFixture[str]


def generated(folder: Path, prior: Path, device: str, *more: str) -> Path:
    """The folder of a run by the command line that went well."""
    command = ["generate", "a red teddy bear", "--prior", str(prior), "--device", device, "--out", str(folder)]
    with short_films():
        assert main([*command, *SMALL, *more]) == 0
    return folder


def result_of(folder: Path) -> Result:
    record = RunDirectory.open(folder)
    return Result.from_state(record.latest()[0], record.config())


def test_a_run_ends_in_the_asset_of_the_cpu(prior_folder: Path, tmp_path: Path, capsys: Captured) -> None:
    """With previews, counts of fronts and the judge on the way, in half precision."""
    made = {name: generated(tmp_path / name, prior_folder, name) for name in ("cpu", "cuda")}
    said = capsys.readouterr().out
    assert "no preview" not in said and "no count" not in said and "no verdict" not in said
    reports = {name: json.loads((folder / "report.json").read_text()) for name, folder in made.items()}
    assert reports["cuda"]["judge"]["subject"] == reports["cpu"]["judge"]["subject"] == "teddy bear"
    assert (made["cuda"] / "previews" / "step-000003.png").is_file()
    near, far = (shown(result_of(made[name]).scene) for name in ("cpu", "cuda"))
    assert float((near - far).abs().mean()) < 1e-2
    assert main(["check", str(made["cuda"] / "asset.glb")]) == 0


def test_what_only_looks_never_ends_a_run(
    prior_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    errors = {"render": torch.OutOfMemoryError("the GPU is full"), "fronts": RuntimeError("Input type (Half)")}

    def failing(error: Exception) -> Callable[..., None]:
        def fail(*_: object) -> None:
            raise error

        return fail

    for name, error in errors.items():
        monkeypatch.setattr(previews.Previewer, name, failing(error))
    monkeypatch.setattr("sds3d.training.finalize.evaluate_scene", failing(RuntimeError("no kernel image")))
    folder = generated(tmp_path / "run", prior_folder, "cpu")
    said = capsys.readouterr().out
    assert all(str(error) in said for error in errors.values())
    assert json.loads((folder / "report.json").read_text())["judge"] is None
