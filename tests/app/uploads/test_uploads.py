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

from app.jobs.job import LimitReached, NotFound
from app.jobs.store import Store
from app.uploads.child import mesh_facts
from app.uploads.uploads import MAX_OPENING, MAX_OPENING_PER_OWNER, Uploads

CUBE = """
v 0 0 0\nv 1 0 0\nv 1 2 0\nv 0 2 0\nv 0 0 3\nv 1 0 3\nv 1 2 3\nv 0 2 3
f 1 3 2\nf 1 4 3\nf 5 6 7\nf 5 7 8\nf 1 2 6\nf 1 6 5\nf 4 8 7\nf 4 7 3\nf 1 5 8\nf 1 8 4\nf 2 3 7\nf 2 7 6
"""
FOUND = {"faces": 12, "vertices": 8, "parts": 1, "textured": False, "size": [1.0, 2.0, 3.0], "remarks": []}


@pytest.fixture
def uploads(tmp_path: Path) -> Iterator[Uploads]:
    store = Store(tmp_path / "runs")
    yield Uploads(store, max_megabytes=1, max_files=3, timeout_s=600)
    store.close()


@pytest.fixture
def trusting(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> Uploads:
    """Without the child process, which takes everything."""
    monkeypatch.setattr(uploads, "_inspect", lambda draft, shown: FOUND)
    return uploads


def write_file(folder: Path, content: bytes | str, name: str = "upload.tmp") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def make_glb(tree: dict[str, Any]) -> bytes:
    """A GLB with that head and nothing else."""
    head = json.dumps({"asset": {"version": "2.0"}, **tree}).encode()
    head += b" " * (-len(head) % 4)
    return struct.pack("<4sIII4s", b"glTF", 2, 20 + len(head), len(head), b"JSON") + head


def uploaded_names(uploads: Uploads) -> list[str]:
    return sorted(path.name for path in uploads._store.uploads.iterdir())


# --- what is taken ---


def test_add_returns_mesh_facts(uploads: Uploads, tmp_path: Path) -> None:
    added = uploads.add(write_file(tmp_path, CUBE), "../My Cube.OBJ")
    assert (added.name, added.faces, added.vertices, added.size) == ("My Cube.OBJ", 12, 8, (1.0, 2.0, 3.0))
    assert added.describe() == "My Cube.OBJ: 12 faces, without a texture, 0.0 MB"
    assert any("no texture coordinates" in line for line in added.remarks)
    assert added.id.startswith("my-cube-") and added.id.endswith(".obj") and uploaded_names(uploads) == [added.id]
    assert uploads._store.upload(added.id).read_bytes() == CUBE.encode()


def test_rejects_meshes_over_the_memory_limit(uploads: Uploads, tmp_path: Path) -> None:
    """With no memory to spare nothing can be opened; the server itself goes on. Some libraries end the process."""
    uploads.memory_mb = 0
    with pytest.raises(
        ValueError, match=r"^big\.obj takes (more than 0 MB of|too long or too much) memory to open; simp"
    ):
        uploads.add(write_file(tmp_path, CUBE * 2000), "big.obj")
    assert uploaded_names(uploads) == []


def test_mesh_facts(tmp_path: Path) -> None:
    found = mesh_facts(write_file(tmp_path, CUBE, "cube.obj"))
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
        ("model.glb", make_glb({"images": 3}), "is no GLB"),
        ("model.glb", make_glb({"buffers": [{"uri": "/etc/passwd"}]}), "names other files"),
        ("model.glb", make_glb({"images": [{"uri": "data:,"}, {"uri": "../x.png"}]}), "names other files"),
        ("model.stl", b"solid", "expected a mesh"),
        ("model", b"solid", "expected a mesh"),
        ("", b"solid", "expected a mesh"),
        ("..", b"solid", "expected a mesh"),
        (".obj", b"solid", "expected a mesh"),
        ("model.obj/", b"", "is empty"),
    ],
)
def test_rejects_invalid_mesh_with_one_line_error(
    trusting: Uploads, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        trusting.add(write_file(tmp_path, content), name)
    assert "\n" not in str(refused.value)
    assert uploaded_names(trusting) == []


@pytest.mark.parametrize("spelling", ["mtllib", "MTLLIB", "MtlLib"])
def test_obj_material_references_are_removed(trusting: Uploads, tmp_path: Path, spelling: str) -> None:
    added = trusting.add(write_file(tmp_path, f"{spelling} ../../secret.mtl\n{CUBE}"), "cube.obj")
    content = trusting._store.upload(added.id).read_bytes()
    assert b"mtllib" not in content.lower()
    assert mesh_facts(trusting._store.upload(added.id))["faces"] == 12


def test_child_errors_are_passed_on(uploads: Uploads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(write_child_script(tmp_path, '{"refused": "%s has no triangles"}')))
    with pytest.raises(ValueError, match=r"^cube\.obj has no triangles$"):
        uploads.add(write_file(tmp_path, CUBE), "cube.obj")
    monkeypatch.setattr("sys.executable", str(write_child_script(tmp_path, "no JSON")))
    with pytest.raises(ValueError, match=r"^cube\.obj cannot be opened: "):
        uploads.add(write_file(tmp_path, CUBE), "cube.obj")
    assert uploaded_names(uploads) == []


def write_child_script(folder: Path, says: str) -> Path:
    """Stands in for the interpreter: says that, with the file's name for %s."""
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nprintf \'{says}\\n\' "$(basename "$3")"\n')
    script.chmod(0o755)
    return script


# --- what is kept ---


def test_evicts_oldest_unused_files(trusting: Uploads, tmp_path: Path) -> None:
    source = write_file(tmp_path, CUBE)
    ids = []
    for number in range(3):
        ids.append(trusting.add(source, "cube.obj").id)
        os.utime(trusting._store.upload(ids[-1]), (number, number))
    ids.append(trusting.add(source, "cube.obj", in_use={ids[0]}).id)
    assert uploaded_names(trusting) == sorted([ids[0], ids[2], ids[3]])
    with pytest.raises(NotFound, match="upload it again"):
        trusting._store.upload(ids[1])


def test_limits_concurrent_uploads(trusting: Uploads, tmp_path: Path) -> None:
    source = write_file(tmp_path, CUBE)
    with ExitStack() as places:
        for _ in range(MAX_OPENING_PER_OWNER):
            places.enter_context(trusting._slot("ann"))
        with pytest.raises(LimitReached, match="of your uploads"):
            trusting.add(source, "cube.obj", owner="ann")
        trusting.add(source, "cube.obj", owner="ben")
        for number in range(MAX_OPENING - MAX_OPENING_PER_OWNER):
            places.enter_context(trusting._slot(str(number)))
        with pytest.raises(LimitReached, match="try again"):
            trusting.add(source, "cube.obj", owner="ben")
    trusting.add(source, "cube.obj", owner="ann")
    assert not trusting._opening, "each makes room again"


def test_uploads_are_opened_in_parallel(trusting: Uploads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that each wait for the other: one after another they would wait for ever."""
    both, opened = threading.Barrier(2, timeout=60), trusting._inspect

    def meeting(draft: Path, shown: str) -> dict[str, Any]:
        both.wait()
        return opened(draft, shown)

    monkeypatch.setattr(trusting, "_inspect", meeting)
    source = write_file(tmp_path, CUBE)
    with ThreadPoolExecutor(2) as pool:
        added = [pool.submit(trusting.add, source, "cube.obj", owner=name) for name in ("ann", "ben")]
        assert len({upload.result().id for upload in added}) == 2


def test_opens_a_real_glb(tmp_path: Path) -> None:
    from renderers.meshes.mesh import Mesh
    from sds3d.formats.gltf.writer import write_glb

    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
    uv = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float32)
    normals = np.tile(np.array([[0, 0, 1]], np.float32), (4, 1))
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    write_glb(tmp_path / "square.glb", Mesh(square, faces, normals, uv, np.zeros((8, 8, 3), np.uint8)), {})
    found = mesh_facts(tmp_path / "square.glb")
    assert (found["faces"], found["textured"], found["remarks"]) == (2, True, [])
