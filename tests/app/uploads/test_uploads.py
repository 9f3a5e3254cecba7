"""Meshes that visitors bring: taken, or refused in one line before anything else touches them."""

from __future__ import annotations

import json
import os
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.jobs.job import Full, Unknown
from app.jobs.store import Store
from app.uploads.child import facts
from app.uploads.uploads import OF_ONE_OWNER, WAITING, Uploads

CUBE = """
v 0 0 0\nv 1 0 0\nv 1 2 0\nv 0 2 0\nv 0 0 3\nv 1 0 3\nv 1 2 3\nv 0 2 3
f 1 3 2\nf 1 4 3\nf 5 6 7\nf 5 7 8\nf 1 2 6\nf 1 6 5\nf 4 8 7\nf 4 7 3\nf 1 5 8\nf 1 8 4\nf 2 3 7\nf 2 7 6
"""
FOUND = {"faces": 12, "vertices": 8, "parts": 1, "textured": False, "size": [1.0, 2.0, 3.0], "remarks": []}


@pytest.fixture
def uploads(tmp_path: Path) -> Iterator[Uploads]:
    store = Store(tmp_path / "runs")
    yield Uploads(store, megabytes=1, kept=3, seconds=600)
    store.close()


@pytest.fixture
def trusting(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> Uploads:
    """Without the child process, which takes everything."""
    monkeypatch.setattr(uploads, "_opened", lambda draft, shown: FOUND)
    return uploads


def a_file(folder: Path, content: bytes | str, name: str = "upload.tmp") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def a_glb(tree: dict[str, Any]) -> bytes:
    """A GLB with that head and nothing else."""
    head = json.dumps({"asset": {"version": "2.0"}, **tree}).encode()
    head += b" " * (-len(head) % 4)
    return struct.pack("<4sIII4s", b"glTF", 2, 20 + len(head), len(head), b"JSON") + head


def kept(uploads: Uploads) -> list[str]:
    return sorted(path.name for path in uploads._store.uploads.iterdir())


# --- what is taken ---


def test_a_mesh_is_taken_with_its_facts(uploads: Uploads, tmp_path: Path) -> None:
    taken = uploads.take(a_file(tmp_path, CUBE), "../My Cube.OBJ")
    assert (taken.name, taken.faces, taken.vertices, taken.size) == ("My Cube.OBJ", 12, 8, (1.0, 2.0, 3.0))
    assert taken.told() == "My Cube.OBJ: 12 faces, without a texture, 0.0 MB"
    assert any("no texture coordinates" in line for line in taken.remarks)
    assert taken.id.startswith("my-cube-") and taken.id.endswith(".obj") and kept(uploads) == [taken.id]
    assert uploads._store.upload(taken.id).read_bytes() == CUBE.encode()


def test_what_takes_too_much_memory_is_refused(uploads: Uploads, tmp_path: Path) -> None:
    """With no memory to spare nothing can be opened; the server itself goes on. Some libraries end the process."""
    uploads.memory_mb = 0
    with pytest.raises(
        ValueError, match=r"^big\.obj takes (more than 0 MB of|too long or too much) memory to open; simp"
    ):
        uploads.take(a_file(tmp_path, CUBE * 2000), "big.obj")
    assert kept(uploads) == []


def test_facts_of_a_mesh(tmp_path: Path) -> None:
    found = facts(a_file(tmp_path, CUBE, "cube.obj"))
    assert found["remarks"].pop() == "it will be unfolded anew: it has no texture coordinates"
    assert found == FOUND


# --- what is refused ---


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.glb", b"", "is empty"),
        ("model.glb", b"x" * (2**20 + 1), "more than 1 MB"),
        ("model.glb", b"hello", "is no GLB"),
        ("model.glb", b"glTF" + b"\xff" * 40, "is no GLB"),
        ("model.glb", a_glb({"images": 3}), "is no GLB"),
        ("model.glb", a_glb({"buffers": [{"uri": "/etc/passwd"}]}), "names other files"),
        ("model.glb", a_glb({"images": [{"uri": "data:,"}, {"uri": "../x.png"}]}), "names other files"),
        ("model.stl", b"solid", "expected a mesh"),
        ("model", b"solid", "expected a mesh"),
        ("", b"solid", "expected a mesh"),
        ("..", b"solid", "expected a mesh"),
        (".obj", b"solid", "expected a mesh"),
        ("model.obj/", b"", "is empty"),
    ],
)
def test_what_is_no_mesh_is_refused_in_one_line(
    trusting: Uploads, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        trusting.take(a_file(tmp_path, content), name)
    assert "\n" not in str(refused.value)
    assert kept(trusting) == []


@pytest.mark.parametrize("spelling", ["mtllib", "MTLLIB", "MtlLib"])
def test_an_obj_names_no_file_any_more(trusting: Uploads, tmp_path: Path, spelling: str) -> None:
    taken = trusting.take(a_file(tmp_path, f"{spelling} ../../secret.mtl\n{CUBE}"), "cube.obj")
    content = trusting._store.upload(taken.id).read_bytes()
    assert b"mtllib" not in content.lower()
    assert facts(trusting._store.upload(taken.id))["faces"] == 12


def test_a_refusal_by_the_child_is_passed_on(uploads: Uploads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(a_script(tmp_path, '{"refused": "%s has no triangles"}')))
    with pytest.raises(ValueError, match=r"^cube\.obj has no triangles$"):
        uploads.take(a_file(tmp_path, CUBE), "cube.obj")
    monkeypatch.setattr("sys.executable", str(a_script(tmp_path, "no JSON")))
    with pytest.raises(ValueError, match=r"^cube\.obj cannot be opened: "):
        uploads.take(a_file(tmp_path, CUBE), "cube.obj")
    assert kept(uploads) == []


def a_script(folder: Path, says: str) -> Path:
    """Stands in for the interpreter: says that, with the file's name for %s."""
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nprintf \'{says}\\n\' "$(basename "$3")"\n')
    script.chmod(0o755)
    return script


# --- what is kept ---


def test_the_oldest_go_but_none_that_is_in_use(trusting: Uploads, tmp_path: Path) -> None:
    source = a_file(tmp_path, CUBE)
    ids = []
    for number in range(3):
        ids.append(trusting.take(source, "cube.obj").id)
        os.utime(trusting._store.upload(ids[-1]), (number, number))
    ids.append(trusting.take(source, "cube.obj", in_use={ids[0]}).id)
    assert kept(trusting) == sorted([ids[0], ids[2], ids[3]])
    with pytest.raises(Unknown, match="upload it again"):
        trusting._store.upload(ids[1])


def test_so_many_at_once_of_one_owner_and_of_all(trusting: Uploads, tmp_path: Path) -> None:
    source = a_file(tmp_path, CUBE)
    with ExitStack() as places:
        for _ in range(OF_ONE_OWNER):
            places.enter_context(trusting._place("ann"))
        with pytest.raises(Full, match="of your uploads"):
            trusting.take(source, "cube.obj", owner="ann")
        trusting.take(source, "cube.obj", owner="ben")
        for number in range(WAITING - OF_ONE_OWNER):
            places.enter_context(trusting._place(str(number)))
        with pytest.raises(Full, match="try again"):
            trusting.take(source, "cube.obj", owner="ben")
    trusting.take(source, "cube.obj", owner="ann")
    assert not trusting._opening, "each makes room again"


def test_uploads_are_opened_in_parallel(trusting: Uploads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that each wait for the other: one after another they would wait for ever."""
    both, opened = threading.Barrier(2, timeout=60), trusting._opened

    def meeting(draft: Path, shown: str) -> dict[str, Any]:
        both.wait()
        return opened(draft, shown)

    monkeypatch.setattr(trusting, "_opened", meeting)
    source = a_file(tmp_path, CUBE)
    with ThreadPoolExecutor(2) as pool:
        taken = [pool.submit(trusting.take, source, "cube.obj", owner=name) for name in ("ann", "ben")]
        assert len({upload.result().id for upload in taken}) == 2


def test_a_real_glb_is_opened(tmp_path: Path) -> None:
    from renderers.meshes.mesh import Mesh
    from sds3d.formats.gltf.writer import write_glb

    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
    uv = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float32)
    normals = np.tile(np.array([[0, 0, 1]], np.float32), (4, 1))
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    write_glb(tmp_path / "square.glb", Mesh(square, faces, normals, uv, np.zeros((8, 8, 3), np.uint8)), {})
    found = facts(tmp_path / "square.glb")
    assert (found["faces"], found["textured"], found["remarks"]) == (2, True, [])
