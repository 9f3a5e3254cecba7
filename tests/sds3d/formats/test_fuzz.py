"""Damaged files: read, or refused in one line, in time; 300 of each format always, 10,000 in the slow suite."""

from __future__ import annotations

import functools
import gzip
import json
import struct
from pathlib import Path

import pytest
import torch

from renderers.splats.config import SplatConfig
from sds3d.export.check import check
from sds3d.export.export import write_mesh
from sds3d.formats.layout import Layout
from sds3d.formats.splat_ply import write_splats
from sds3d.formats.splat_writers import write_splat, write_splat_glb, write_spz
from sds3d.mesh_import.load import load_mesh
from tests.sds3d.mesh_import.test_gltf import WAYS
from tests.support.fuzzing import attacks, check_reader, run_attacks
from tests.support.sds3d.gltf_cube import Cube
from tests.support.sds3d.signpost import signpost

FACTS = {"prompt": "a cube", "seed": 1}
FEW, MANY = 300, 10_000
SECONDS = 10.0
"""For one file, on a machine that does other things too."""
DEEP_WAYS = ("plain", "transform: turned", "colours H4", "one sewn strip", "sparse over a base", "skinned", "morphed",
             "instanced", "gloss", "glows on black", "data uri", "draco", "meshopt", "second set")  # fmt: skip


def cubes() -> list[bytes]:
    """GLBs that use every part of the reader."""
    made = []
    for name in DEEP_WAYS:
        cube = Cube()
        WAYS[name](cube)
        cube.material["alphaMode"] = "MASK"
        made.append(cube.binary())
    return made


def splats() -> SplatConfig:
    return SplatConfig(init_count=6)


@functools.cache
def seeds(kind: str) -> tuple[bytes, ...]:
    """Small good files of one format."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / f"a.{kind.split('_')[-1]}"
        if kind == "glb":
            return tuple(cubes())
        if kind == "gltf":
            cube = Cube()
            cube.json["buffers"] = [{"byteLength": len(cube.data)}]
            import base64

            data = "data:application/octet-stream;base64," + base64.b64encode(bytes(cube.data)).decode()
            cube.json["buffers"][0]["uri"] = data
            return (json.dumps(cube.json).encode(),)
        if kind.startswith("splats"):
            scene = splats().build("cpu", torch.Generator().manual_seed(0))
            write = {"ply": write_splats, "splat": write_splat, "spz": write_spz, "glb": write_splat_glb}[
                path.suffix[1:]
            ]
            write(path, scene, facts=FACTS)
        else:
            mesh = Layout().apply(signpost())
            write_mesh(path, kind, mesh, FACTS, Layout())
        return (path.read_bytes(),)


def both(path: Path) -> None:
    """As a user would: looked at, and loaded."""
    refused = None
    for read in (functools.partial(load_mesh, texture=16, faces=2000), check):
        try:
            read(path)
        except (ValueError, OSError, ImportError) as error:
            refused = error
    if refused is not None:
        raise refused


FORMATS = ("glb", "gltf", "3mf", "splats_ply", "splats_splat", "splats_spz", "splats_glb")


def attacked(kind: str, folder: Path, count: int) -> dict[str, int]:
    read = both if kind in ("glb", "gltf") else check
    told = run_attacks(read, seeds(kind), f"a.{kind.split('_')[-1]}", folder, count, seconds=SECONDS)
    return told


@pytest.fixture(autouse=True)
def _without_validators(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours is what is tried; theirs takes most of the time."""
    monkeypatch.setenv("PATH", "")


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files_are_read_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    for content in seeds(kind):
        path = tmp_path / f"a.{kind.split('_')[-1]}"
        path.write_bytes(content)
        assert not check_reader(check, path)
    told = attacked(kind, tmp_path, FEW)
    assert sum(told.values()) == FEW and told["refused"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_very_many_damaged_files_are_read_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    assert sum(attacked(kind, tmp_path, MANY).values()) == MANY


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["usda", "usdz"])
def test_damaged_stages_are_read_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    """Each takes a process of its own, so there are fewer."""
    pytest.importorskip("pxr")
    assert sum(run_attacks(check, seeds(kind), f"a.{kind}", tmp_path, FEW, seconds=20).values()) == FEW


@pytest.mark.parametrize("line", [b"element", b"element vertex", b"element vertex x", b"element vertex -1"])
def test_a_table_of_splats_without_a_count_is_refused(line: bytes, tmp_path: Path) -> None:
    (content,) = seeds("splats_ply")
    (tmp_path / "a.ply").write_bytes(content.replace(b"element vertex 6", line))
    assert "names no element with a count" in check_reader(check, tmp_path / "a.ply")


def test_a_packed_file_unpacks_no_more_than_its_splats_take(tmp_path: Path) -> None:
    head = struct.pack("<4sIIBBBB", b"NGSP", 2, 3, 0, 12, 0, 0)
    (tmp_path / "a.spz").write_bytes(gzip.compress(head + bytes(2**28), 1))
    assert check_reader(check, tmp_path / "a.spz", 2)


def test_attacks_are_the_same_every_time_and_do_harm(tmp_path: Path) -> None:
    first, second = (list(attacks(seeds("glb"), 50)) for _ in range(2))
    assert first == second and len(set(first)) > 45
    with pytest.raises(AssertionError, match="a traceback of KeyError"):
        check_reader(lambda path: {}["gone"], tmp_path)  # type: ignore[index]

    def two_lines(path: Path) -> None:
        raise ValueError("one\ntwo")

    with pytest.raises(AssertionError, match="not one line"):
        check_reader(two_lines, tmp_path)
