"""OBJ and MTL files as programs write them: every face keeps its color, or one line says why not.

The cubes in tests/data/obj have six colors: +x green, -x yellow, +y white, -y dark, +z red, -z blue.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sds3d.mesh_import.load import inspect_mesh as inspect_mesh
from sds3d.mesh_import.load import load_mesh

DATA = Path(__file__).parents[2] / "data" / "obj"
COLORS = {
    (1, 0, 0): (0, 200, 0),
    (-1, 0, 0): (220, 220, 0),
    (0, 1, 0): (230, 230, 230),
    (0, -1, 0): (40, 40, 40),
    (0, 0, 1): (220, 0, 0),
    (0, 0, -1): (0, 0, 220),
}
CLOSE = 14
"""Levels that a color may be off."""
TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"


def colors_of(path: Path) -> dict[tuple[int, ...], np.ndarray]:
    """Mean color of the faces that look along each axis, 0..255."""
    mesh = load_mesh(path, 256).mesh
    corners = mesh.vertices[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    side = mesh.texture.shape[0]
    middles = mesh.uv[mesh.faces].mean(1)
    texels = mesh.texture[
        (middles[:, 1] * side).astype(int).clip(0, side - 1), (middles[:, 0] * side).astype(int).clip(0, side - 1)
    ]
    found: dict[tuple[int, ...], list[np.ndarray]] = {}
    for normal, texel in zip(normals, texels, strict=True):
        axis = int(np.abs(normal).argmax())
        found.setdefault(tuple(int(np.sign(normal[axis])) * int(at == axis) for at in range(3)), []).append(texel)
    return {way: np.mean(rows, 0) for way, rows in found.items()}


@pytest.mark.parametrize(
    "name",
    ["o03_backslash", "o04_case", "o06_absolute", "o07_multi_mtllib", "o12_quotes", "o14b_vcol_uv.obj", "o15_mixed"],
)
def test_every_face_keeps_its_color(name: str) -> None:
    path = DATA / name if name.endswith(".obj") else DATA / name / "m.obj"
    found = colors_of(path)
    assert found.keys() == COLORS.keys()
    off = {way: np.abs(found[way] - COLORS[way]).max() for way in COLORS}
    if name == "o15_mixed":  # Faces without texture coordinates have the material's own color.
        assert sum(value <= CLOSE for value in off.values()) >= 4
        return
    assert max(off.values()) <= CLOSE, off


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"v 0,5 0 0\n", "line 1: .* has a comma where a decimal point belongs"),
        (b"v a b c\n", "line 1: 'a b c' is not a list of numbers"),
        (b"v 1 2\nf 1 1 1\n", "fewer than 3 numbers"),
        ((TRIANGLE + "f 1 2 9\n").encode(), "names vertex 9, and there are 3"),
        ((TRIANGLE + "f 1 2 -9\n").encode(), "line 4: .* is not a face"),
        ((TRIANGLE + "f 0 1 2\n").encode(), "line 4: .* is not a face"),
        ((TRIANGLE + "f 1/7 2/7 3/7\n").encode(), "names texture coordinate 7"),
        ((TRIANGLE + "f a b c\n").encode(), "line 4: .* is not a face"),
        (TRIANGLE.encode(), "has no triangles, only points"),
        ((TRIANGLE + "f 1 2 3\n").encode("utf-16"), "is UTF-16 or no text; save it as UTF-8"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_its_place(content: bytes, line: str, tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_bytes(content)
    with pytest.raises(ValueError, match=line) as refused:
        load_mesh(tmp_path / "a.obj")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "v 0 0 0\r\nv 1 0 0\r\nv 1 1 0\r\nv 0 1 0\r\nf 1 2 3 4\r\n",
        "\ufeffv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf -4 -3 -2 -1\n",
        "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1 2 \\\n3 4\n",
        "g a\ns off\nv\t0 0 0 1.0\nv 1 0 0 1.0\nv 1 1 0 1.0\nv 0 1 0 1.0\nl 1 2\nf 1// 2// 3// 4//\n",
        "v 0 0 0\nv 1 0 0\nf 1 2 3\nv 1 1 0\nv 0 1 0\nf 1 3 4\n",
    ],
)
def test_the_ways_to_write_a_square(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text(text, encoding="utf-8", newline="")
    assert len(inspect_mesh(tmp_path / "a.obj")[0].faces) == 2


def square(folder: Path, mtl: str, name: str = "m.mtl") -> Path:
    """A textured square, its material library, and a picture that is red on the left and blue on the right."""
    folder.mkdir(exist_ok=True)
    Image.fromarray(np.repeat(np.array([[[220, 0, 0], [0, 0, 220]]], np.uint8), 32, 1).repeat(64, 0)).save(
        folder / "t.png"
    )
    (folder / name).write_text(mtl)
    (folder / "a.obj").write_text(
        f"mtllib {name}\nusemtl skin\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
        "f 1/1 2/2 3/3 4/4\n"
    )
    return folder / "a.obj"


@pytest.mark.parametrize(
    "statement",
    [
        "map_Kd t.png",
        "map_Kd -blendu on -blendv on -clamp off t.png",
        "map_Kd -o 0 0 0 -s 1 1 1 t.png",
        "map_Kd -mm 0 1 t.png",
        "map_Kd ./t.png",
        "map_Kd 't.png'",
        "\tMAP_KD T.png  ",
        "map_Ke t.png",
    ],
)
def test_the_ways_to_name_a_texture(statement: str, tmp_path: Path) -> None:
    read, remarks = inspect_mesh(square(tmp_path / "s", f"newmtl skin\n{statement}\n"))
    assert read.paints[0].image is not None and remarks == []
    assert read.paints[0].image.shape == (3, 64, 64)


def test_offsets_and_scales_move_the_texture(tmp_path: Path) -> None:
    plain, _ = inspect_mesh(square(tmp_path / "a", "newmtl skin\nmap_Kd t.png\n"))
    moved, _ = inspect_mesh(square(tmp_path / "b", "newmtl skin\nmap_Kd -s 2 2 -o 0.5 0.25 t.png\n"))
    assert plain.paints[0].uv is not None and moved.paints[0].uv is not None
    flip = np.array([0, 1]) + np.array([1, -1]) * plain.paints[0].uv
    np.testing.assert_allclose(
        np.array([0, 1]) + np.array([1, -1]) * moved.paints[0].uv, flip * 2 + [0.5, 0.25], atol=1e-6
    )


@pytest.mark.parametrize(
    ("statement", "remark"),
    [
        ("map_Kd gone.png", "gone.png, which it names, is not there"),
        ("map_Kd ../../etc/hostname", "which it names, is not there"),
        ("map_Kd /etc/hostname", "which it names, is not there"),
        ("map_Kd m.mtl", "m.mtl"),
    ],
)
def test_a_texture_that_cannot_be_had_is_said(statement: str, remark: str, tmp_path: Path) -> None:
    read, remarks = inspect_mesh(square(tmp_path / "s", f"newmtl skin\nKd 0.2 0.4 0.6\n{statement}\n"))
    assert read.paints[0].image is None and any(remark in line for line in remarks), remarks
    assert read.paints[0].factor == (0.2, 0.4, 0.6)


def test_roughness_metal_and_normals_come_along(tmp_path: Path) -> None:
    mtl = "newmtl skin\nPr 0.3\nPm 0.8\nmap_Kd t.png\nmap_Pr t.png\nnorm t.png\n"
    paint = inspect_mesh(square(tmp_path / "s", mtl))[0].paints[0]
    assert paint.metallic_roughness == (0.3, 0.8)
    assert (
        paint.metallic_roughness_map is not None
        and paint.metallic_roughness_map.shape[0] == 2
        and paint.normal_map is not None
    )


def attempt(content: bytes, folder: Path) -> None:
    """Reads damaged bytes; only errors of one line are let through."""
    (folder / "a.obj").write_bytes(content)
    try:
        inspect_mesh(folder / "a.obj")
    except (ValueError, OSError) as error:
        assert "\n" not in str(error) and len(str(error)) < 400


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_damaged_files_are_read_or_refused_in_one_line(count: int, tmp_path: Path) -> None:
    path = square(tmp_path / "s", "newmtl skin\nKd 1 0 0\nmap_Kd t.png\n")
    seeds = [path.read_bytes(), (DATA / "o14b_vcol_uv.obj").read_bytes()]
    for content in damaged(seeds, count):
        attempt(content, path.parent)


def damaged(seeds: list[bytes], count: int) -> list[bytes]:
    """Bytes replaced, removed, repeated and inserted, the same ones every time."""
    rng = random.Random(1)
    found = []
    for number in range(count):
        content = bytearray(seeds[number % len(seeds)])
        for _ in range(rng.randint(1, 8)):
            at = rng.randrange(max(1, len(content)))
            kind = rng.randrange(4)
            if kind == 0:
                content[at : at + 1] = bytes([rng.randrange(256)])
            elif kind == 1:
                del content[at : at + rng.randint(1, 30)]
            elif kind == 2:
                content[at:at] = content[at : at + rng.randint(1, 40)]
            else:
                content[at:at] = rng.choice(
                    [b"-", b"/", b"1e999", b"nan", b"99999999999", b"\n", b"f 1 2 3\n", b"\\\n"]
                )
        found.append(bytes(content))
    return found
