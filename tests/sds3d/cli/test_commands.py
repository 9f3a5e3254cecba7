"""The command line: a run to its asset, stopped, taken up again; whatever goes wrong on the way ends in one line."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torch import Tensor

from sds3d.__main__ import main
from sds3d.runs.run_directory import RunDirectory
from sds3d.training import loop as generate_module
from sds3d.training.trainer import Trainer, TrainingFailed
from tests.support.sds3d.command_line import Captured, refused, short_films

FAINT = ("--scene.init-opacity", "0.03", "--scene.init-count", "60", "--scene.init-radius", "0.9")
"""Flags of a scene that has no silhouette."""


@pytest.fixture(scope="module", autouse=True)
def _short_films() -> Iterator[None]:
    with short_films():
        yield


# --- what goes well ---


def test_a_run_leaves_all_its_files(finished: Path) -> None:
    files = {path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()}
    assert files == {
        *("run.yaml", "metrics.jsonl", "report.json", "splats.ply", "asset.glb", "turntable.mp4", "contact.png"),
        *("previews/step-000003.png", "checkpoints/step-0000003.safetensors", "checkpoints/step-0000003.json"),
    }
    assert all((finished / name).stat().st_size > 0 for name in files)


def test_json_mode_prints_json_lines_alone(finished: Path) -> None:
    rows = [json.loads(line) for line in (finished.parent / "told.txt").read_text().splitlines()]
    assert [row["step"] for row in rows if "step" in row] == [1, 2, 3]
    assert all(row["seconds"] > 0 and row["gradient"] > 0 for row in rows if "step" in row)
    assert [row["asset"] for row in rows if "asset" in row] == [str(finished / "asset.glb")]


def test_the_report_holds_what_was_promised(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    assert report["prompt"] == "a red teddy bear" and report["steps"] == 3
    assert set(report["seconds"]) == {"optimisation", "mesh", "pictures_and_checks"}
    assert 0 < report["mesh_against_scene"]["iou"] <= 1
    assert 0 < report["mesh"]["faces"] <= 500 and report["mesh"]["texture"] == 64
    assert {"torch", "numpy", "sds3d", "kernels"} <= set(report["versions"])
    assert report["licences"] and report["peak_memory_mb"] > 0 and "judge" in report


def test_metrics_have_a_line_a_step(finished: Path) -> None:
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]


def test_quiet_prints_nothing_and_the_seed_decides_every_byte(
    finished: Path, small: list[str], tmp_path: Path, capfd: Captured
) -> None:
    assert main(["generate", "a red teddy bear", *small, "--out", str(tmp_path / "again"), "--quiet"]) == 0
    assert capfd.readouterr() == ("", "")
    for name in ("splats.ply", "asset.glb", "contact.png", "previews/step-000003.png"):
        assert (tmp_path / "again" / name).read_bytes() == (finished / name).read_bytes(), name


def test_a_finished_run_goes_on_for_longer(copy: Path, capsys: Captured) -> None:
    assert main(["resume", str(copy), "--steps", "5"]) == 0
    told = capsys.readouterr().out
    assert "going on at step 3 of 5" in told
    assert [json.loads(line)["step"] for line in (copy / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3, 4, 5]
    assert json.loads((copy / "report.json").read_text())["steps"] == 5
    assert RunDirectory.open(copy).config().steps == 5


@pytest.mark.parametrize("kind", ["glb", "obj", "ply"])
def test_meshes_are_exported_anew(copy: Path, tmp_path: Path, kind: str, capsys: Captured) -> None:
    target = tmp_path / f"bear.{kind}"
    assert main(["export", str(copy), "--format", kind, "--to", str(target), "--faces", "200", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["file"] == str(target) and target.stat().st_size > 0


def test_an_export_is_the_asset_itself(copy: Path) -> None:
    before = (copy / "asset.glb").read_bytes()
    assert main(["export", str(copy), "--quiet"]) == 0
    assert (copy / "asset.glb").read_bytes() == before


def test_unknown_words_are_told_and_passed_over(
    small: list[str], tmp_path: Path, capsys: Captured, no_finish: None
) -> None:
    assert main(["generate", "a red teddy bear with a sword", *small, "--out", str(tmp_path / "run")]) == 0
    assert "passed over: sword" in capsys.readouterr().out


@pytest.mark.usefixtures("no_finish")
def test_folders_get_names_from_prompts(small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["generate", "A Red/../Teddy Bear! \N{TEDDY BEAR}", *small, "--quiet"]) == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["a-red-teddy-bear", "a-red-teddy-bear-2"]


# --- stopping ---


@pytest.fixture
def no_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out mesh, film and pictures."""
    monkeypatch.setattr(
        "sds3d.cli.commands.finalize", lambda run, record, console, seconds: record.folder / "asset.glb"
    )


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[Trainer], object]], None]:
    """Has something happen while a step is done."""

    def arrange(number: int, happen: Callable[[Trainer], object]) -> None:
        plain = Trainer._step

        def step(run: Trainer) -> object:
            if run.step + 1 == number:
                happen(run)
            return plain(run)

        monkeypatch.setattr(Trainer, "_step", step)

    return arrange


Arrange = Callable[[int, Callable[[Trainer], object]], None]


def test_an_interrupt_saves_exports_and_says_how_to_go_on(
    small: list[str], tmp_path: Path, capsys: Captured, at_step: Arrange, finished: Path
) -> None:
    folder = tmp_path / "run"
    before = signal.getsignal(signal.SIGINT)
    at_step(2, lambda run: os.kill(os.getpid(), signal.SIGINT))
    assert main(["generate", "a red teddy bear", *small, "--out", str(folder)]) == 130
    told = capsys.readouterr().out
    assert "stopping at step 2" in told and told.rstrip().endswith(f"go on with: sds3d resume {folder}")
    assert (folder / "asset.glb").stat().st_size > 0
    assert RunDirectory.open(folder).latest()[0]["done"] == 2
    assert signal.getsignal(signal.SIGINT) == before
    # The hint is true, and the end is that of a run that was never stopped.
    assert main(["resume", str(folder), "--quiet"]) == 0
    for name in ("splats.ply", "asset.glb"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.usefixtures("no_finish")
def test_a_request_to_terminate_saves_too(small: list[str], tmp_path: Path, at_step: Arrange) -> None:
    at_step(2, lambda run: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["generate", "a red teddy bear", *small, "--quiet", "--out", str(tmp_path / "run")]) == 130
    assert RunDirectory.open(tmp_path / "run").latest()[0]["done"] == 2


def test_a_stop_without_a_mesh_still_says_how_to_go_on(
    small: list[str], tmp_path: Path, capsys: Captured, at_step: Arrange
) -> None:
    at_step(1, lambda run: os.kill(os.getpid(), signal.SIGINT))
    faint = [*small, *FAINT, "--out", str(tmp_path / "run")]
    assert main(["generate", "a red teddy bear", *faint]) == 130
    told = capsys.readouterr().out
    assert "no asset yet: the scene is too faint" in told and f"sds3d resume {tmp_path / 'run'}" in told
    assert not (tmp_path / "run" / "asset.glb").exists()
    assert RunDirectory.open(tmp_path / "run").latest()[0]["done"] == 1


def test_a_second_interrupt_leaves_at_once(
    small: list[str], tmp_path: Path, capsys: Captured, at_step: Arrange, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(2, lambda run: os.kill(os.getpid(), signal.SIGINT))
    monkeypatch.setattr("sds3d.cli.commands.finalize", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    assert main(["generate", "a red teddy bear", *small, "--out", str(tmp_path / "run")]) == 130
    assert "sds3d resume" in capsys.readouterr().out
    assert RunDirectory.open(tmp_path / "run").latest()[0]["done"] == 2


# --- what goes wrong on the way ---


def test_a_scene_that_goes_wrong_ends_in_one_line(
    small: list[str], tmp_path: Path, capsys: Captured, at_step: Arrange
) -> None:
    def explode(run: Trainer) -> None:
        raise TrainingFailed("step 2: the splats have exploded")

    at_step(2, explode)
    line = refused(["generate", "a red teddy bear", *small, "--quiet", "--out", str(tmp_path / "run")], capsys)
    assert line.startswith("step 2: the splats have exploded; another --seed")
    assert not (tmp_path / "run" / "asset.glb").exists()


def test_an_empty_scene_leaves_no_asset(small: list[str], tmp_path: Path, capsys: Captured) -> None:
    faint = [*small, *FAINT, "--quiet", "--out", str(tmp_path / "run")]
    assert "too faint for a mesh" in refused(["generate", "a red teddy bear", *faint], capsys)
    assert not (tmp_path / "run" / "asset.glb").exists()


@pytest.mark.usefixtures("no_finish")
def test_a_full_disk_in_passing_does_not_end_the_run(
    small: list[str], tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = RunDirectory.checkpoint

    def full(record: RunDirectory, step: int, state: dict[str, Tensor]) -> None:
        if step == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(record, step, state)

    monkeypatch.setattr(RunDirectory, "checkpoint", full)
    monkeypatch.setattr(generate_module, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(generate_module, "FIRST_CHECKPOINT_SECONDS", 0.0)
    assert main(["generate", "a red teddy bear", *small, "--out", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().out
    assert "no checkpoint at step 2" in told and "the one before is kept" in told
    assert RunDirectory.open(tmp_path / "run").latest()[0]["done"] == 3


def test_a_disk_without_room_for_checkpoints_is_told_in_the_report(
    small: list[str], tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(record: RunDirectory, step: int, state: dict[str, Tensor]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunDirectory, "checkpoint", full)
    words = ["generate", "a red teddy bear", *small, "--quiet", "--out", str(tmp_path / "run")]
    assert main(words) == 0 and capsys.readouterr() == ("", "")
    assert json.loads((tmp_path / "run" / "report.json").read_text())["checkpoints"] == {}


@pytest.mark.usefixtures("no_finish")
def test_a_damaged_checkpoint_is_told_and_passed_over(copy: Path, capsys: Captured) -> None:
    file = copy / "checkpoints" / "step-0000003.safetensors"
    older = copy / "checkpoints" / "step-0000002.safetensors"
    for ending in (".safetensors", ".json"):
        shutil.copyfile(file.with_suffix(ending), older.with_suffix(ending))
    file.write_bytes(file.read_bytes()[:100])
    assert main(["resume", str(copy)]) == 0
    assert "step-0000003.safetensors is damaged; taking the one before" in capsys.readouterr().out


def test_no_whole_checkpoint_ends_in_one_line(copy: Path, capsys: Captured) -> None:
    for file in (copy / "checkpoints").glob("*.safetensors"):
        file.write_bytes(b"\x00" * 100)
    for command in ("resume", "export"):
        assert "is whole: step-0000003.safetensors is damaged" in refused([command, str(copy)], capsys)
    shutil.rmtree(copy / "checkpoints")
    assert f"has no checkpoint yet; begin it anew with: sds3d resume {copy}" in refused(["export", str(copy)], capsys)
