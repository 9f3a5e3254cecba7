"""Damaged OBJ, MTL, PLY, STL, OFF and 3MF files and splats in PLY: read, or refused in one line, in time."""

from __future__ import annotations

import functools
import io
import random
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from renderers.splats.config import SplatConfig
from sds3d.export.check import check
from sds3d.formats.meshes.mesh_file import plain_found
from sds3d.formats.splat_ply import write_splats
from sds3d.formats.splat_reader import splats_in
from sds3d.mesh_import.load import inspect_mesh, load_mesh
from tests.support.fuzzing import _mutate_bytes, _mutate_words, attacks, check_reader
from tests.support.sds3d.mesh_cubes import (
    COLORS,
    corner_colors,
    obj_text,
    png,
    put,
    rows,
    sides,
    stl,
    stl_text,
    threemf,
    tiles,
    triangles,
)

FEW, MANY = 300, 10_000
DEEP = 10
"""In the slow suite, one of so many is also painted and checked."""
SECONDS = 10.0
"""For one file, on a machine that does other things too."""
MTL = """newmtl skin
Kd 1 1 1
Ke 0.1 0 0
d 0.5
Tr 0.5
Pr 0.5
Pm 0.25
map_Kd -s 1 1 1 -o 0 0 0 -clamp on -mm 0 1 t.png
map_Pr -imfchan r t.png
map_d t.png
norm t.png
bump -bm 0.5 t.png
map_Ke t.png
"""
OFF = (
    f"COFF\n24 12 0\n{rows('', np.concatenate([sides()[0], corner_colors()], -1))}"
    f"{rows('3', np.concatenate([triangles(), np.repeat(np.array(COLORS), 2, 0)], -1))}"
)


def ply(form: str, splats: bool = False) -> bytes:
    """A PLY file of everything, by a library of others."""
    file = io.BytesIO()
    if splats:
        scene = SplatConfig(init_count=6).build("cpu", torch.Generator().manual_seed(0))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a.ply"
            write_splats(path, scene)
            data = PlyData.read(path)
    else:
        spots, normals, uv, _ = sides()
        kinds = [(name, "f4") for name in ("x", "y", "z", "nx", "ny", "nz", "s", "t")]
        vertex = np.zeros(24, kinds + [(name, "u1") for name in ("red", "green", "blue")])
        for name, values in zip([name for name, _ in kinds], np.concatenate([spots, normals, uv], -1).T, strict=True):
            vertex[name] = values
        vertex["red"], vertex["green"], vertex["blue"] = corner_colors().T
        face = np.zeros(12, [("vertex_indices", "i4", 3), ("texcoord", "f4", 6), ("texnumber", "i4")])
        face["vertex_indices"], face["texcoord"] = triangles(), uv[triangles()].reshape(12, 6)
        elements = [PlyElement.describe(vertex, "vertex"), PlyElement.describe(face, "face")]
        data = PlyData(elements, comments=["TextureFile t.png", "TextureFile u.png"])
    data.text, data.byte_order = form == "text", "=" if form == "text" else form
    data.write(file)
    return file.getvalue()


def package() -> tuple[str, dict[str, bytes]]:
    spots, _, uv, _ = sides()
    vertices = "".join(f'<vertex x="{x}" y="{y}" z="{z}"/>' for x, y, z in spots.tolist())
    corners = "".join(
        f'<triangle v1="{a}" v2="{b}" v3="{c}" pid="2" p1="{a}" p2="{b}" p3="{c}"/>' for a, b, c in triangles().tolist()
    )
    places = "".join(f'<m:tex2coord u="{u}" v="{v}"/>' for u, v in uv.tolist())
    resources = (
        '<m:texture2d id="1" path="/3D/t.png" contenttype="image/png"/>'
        f'<m:texture2dgroup id="2" texid="1">{places}</m:texture2dgroup>'
        '<basematerials id="3"><base name="a" displaycolor="#00FF00FF"/></basematerials>'
        f'<object id="8"><mesh><vertices>{vertices}</vertices><triangles>{corners}</triangles></mesh></object>'
        '<object id="9"><components><component objectid="8" transform="1 0 0 0 1 0 0 0 1 0 0 0"/></components></object>'
    )
    return resources, {"3D/t.png": png(tiles(texels=1))}


def packed(seed: int) -> Iterator[bytes]:
    """Packages whose XML is damaged, but not the zip around it."""
    resources, files = package()
    text = model_of(threemf(resources))
    text = text.replace(b"><", b">\n<").replace(b'"', b' " ')
    number = seed
    while True:
        rng = random.Random(f"3mf/{number}")
        damaged = text
        for _ in range(rng.choice((1, 1, 2, 8))):
            damaged = (_mutate_words if rng.random() < 0.7 else _mutate_bytes)(damaged, rng)
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("3D/3dmodel.model", damaged.replace(b' " ', b'"'))
            for name, content in files.items():
                archive.writestr(name, content)
        yield file.getvalue()
        number += 1


def model_of(content: bytes) -> bytes:
    """The XML of a package."""
    return zipfile.ZipFile(io.BytesIO(content)).read("3D/3dmodel.model")


@functools.cache
def seeds() -> dict[str, tuple[str, bytes, bool]]:
    """(name of the file, its content, whether it is text) by format."""
    words = "#MRGB ff00ff00\ns 1\ns off\ng a b\nusemtl skin\nf -4//-1 -3/1/1 -2 -1\n"
    return {
        "obj": ("m.obj", (obj_text() + "vn 0 0 1\nv 1 1 1 0.5 0.5 0.5\n" + words).encode(), True),
        "mtl": ("m.mtl", MTL.encode(), True),
        "ply text": ("a.ply", ply("text"), True),
        "ply little": ("a.ply", ply("<"), False),
        "ply big": ("a.ply", ply(">"), False),
        "stl": ("a.stl", stl(b"COLOR=\1\2\3\4 cube", more=np.arange(12) * 5000), False),
        "stl text": ("a.stl", stl_text().encode(), True),
        "off": ("a.off", OFF.encode(), True),
        "3mf zip": ("a.3mf", threemf(*package()), False),
        "splats little": ("a.ply", ply("<", True), False),
        "splats big": ("a.ply", ply(">", True), False),
        "splats text": ("a.ply", ply("text", True), True),
    }


FORMATS = (*seeds(), "3mf")


def wholly(path: Path) -> None:
    """As a user would: painted, and checked."""
    refused = None
    for read in (lambda one: load_mesh(one, 16, 2000), check):
        try:
            read(path)
        except (ValueError, OSError) as error:
            refused = error
    if refused is not None:
        raise refused


def attacked(kind: str, folder: Path, count: int, deep: bool) -> dict[str, int]:
    put(folder, **{"t.png": png(tiles(texels=1)), "u.png": png(tiles(texels=1))})
    name, content, text = seeds().get(kind, ("a.3mf", b"", False))
    damaged = packed(0) if kind == "3mf" else attacks([content], count, text=text)
    path, told = folder / name, {"read": 0, "refused": 0}
    for number, one in zip(range(count), damaged, strict=False):
        path.write_bytes(one)
        mesh = folder / "m.obj" if kind == "mtl" else path
        quick = splats_in if kind.startswith("splats") else (inspect_mesh, plain_found)[number % 2]
        whole = check if kind.startswith("splats") else wholly
        try:
            told[
                "refused" if check_reader(whole if deep and number % DEEP == 0 else quick, mesh, SECONDS) else "read"
            ] += 1
        except AssertionError as broken:
            kept = path.rename(folder / f"broken{number}{path.suffix}")
            raise AssertionError(f"attack {number} ({kept}): {broken}") from broken
    return told


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files_are_read_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    if kind != "3mf":
        name, content, _ = seeds()[kind]
        (put(tmp_path, **{"u.png": png(tiles(texels=1))}).parent / name).write_bytes(content)
        assert not check_reader(check, tmp_path / ("m.obj" if kind == "mtl" else name))
    told = attacked(kind, tmp_path, FEW, deep=False)
    assert sum(told.values()) == FEW and told["read"] and (told["refused"] or kind == "mtl"), told


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_very_many_damaged_files_are_read_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    assert sum(attacked(kind, tmp_path, MANY, deep=True).values()) == MANY


def test_damaged_files_are_the_same_every_time() -> None:
    first, second = ([one for one, _ in zip(packed(0), range(20), strict=False)] for _ in range(2))
    assert [model_of(one) for one in first] == [model_of(one) for one in second]
