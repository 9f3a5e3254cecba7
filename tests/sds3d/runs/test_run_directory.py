"""The run folder: written whole or not at all, taken up again at the newest step that is whole."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from configs.run import RunConfig
from sds3d.atomic_files import atomic_write, write_bytes
from sds3d.runs.run_directory import KEEP_LAST, RunDirectory


@pytest.fixture
def record(tmp_path: Path, config: RunConfig) -> RunDirectory:
    return RunDirectory.new(tmp_path / "run", config)


def state(step: int) -> dict[str, Tensor]:
    return {"done": torch.tensor(step), "scene.means": torch.full((5, 3), float(step))}


def checkpoints(record: RunDirectory) -> list[str]:
    return sorted(path.name for path in (record.folder / "checkpoints").iterdir())


# --- folders ---


def test_a_new_folder_says_what_was_asked(record: RunDirectory, config: RunConfig) -> None:
    assert record.config() == config
    assert RunDirectory.open(record.folder).config() == config
    assert [path.name for path in record.folder.iterdir()] == ["run.yaml"]


def test_an_empty_folder_will_do(tmp_path: Path, config: RunConfig) -> None:
    assert RunDirectory.new(tmp_path, config).config() == config


def test_an_occupied_folder_is_left_alone(record: RunDirectory, config: RunConfig, tmp_path: Path) -> None:
    before = (record.folder / "run.yaml").read_bytes()
    with pytest.raises(FileExistsError, match=r"already holds a run; go on with it by: sds3d resume .*; give another"):
        RunDirectory.new(record.folder, config)
    assert (record.folder / "run.yaml").read_bytes() == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("dear")
    with pytest.raises(FileExistsError, match=r"already holds something else; give another --out"):
        RunDirectory.new(other, config)
    with pytest.raises(FileExistsError, match="already holds something else"):
        RunDirectory.new(other / "letter.txt", config)
    assert [path.name for path in other.iterdir()] == ["letter.txt"]


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path, config: RunConfig) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "run", Path("/proc/sds3d/run")):
        with pytest.raises(OSError, match=f"the folder {folder} can not be made .*; give another --out"):
            RunDirectory.new(folder, config)


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match=r"is not the folder of a run: it has no run\.yaml"):
            RunDirectory.open(folder)


# --- checkpoints ---


def test_the_newest_checkpoint_comes_back_bit_for_bit(record: RunDirectory) -> None:
    saved = {
        "a": torch.randn(3, 4),
        "b": torch.arange(5, dtype=torch.uint8),
        "c": torch.tensor(7),
        "d": torch.zeros(0, 3),
    }
    record.checkpoint(1, state(1))
    record.checkpoint(2, saved)
    found, remarks = record.latest()
    assert remarks == []
    assert found.keys() == saved.keys()
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in saved.items())


def test_only_the_last_few_are_kept(record: RunDirectory) -> None:
    for step in (9, 10, 99, 100, 999_999, 1_000_000):
        record.checkpoint(step, state(step))
        assert record.latest()[0]["done"] == step
    files = [f"step-{step:07d}{ending}" for step in (999_999, 1_000_000) for ending in (".json", ".safetensors")]
    assert checkpoints(record) == files and len(files) == 2 * KEEP_LAST


def damage(file: Path, kind: str) -> None:
    content = file.read_bytes()
    match kind:
        case "cut short":
            file.write_bytes(content[: len(content) // 2])
        case "one bit":
            file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "empty":
            file.write_bytes(b"")
        case "no description":
            file.with_suffix(".json").unlink()
        case "broken description":
            file.with_suffix(".json").write_text("{")


@pytest.mark.parametrize("kind", ["cut short", "one bit", "empty", "no description", "broken description"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(record: RunDirectory, kind: str) -> None:
    record.checkpoint(10, state(10))
    record.checkpoint(20, state(20))
    damage(record.folder / "checkpoints" / "step-0000020.safetensors", kind)
    found, remarks = record.latest()
    assert found["done"] == 10
    assert remarks == ["step-0000020.safetensors is damaged"]
    # The run goes on from 10: what was damaged goes, what was whole is kept.
    record.checkpoint(15, state(15))
    assert record.latest()[0]["done"] == 15 and record.latest()[1] == []
    assert [name for name in checkpoints(record) if name.endswith(".safetensors")] == [
        "step-0000010.safetensors",
        "step-0000015.safetensors",
    ]


def test_no_whole_checkpoint_is_an_error(record: RunDirectory) -> None:
    with pytest.raises(FileNotFoundError, match="has no checkpoint"):
        record.latest()
    record.checkpoint(10, state(10))
    damage(record.folder / "checkpoints" / "step-0000010.safetensors", "one bit")
    with pytest.raises(ValueError, match=r"no checkpoint in .* is whole: step-0000010\.safetensors is damaged"):
        record.latest()


@pytest.mark.parametrize("ending", [".safetensors", ".json"])
def test_a_full_disk_leaves_the_old_checkpoint(
    record: RunDirectory, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    record.checkpoint(10, state(10))
    before = checkpoints(record)
    whole = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.suffix == ending:
            whole(path, content[:7])
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        record.checkpoint(20, state(20))
    assert record.latest()[0]["done"] == 10
    assert [name for name in checkpoints(record) if "20" not in name] == before
    assert not [name for name in checkpoints(record) if name.startswith(".")], "drafts are cleaned up"
    monkeypatch.undo()
    record.checkpoint(20, state(20))
    assert record.latest()[0]["done"] == 20


# --- figures and pictures ---


def rows(record: RunDirectory) -> list[dict[str, float]]:
    return [json.loads(line) for line in (record.folder / "metrics.jsonl").read_text().splitlines()]


def test_metrics_are_one_object_a_line(record: RunDirectory) -> None:
    for step in (1, 2, 3):
        record.log({"step": step, "gradient": 0.5})
    assert [row["step"] for row in rows(record)] == [1, 2, 3]


def test_steps_that_are_done_again_are_not_told_twice(record: RunDirectory) -> None:
    record.truncate_metrics(5)  # Nothing there yet.
    for step in range(1, 9):
        record.log({"step": step})
    with (record.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "cut')
    record.truncate_metrics(5)
    assert [row["step"] for row in rows(record)] == [1, 2, 3, 4, 5]
    record.log({"step": 6})
    assert [row["step"] for row in rows(record)][-2:] == [5, 6]


def test_previews_show_the_views_side_by_side(record: RunDirectory) -> None:
    from PIL import Image

    rgb = torch.stack([torch.zeros(8, 8, 3), torch.full((8, 8, 3), 2.0)])
    file = record.preview(7, rgb)
    with Image.open(file) as picture:
        assert picture.size == (32, 16)
        assert picture.getpixel((3, 3)) == (0, 0, 0) and picture.getpixel((30, 3)) == (255, 255, 255)


def test_nothing_is_left_behind_by_a_failed_write(tmp_path: Path) -> None:
    target = tmp_path / "a" / "file.json"
    write_bytes(target, b"old")
    with pytest.raises(RuntimeError), atomic_write(target) as draft:
        draft.write_bytes(b"new")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    assert [path.name for path in target.parent.iterdir()] == ["file.json"]


def test_threads_that_write_leave_the_permissions_of_new_files_alone(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        writers = [
            threading.Thread(target=lambda n=n: [write_bytes(tmp_path / f"{n}-{i}", b"x") for i in range(100)])
            for n in range(8)
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
