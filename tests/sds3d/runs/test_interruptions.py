"""Killed runs, full disks and folders of strangers: nothing is lost, and no file decides which code runs."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch import Tensor

from sds3d.__main__ import main
from sds3d.runs.run_directory import RunDirectory
from sds3d.training import loop as generate_module
from tests.support.sds3d.command_line import Captured, flags, refused

EVIL = "raise SystemExit('imported')\n"


def files_of(folder: Path) -> dict[str, bytes]:
    """What a run has made, without times."""
    return {name: (folder / name).read_bytes() for name in ("splats.ply",)}


def start(words: list[str]) -> subprocess.Popen[bytes]:
    """A command in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sds3d", *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)


def advised(words: list[str], folder: Path) -> list[str]:
    """The command that is advised to somebody whose run was killed: resume where there is a run.yaml, else the same."""
    return ["resume", str(folder)] if (folder / "run.yaml").is_file() else words


def undisturbed_after_kills(words: list[str], folder: Path, moments: list[float]) -> None:
    """Starts a run, kills it at each moment (seconds from its start) and lets it end."""
    for moment in moments:
        process = start(advised(words, folder))
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
    process = start(advised(words, folder))
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew_in_its_folder(
    copy: Path, finished: Path, capsys: Captured
) -> None:
    for path in (*copy.glob("checkpoints/*"), *copy.glob("previews/*")):
        path.unlink()
    (copy / "splats.ply").unlink()
    assert main(["resume", str(copy)]) == 0
    assert "begins anew" in capsys.readouterr().out
    assert files_of(copy) == files_of(finished)


def test_a_new_run_into_the_folder_of_another_says_the_command_that_works(
    copy: Path, small: list[str], capsys: Captured
) -> None:
    line = refused(["generate", "a red teddy bear", *small, "--out", str(copy)], capsys)
    assert f"sds3d resume {copy}" in line


def test_the_draft_of_a_killed_process_does_not_occupy_a_folder(tmp_path: Path, small: list[str]) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".run-x8a.yaml").write_text("prompt: a")
    assert RunDirectory.new(folder, main_config(small)).config().prompt == "a red teddy bear"


def main_config(small: list[str]):  # type: ignore[no-untyped-def]
    from sds3d.cli.arguments import generate

    return generate(["a red teddy bear", *small]).config


def test_the_first_checkpoint_comes_early() -> None:
    assert generate_module.FIRST_CHECKPOINT_SECONDS <= 10 < generate_module.CHECKPOINT_SECONDS


@pytest.mark.parametrize("moments", [[0.3], [6.0]])
def test_killed_at_a_moment_and_gone_on_with(
    moments: list[float], prior_folder: Path, tmp_path: Path, finished: Path
) -> None:
    folder = tmp_path / "run"
    undisturbed_after_kills(
        ["generate", "a red teddy bear", *flags(prior_folder), "--out", str(folder)], folder, moments
    )
    assert files_of(folder) == files_of(finished)


@pytest.mark.slow
def test_thirty_kills_at_random_moments_of_a_run_with_shipped_settings(tmp_path: Path) -> None:
    """From the first second; each run is killed once and then does what is advised."""
    words = ["generate", "a teddy bear", "--steps", "120", "--seed", "4"]
    whole = tmp_path / "whole"
    began = time.monotonic()
    undisturbed_after_kills([*words, "--out", str(whole)], whole, [])
    length = time.monotonic() - began
    chance = random.Random(0)
    for number in range(30):
        folder = tmp_path / f"run-{number}"
        undisturbed_after_kills([*words, "--out", str(folder)], folder, [chance.uniform(1.0, length)])
        assert files_of(folder) == files_of(whole), number


@pytest.mark.parametrize("command", ["resume", "export", "edit", "refine"])
def test_a_strangers_run_imports_nothing_unless_trusted(
    command: str, copy: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evilmod.py").write_text(EVIL)
    monkeypatch.chdir(tmp_path)
    text = (copy / "run.yaml").read_text()
    (copy / "run.yaml").write_text(text.replace("kind: sds", "kind: evilmod:X").replace("kind: splats", "kind: splats"))
    assert "evilmod" in (copy / "run.yaml").read_text()
    words = [command, str(copy), *(["a horse"] if command == "edit" else [])]
    assert "--trust" in refused(words, capsys)
    assert "evilmod" not in sys.modules
    with pytest.raises(SystemExit, match="imported"):
        main([*words, "--trust"])


def test_the_origin_of_a_file_imports_nothing_unless_trusted(
    copy: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evilmod.py").write_text(EVIL)
    monkeypatch.chdir(tmp_path)
    content = (copy / "splats.ply").read_bytes()
    assert b"kind: sds" in content
    # As long as before, so that nothing else in the file moves.
    (copy / "splats.ply").write_bytes(content.replace(b"kind: sds", b"kind: e:X"))
    assert "--trust" in refused(["reproduce", str(copy / "splats.ply")], capsys)


def test_a_damaged_log_does_not_block_a_run(copy: Path) -> None:
    with (copy / "metrics.jsonl").open("ab") as file:
        file.write(b'\xff\xfe{"step": 1\n')
    assert main(["resume", str(copy), "--steps", "4"]) == 0
    rows = (copy / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == 4, "the unreadable line is gone, the others are kept"


def test_a_log_that_cannot_be_written_does_not_end_a_run(copy: Path) -> None:
    (copy / "metrics.jsonl").unlink()
    (copy / "metrics.jsonl").mkdir()
    assert main(["resume", str(copy), "--steps", "4"]) == 0


@pytest.mark.parametrize("name", ["run.yaml"])
def test_bytes_that_are_no_text_are_told_with_their_file(name: str, copy: Path, capsys: Captured) -> None:
    (copy / name).write_bytes(b"\xff\xfe\xfa")
    assert str(copy / name) in refused(["resume", str(copy)], capsys)


def test_a_full_disk_at_the_last_checkpoint_still_gives_the_asset(
    small: list[str], tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(record: RunDirectory, step: int, state: dict[str, Tensor]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "x.safetensors")

    monkeypatch.setattr(RunDirectory, "checkpoint", full)
    assert main(["generate", "a red teddy bear", *small, "--out", str(tmp_path / "run")]) == 0
    assert "no checkpoint at step 3" in capsys.readouterr().out
    assert (tmp_path / "run" / "asset.glb").is_file()


def test_a_full_disk_while_the_asset_is_written_says_how_to_go_on(
    small: list[str], tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "splats.ply")

    monkeypatch.setattr("sds3d.training.finalize.write_splats", full)
    folder = tmp_path / "run"
    assert main(["generate", "a red teddy bear", *small, "--out", str(folder)]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and f"sds3d resume {folder}" in line and "splats.ply: no space left" in line
    monkeypatch.undo()
    assert main(["resume", str(folder)]) == 0 and (folder / "asset.glb").is_file()


LATE: tuple[tuple[list[str], str], ...] = (
    (["--to", "/etc/hostname/z.glb"], "/etc/hostname is a file; expected a folder"),
    (["--to", "z.obj", "--format", "glb"], "is no name for glb"),
    (["--size-m", "1e300"], "expected the longest side in metres"),
    (["--size-m", "0"], "expected the longest side in metres"),
    (["--size-m", "nan"], "expected the longest side in metres"),
    (["--quad", "--format", "obj"], "pyinstantmeshes"),
)


@pytest.mark.parametrize(("words", "line"), LATE)
def test_an_export_that_cannot_be_is_refused_before_any_work(
    words: list[str], line: str, copy: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "pyinstantmeshes" else found(name, *more)
    )
    monkeypatch.setattr(RunDirectory, "latest", lambda _: pytest.fail("the checkpoint was read"))
    assert line in refused(["export", str(copy), *words], capsys)


def test_a_damaged_checkpoint_is_an_error_where_it_is_asked_to_be(copy: Path, capsys: Captured) -> None:
    newest = max(copy.glob("checkpoints/*.safetensors"))
    older = newest.with_name("step-0000002.safetensors")
    older.write_bytes(newest.read_bytes())
    older.with_suffix(".json").write_bytes(newest.with_suffix(".json").read_bytes())
    newest.write_bytes(newest.read_bytes()[:-9])
    for words in (["resume", str(copy)], ["export", str(copy)]):
        assert f"{newest.name} is damaged" in refused([*words, "--strict"], capsys)
    assert main(["export", str(copy)]) == 0


def test_a_reader_that_has_enough_ends_a_command_quietly() -> None:
    command = f"{sys.executable} -m sds3d --help | head -c 10 >/dev/null; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == "" and done.returncode in (0, 141)


@pytest.mark.parametrize("words", [["texture", "nope.glb", "a cat"], ["check", "nope.glb"], ["reproduce", "nope.glb"]])
def test_a_missing_file_is_named_without_numbers_of_the_system(words: list[str], capsys: Captured) -> None:
    line = refused(words, capsys)
    assert "nope.glb" in line and "Errno" not in line


def test_texture_keeps_the_size_of_the_files_texture(tmp_path: Path) -> None:
    import numpy as np

    from renderers.meshes.config import MeshConfig
    from renderers.meshes.mesh import Mesh
    from sds3d.cli.arguments import texture
    from sds3d.formats.gltf.writer import write_glb

    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
    uv = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float32)
    normals = np.tile(np.array([[0, 0, 1]], np.float32), (4, 1))
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    picture = np.zeros((1024, 1024, 3), np.uint8)
    write_glb(tmp_path / "a.glb", Mesh(square, faces, normals, uv, picture), {})
    sides = []
    for more in ([], ["--scene.texture-size", "256"]):
        scene = texture([str(tmp_path / "a.glb"), "a cat", *more]).config.scene
        assert isinstance(scene, MeshConfig)
        sides.append(scene.texture_size)
    assert sides == [1024, 256]
