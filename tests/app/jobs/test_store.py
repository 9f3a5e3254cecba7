"""Visitors reach files of runs by ids and names, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.jobs.job import Job, NotFound
from app.jobs.store import Store

SECRET = "not for visitors"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run, with secrets on every side of it."""
    root = tmp_path_factory.mktemp("root")
    runs = root / "runs"
    (runs / "a-cat" / "previews").mkdir(parents=True)
    (runs / "a-cat" / "run.yaml").write_text("prompt: a cat\nsteps: 3\n")
    (runs / "a-cat" / "previews" / "step-000050.png").write_text("picture")
    (runs / "a-cat" / ".hidden").write_text(SECRET)
    (runs / "a-cat" / "out.txt").symlink_to(root / "secret.txt")
    (runs / "a-cat" / "way").symlink_to(root)
    (runs / "linked").symlink_to(root / "elsewhere")
    (runs / "other").mkdir()
    (runs / "other" / "notes.txt").write_text(SECRET)
    for place in (root / "elsewhere", root / "run"):
        place.mkdir()
        (place / "run.yaml").write_text(SECRET)
    (root / "secret.txt").write_text(SECRET)
    return runs


@pytest.fixture(scope="module")
def store(runs: Path) -> Store:
    return Store(runs)


def test_finds_run_files(store: Store, runs: Path) -> None:
    assert store.folder("a-cat") == runs / "a-cat"
    for name in ("run.yaml", "previews/step-000050.png"):
        assert store.file("a-cat", name) == runs / "a-cat" / name


BAD_IDS = [
    *("", ".", "..", "/", "\\", "a-cat/", "/a-cat", "../runs/a-cat", "a-cat/../a-cat", "../run", "..%2frun"),
    *("a-cat\0", "a-cat\n", ".jobs", ".uploads", "linked", "other", "nothing", "~", "~root", "a" * 5000, "\ud800"),
]
BAD_NAMES = [
    *("", ".", "..", "../other/notes.txt", "../../secret.txt", "/etc/passwd", "//etc/passwd", ".hidden", "./run.yaml"),
    *("previews", "previews/", "previews//step-000050.png", "previews/../run.yaml", "run.yaml/", "run.yaml\0.png"),
    *("out.txt", "way/secret.txt", "way/runs/a-cat/run.yaml", "..\\..\\secret.txt", "previews\\step-000050.png"),
    *("run.yaml\n", "x" * 5000, "%2e%2e/secret.txt", "\ud800"),
]


@pytest.mark.parametrize("id", BAD_IDS, ids=ascii)
def test_rejects_other_folders(store: Store, id: str) -> None:
    with pytest.raises(NotFound, match="there is no run"):
        store.folder(id)
    with pytest.raises(NotFound):
        store.delete(id)


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_rejects_other_files(store: Store, name: str) -> None:
    with pytest.raises(NotFound, match="has no file"):
        store.file("a-cat", name)
    with pytest.raises(NotFound):
        store.upload(name)


PIECES = st.sampled_from(
    ["..", ".", "", "a-cat", "run.yaml", "way", "out.txt", "secret.txt", "other", "runs", "/", "\\", "\0", "previews",
     "~", "C:", ".jobs", "step-000050.png", "linked", " ", "\N{FULLWIDTH SOLIDUS}", "%2f"]
)  # fmt: skip
PATHS = st.builds(str.join, st.sampled_from(["/", "", "\\", "//"]), st.lists(PIECES, max_size=6)) | st.text(max_size=20)


@given(PATHS, PATHS)
def test_paths_stay_inside_the_run(store: Store, runs: Path, id: str, name: str) -> None:
    try:
        found = store.file(id, name)
    except NotFound as error:
        assert "\n" not in str(error)
    else:
        inside = found.resolve().relative_to(runs / "a-cat")
        assert inside.as_posix() in ("run.yaml", "previews/step-000050.png")
        assert (id, name) == ("a-cat", inside.as_posix()), "there is one way to name a file"


@given(st.text(max_size=80))
def test_reserve_gives_valid_ids(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    store = Store(tmp_path_factory.mktemp("runs"))
    ids = [store.reserve(name) for _ in range(3)]
    assert len({*ids}) == 3
    for id in ids:
        store.write(Job(id, "generate"))
        assert store.folder(id).parent == store.runs and id.isascii() and id == id.lower()
    assert sorted(job.id for job in store.jobs()) == sorted(ids)
    store.close()


def test_store_is_locked_by_one_server(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ValueError, match=f"another server has .*process {os.getpid()}") as refused:
        Store(tmp_path)
    assert "\n" not in str(refused.value)
    store.close()
    Store(tmp_path).close()


def test_interrupted_deletion_is_completed(tmp_path: Path) -> None:
    gone = tmp_path / ".jobs" / "gone-1"
    gone.mkdir(parents=True)
    (gone / "asset.glb").write_text("")
    Store(tmp_path).close()
    assert not gone.exists()


def test_job_round_trip(tmp_path: Path) -> None:
    store = Store(tmp_path)
    id = store.reserve("A Cat")
    job = Job(id, "generate", ("a cat", "--seed", "3"), "ann", 1.5, "failed", "why", "a cat", "b", 2.5, started_at=3.5)
    store.write(job)
    assert store.jobs() == [job]
    store.close()
