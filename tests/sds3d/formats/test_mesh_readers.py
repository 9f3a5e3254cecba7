"""PLY, STL, OFF and 3MF as other programs write them: six colours on a cube come back, or one line says why not.

The tables of ways are data: a new way to write a file is one more line.
"""

from __future__ import annotations

import io
import json
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from numpy import ndarray
from plyfile import PlyData, PlyElement

from renderers.splats.config import SplatConfig
from sds3d.export.check import check
from sds3d.formats.meshes.readers import surfaces_in
from sds3d.formats.splat_ply import write_splats
from sds3d.formats.splat_reader import holds_splats, splats_in
from sds3d.mesh_import.load import load_mesh
from tests.support.fuzzing import check_reader
from tests.support.sds3d.mesh_cubes import (
    COLORS,
    GREY,
    Wanted,
    corner_colors,
    obj_text,
    png,
    put,
    right,
    rows,
    sides,
    stl,
    stl_text,
    threemf,
    tiles,
    triangles,
)

PLY, COLUMN = "ply\nformat ascii 1.0\n", "element vertex 1\nproperty float x\n"
CORNERS = "".join("f " + " ".join(str(i + 1) for i in quad) + "\n" for quad in sides()[3].tolist())
MISTAKES = {
    "a.obj": [
        ("v 0 0\nf 1 1 1\n", "line 1: v has 2 numbers; expected at least 3"),
        ("v 0 0 x\nf 1 1 1\n", "line 1: expected a number, not x"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "a face names vertex 9, but there are 3"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 0\n", "line 4: a face names vertex 0"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf -1 -2 -9\n", "line 4: a face names vertex -9, but there are fewer before it"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3.5\n", "by what is no whole number"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 c\n", "line 4: expected a number, not c"),
        ("v 0 0 0\nf 1 1\n", "no triangles"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nl 1 2\n", "no triangles, only points or lines"),
        ("f " + "1 " * 30_000, "has a face of 30,000 corners; at most 20,000"),
    ],
    "a.ply": [
        ("plx\n", "does not begin with the word ply"),
        (PLY, "has no end_header"),
        ("ply\nend_header\n", "names no format"),
        ("ply\nformat ebcdic 1.0\nend_header\n", "names the format ebcdic 1.0"),
        (f"{PLY}element vertex\nend_header\n", "names no element with a count"),
        (f"{PLY}element vertex -3\nend_header\n", "names no element with a count"),
        (f"{PLY}property float x\nend_header\n", "a property before any element"),
        (f"{PLY}element vertex 1\nproperty quad x\nend_header\n0\n", "a type that is not known"),
        (f"{PLY}element vertex 900000000000\nproperty float x\nend_header\n0\n", "is cut short"),
        (f"ply\nformat binary_big_endian 1.0\n{COLUMN}end_header\n".replace("x 1", "x 9999999999"), "is cut short"),
        (f"{PLY}element face 0\nproperty list uchar int a\nend_header\n", "has no element vertex, but face"),
        (f"{PLY}{COLUMN}end_header\n0\n", "no columns x, y and z"),
        (f"{PLY}{COLUMN}end_header\n0,5\n", "decimal comma"),
        (f"{PLY}{COLUMN}property float y\nproperty float z\nend_header\n0 0 0\n", "no triangles, only points"),
    ],
    "a.stl": [
        ("solid\nendsolid\n", "has no triangles"),
        ("solid a\nfacet normal 0 0 1\nouter loop\nvertex 0 0\nvertex 1 0\nvertex 0 1\n", "expected three each"),
        ("solid a\nfacet normal 0 0 1\nouter loop\nvertex 0,0 0 0\nvertex 1 0 0\nvertex 0 1 0\n", "decimal comma"),
        ("short", "at least 84"),
    ],
    "a.off": [
        ("hello", "does not begin with the word OFF"),
        ("OFF BINARY\n", "expected OFF as text"),
        ("OFF\n999999999999 1 0\n0 0 0\n", "has 1 lines for them"),
        ("OFF\n1 1 0\n0 0 0\n3 0 0 7\n", "a face names vertex 7, but there are 1"),
        ("OFF\n1 1 0\n0 0 0\n900 0 0 0\n", "says that it has 900 corners"),
        ("OFF\nx y\n", "expected a number, not x"),
    ],
    "a.3mf": [("PK", "is damaged or cut short")],
}  # fmt: skip


@pytest.mark.parametrize(("name", "text", "words"), [(name, *one) for name, them in MISTAKES.items() for one in them])
def test_mistakes_are_named_in_one_line(name: str, text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    for read in (load_mesh, check):
        said = check_reader(read, tmp_path / name)
        assert words in said and said.startswith(name)


KINDS_BY_CONTENT = {
    "a.obj": [
        (b"<!DOCTYPE html><html>", "is a web page and no OBJ"),
        (b"glTF" + bytes(20), "is GLB and no OBJ by its content: let its name end in .glb"),
        (b"PK\x03\x04" + bytes(200), "is ZIP and no OBJ by its content: save it as GLB or OBJ"),
        (threemf(""), "is 3MF and no OBJ by its content: let its name end in .3mf"),
        (b"Kaydara FBX Binary" + bytes(20), "is FBX and no OBJ"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        (stl_text().encode(), "is STL and no OBJ"),
    ],
    "a.ply": [(obj_text().encode(), "is OBJ and no PLY"), (b"<html>", "is a web page and no PLY")],
    "a.stl": [(b"<html>", "is a web page and no STL"), (obj_text().encode(), "is OBJ and no STL")],
    "a.3mf": [(b"OFF\n1 1 1", "is OFF and no 3MF"), (b'{"asset": 1}', "is GLTF and no 3MF")],
}


@pytest.mark.parametrize(("name", "content", "words"),
                         [(name, *one) for name, them in KINDS_BY_CONTENT.items() for one in them])  # fmt: skip
def test_a_file_of_another_kind_than_its_name_says_is_told(
    name: str, content: bytes, words: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    for read in (load_mesh, check):
        assert check_reader(read, tmp_path / name).startswith(f"{name} {words}")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.obj").mkdir()
    assert check_reader(load_mesh, tmp_path / "a.obj") == "a.obj is a folder; expected a file"


def test_what_lies_far_from_the_origin_keeps_its_shape(tmp_path: Path) -> None:
    table = sides()[0] + (4e6, 5e5, -100)
    (tmp_path / "a.obj").write_text("".join(f"v {x} {y} {z}\n" for x, y, z in table.tolist()) + CORNERS)
    report = check(tmp_path / "a.obj")
    assert report["watertight"] and report["points"] == 8 and not report["problems"]
    assert report["volume"] == pytest.approx(1) and report["bounds"]["from"] == pytest.approx([4e6, 5e5, -100], abs=1)
    right(tmp_path / "a.obj", GREY)


# --- PLY ---


def ply(
    columns: dict[str, tuple[str, ndarray]], face: str = "vertex_indices", form: str = "text", count: str = "u1",
    index: str = "i4", comments: tuple[str, ...] = (), extra: dict[str, tuple[str, ndarray]] | None = None,
    places: tuple[str, str, str] = ("x", "y", "z"), kind: str = "f4",
) -> bytes:  # fmt: skip
    """The cube by plyfile: `columns` beside the positions, `extra` ones of its faces."""
    spots = sides()[0]
    every = {name: (kind, spots[:, i]) for i, name in enumerate(places)} | columns
    vertex = np.zeros(24, [(name, kind) for name, (kind, _) in every.items()])
    for name, (_, values) in every.items():
        vertex[name] = values
    table = np.zeros(12, [(face, index, 3), *((name, kind, v.shape[1:]) for name, (kind, v) in (extra or {}).items())])
    table[face] = triangles()
    for name, (_, values) in (extra or {}).items():
        table[name] = values
    elements = [PlyElement.describe(vertex, "vertex"),
                PlyElement.describe(table, "face", len_types={face: count, "texcoord": "u1"})]  # fmt: skip
    file = io.BytesIO()
    data = PlyData(elements, text=form == "text", byte_order="=" if form == "text" else form, comments=list(comments))
    data.write(file)
    return file.getvalue()


def colored(names: tuple[str, str, str], kind: str, most: float) -> dict[str, tuple[str, ndarray]]:
    return {name: (kind, corner_colors()[:, i] / 255 * most) for i, name in enumerate(names)}


COLOR_NAMES = [
    ("red", "green", "blue"),
    ("r", "g", "b"),
    ("diffuse_red", "diffuse_green", "diffuse_blue"),
    ("Red", "Green", "Blue"),
]
COLOR_KINDS = [("u1", 255.0), ("u2", 65535.0), ("f4", 1.0), ("f8", 1.0), ("f4", 255.0), ("i4", 255.0)]
PLACE_NAMES = [("s", "t"), ("u", "v"), ("texture_u", "texture_v"), ("texture_s", "texture_t"), ("tu", "tv"),
               ("texcoord_u", "texcoord_v"),
               ("texcoord_0", "texcoord_1"), ("texcoord_s", "texcoord_t"), ("texcoord_x", "texcoord_y")]  # fmt: skip


@pytest.mark.parametrize("form", ["text", "<", ">"])
def test_ply_colours_by_all_names_and_types(form: str, tmp_path: Path) -> None:
    for number, (names, (kind, most)) in enumerate((n, k) for n in COLOR_NAMES for k in COLOR_KINDS):
        (tmp_path / "a.ply").write_bytes(ply(colored(names, kind, most), form=form))
        surfaces = surfaces_in(tmp_path / "a.ply", 100)
        assert surfaces.colors is not None
        assert surfaces.colors * 255 == pytest.approx(corner_colors(), abs=1), (names, kind)
        if number == 0:
            right(tmp_path / "a.ply")


@pytest.mark.parametrize("form", ["text", "<", ">"])
def test_ply_faces_by_all_names_and_types(form: str, tmp_path: Path) -> None:
    expected = sides()[0]
    for face in ("vertex_indices", "vertex_index"):
        for count in ("u1", "i1", "u2", "i4", "u4"):
            for index in ("i4", "u4", "u2", "u1", "i2"):
                (tmp_path / "a.ply").write_bytes(ply({}, face, form, count, index, kind="f8"))
                surfaces = surfaces_in(tmp_path / "a.ply", 100)
                assert surfaces.faces.tolist() == triangles().tolist()
                assert surfaces.positions == pytest.approx(expected)


@pytest.mark.parametrize("names", PLACE_NAMES)
def test_ply_textures_by_all_names(names: tuple[str, str], tmp_path: Path) -> None:
    uv = sides()[2]
    places = {name: ("f4", uv[:, i]) for i, name in enumerate(names)}
    put(tmp_path)
    (tmp_path / "a.ply").write_bytes(ply(places, comments=("TextureFile t.png",), form="<"))
    right(tmp_path / "a.ply")
    (tmp_path / "a.ply").write_bytes(ply(places, comments=("TextureFile gone.png",)))
    assert "gone.png, which it names, is not there; what it holds is left grey" in right(tmp_path / "a.ply", GREY)


def test_ply_textures_at_the_corners_of_faces(tmp_path: Path) -> None:
    uv, wrong = sides()[2], png(tiles().rotate(180))
    put(tmp_path, **{"w.png": wrong})
    extra = {"texcoord": ("f4", uv[triangles()].reshape(12, 6))}
    for form in ("text", "<", ">"):
        (tmp_path / "a.ply").write_bytes(ply({}, form=form, extra=extra, comments=("TextureFile t.png",)))
        right(tmp_path / "a.ply")
    extra["texnumber"] = ("i4", np.arange(12) // 2 % 2)
    (tmp_path / "a.ply").write_bytes(ply({}, extra=extra, comments=("TextureFile t.png", "TextureFile w.png")))
    other = [COLORS[i] for i in (5, 4, 3, 2, 1, 0)]
    right(tmp_path / "a.ply", tuple(other[i] if i % 2 else COLORS[i] for i in range(6)))


def test_ply_colours_of_faces(tmp_path: Path) -> None:
    table = np.repeat(np.array(COLORS), 2, 0)
    extra = {name: ("u1", table[:, i]) for i, name in enumerate(("red", "green", "blue"))}
    (tmp_path / "a.ply").write_bytes(ply({}, form="<", extra=extra))
    right(tmp_path / "a.ply")


def test_ply_oddities(tmp_path: Path) -> None:
    plain = ply(colored(("red", "green", "blue"), "u1", 255), form="text")
    head, _, body = plain.decode().partition("end_header\n")
    quads = "".join(f"4 {' '.join(map(str, quad))}\n" for quad in sides()[3].tolist())
    vertices = "".join(body.splitlines(keepends=True)[:24])
    strips = " ".join(f"{a} {b} {d} {c} -1" for a, b, c, d in sides()[3].tolist())
    ways = {
        "Windows lines": plain.decode().replace("\n", "\r\n"),
        "old Mac lines": plain.decode().replace("\n", "\r"),
        "capital names": head.replace("float x", "float X") + "end_header\n" + body,
        "quads": head.replace("face 12", "face 6") + "end_header\n" + vertices + quads,
        "strips": head.replace("element face 12", "element tristrips 1") + f"end_header\n{vertices}30 {strips}\n",
        "blank lines and more words": head + "comment  \nobj_info a b\nend_header\n" + body.replace("\n", "\n\n"),
        "further elements": head.replace("element vertex", "element camera 1\nproperty float view_px\nelement vertex")
        + "end_header\n0.5\n" + body,
        "not a number": head.replace("element vertex 24", "element vertex 25") + "end_header\n" + vertices
        + "1.#IND nan -1.#QNAN 0 0 0\n" + "".join(body.splitlines(keepends=True)[24:]),
    }  # fmt: skip
    for way, text in ways.items():
        (tmp_path / "a.ply").write_bytes(text.encode())
        assert right(tmp_path / "a.ply") is not None, way
    mac = ply({}, form="<").replace(b"\n", b"\r", 3)
    start = mac.index(b"end_header\n")
    (tmp_path / "a.ply").write_bytes(mac[:start].replace(b"\n", b"\r") + b"end_header\r" + mac[start + 11 :])
    assert surfaces_in(tmp_path / "a.ply", 100).faces.tolist() == triangles().tolist()


def test_our_own_ply_of_programs_whose_z_points_up_is_turned(tmp_path: Path) -> None:
    from sds3d.export.export import write_mesh
    from sds3d.formats.layout import Layout
    from tests.support.sds3d.signpost import signpost

    mesh = signpost()
    for up in ("y", "z"):
        layout = Layout(up=up)
        for kind in ("ply", "stl", "3mf")[: 2 if up == "y" else 3]:
            write_mesh(tmp_path / f"{up}.{kind}", kind, layout.apply(mesh), {}, layout)
            loaded = load_mesh(tmp_path / f"{up}.{kind}", 16)
            there = loaded.placement.inverse(loaded.mesh).vertices
            assert np.ptp(there, axis=0) == pytest.approx(np.ptp(mesh.vertices, axis=0), rel=1e-3), (up, kind)


# --- splats in PLY ---


@pytest.mark.parametrize("form", ["text", "<", ">"])
def test_splats_in_ply_of_any_kind(form: str, tmp_path: Path) -> None:
    scene = SplatConfig(init_count=20).build("cpu", torch.Generator().manual_seed(0))
    write_splats(tmp_path / "a.ply", scene)
    wanted, data = splats_in(tmp_path / "a.ply"), PlyData.read(tmp_path / "a.ply")
    table = data["vertex"].data
    rng = np.random.default_rng(0)
    for _ in range(4):
        names = list(rng.permutation([name for name in table.dtype.names if name not in ("nx", "ny", "nz")]))
        kind = "f8" if rng.random() < 0.5 else "f4"
        shuffled = np.zeros(len(table), [("segment", "i4"), *((name, kind) for name in names), ("red", "u1")])
        for name in names:
            shuffled[name] = table[name]
        other = PlyElement.describe(np.zeros(2, [("a", "f4")]), "camera")
        elements = [other, PlyElement.describe(shuffled, "vertex")]
        PlyData(elements, text=form == "text", byte_order="=" if form == "text" else form).write(tmp_path / "b.ply")
        assert holds_splats(tmp_path / "b.ply")
        read = splats_in(tmp_path / "b.ply")
        for name in ("means", "log_scales", "quats", "logit_opacities", "sh"):
            assert torch.allclose(getattr(read, name), getattr(wanted, name), atol=1e-5)
        assert check(tmp_path / "b.ply")["splats"] == 20


def test_flat_and_packed_splats(tmp_path: Path) -> None:
    write_splats(tmp_path / "a.ply", SplatConfig(init_count=5).build("cpu", torch.Generator().manual_seed(0)))
    table = PlyData.read(tmp_path / "a.ply")["vertex"].data
    flat = np.zeros(len(table), [(name, "f4") for name in table.dtype.names if name != "scale_2"])
    for name in flat.dtype.names or ():
        flat[name] = table[name]
    PlyData([PlyElement.describe(flat, "vertex")]).write(tmp_path / "b.ply")
    read = splats_in(tmp_path / "b.ply")
    assert bool((read.log_scales[:, 2] < read.log_scales[:, :2].amin(1) - 5).all())
    PlyData([PlyElement.describe(np.zeros(3, [("packed_position", "u4")]), "vertex")]).write(tmp_path / "c.ply")
    assert "is a compressed PLY of splats, which is not read" in check_reader(check, tmp_path / "c.ply")


# --- STL ---

VISCAM = np.array([(r * 31 // 255) << 10 | (g * 31 // 255) << 5 | b * 31 // 255 | 0x8000 for r, g, b in COLORS]).repeat(
    2
)
MATERIALISE = np.array([(b * 31 // 255) << 10 | (g * 31 // 255) << 5 | r * 31 // 255 for r, g, b in COLORS]).repeat(2)
ALL_RED = (255, 0, 0)
STLS: dict[str, tuple[bytes, Wanted]] = {
    "bytes": (stl(), GREY),
    "bytes that begin with solid": (stl(b"solid cube facet"), GREY),
    "a count of nothing": (stl(count=0), GREY),
    "a count too large": (stl(count=4_000_000_000), GREY),
    "a count too small": (stl(count=5), GREY),
    "bytes behind": (stl() + b"junk", GREY),
    "cut within a row": (stl(count=13) + bytes(20), GREY),
    "text": (stl_text().encode(), GREY),
    "text in capitals": (stl_text().upper().encode(), GREY),
    "text of Windows": (stl_text().replace("\n", "\r\n").encode(), GREY),
    "text of an old Mac": (stl_text().replace("\n", "\r").encode(), GREY),
    "text without a name": (stl_text().replace("solid cube", "solid").encode(), GREY),
    "text with a mark": (b"\xef\xbb\xbf" + stl_text().encode(), GREY),
    "text without solid": (stl_text().replace("solid cube\n", "", 1).encode(), GREY),
    "text of several solids": (stl_text().replace("  facet", "endsolid a\nsolid b\n  facet", 4).encode(), GREY),
    "text without its end": (stl_text().replace("endsolid cube\n", "").encode(), GREY),
    "VisCAM's colours": (stl(more=VISCAM), COLORS),
    "Materialise's colours": (stl(b"COLOR=\xff\0\0\xff", more=MATERIALISE), COLORS),
    "Materialise's one colour": (stl(b"COLOR=\xff\0\0\xff", more=np.full(12, 0x8000)), (ALL_RED,) * 6),
    "bytes of others behind rows": (stl(more=np.arange(12) * 100), GREY),
}


@pytest.mark.parametrize("way", STLS)
def test_stl_is_read_whatever_its_head_says(way: str, tmp_path: Path) -> None:
    content, wanted = STLS[way]
    (tmp_path / "a.stl").write_bytes(content)
    said = " ".join(right(tmp_path / "a.stl", wanted))
    assert ("its head counts" in said) == ("count" in way or "cut" in way)
    assert len(surfaces_in(tmp_path / "a.stl", 100).faces) == 12


# --- OFF ---


def off_file(head: str, points: ndarray, faces: list[str]) -> bytes:
    return (head + "".join(" ".join(f"{v:g}" for v in row) + "\n" for row in points.tolist()) + "".join(faces)).encode()


QUADS = [f"4 {' '.join(map(str, quad))}\n" for quad in sides()[3].tolist()]
SPOTS = sides()[0]
OFFS: dict[str, tuple[bytes, Wanted]] = {
    "plain": (off_file("OFF\n24 6 0\n", SPOTS, QUADS), GREY),
    "counts in the first line": (off_file("OFF 24 6 12\n", SPOTS, QUADS), GREY),
    "two counts": (off_file("OFF\n24 6\n", SPOTS, QUADS), GREY),
    "comments": (off_file("OFF # a cube\n# a\n\n24 6 0 # b\n", SPOTS, [f"{q[:-1]} # face\n" for q in QUADS]), GREY),
    "Windows": (off_file("OFF\n24 6 0\n", SPOTS, QUADS).replace(b"\n", b"\r\n"), GREY),
    "colours": (off_file("COFF\n24 6 0\n", np.concatenate([SPOTS, corner_colors()], -1), QUADS), COLORS),
    "colours with alpha": (
        off_file("COFF\n24 6 0\n", np.concatenate([SPOTS, corner_colors(), np.full((24, 1), 255)], -1), QUADS), COLORS),
    "colours as shares": (
        off_file("COFF\n24 6 0\n", np.concatenate([SPOTS, corner_colors() / 255 * 0.999], -1), QUADS), COLORS),
    "normals": (off_file("NOFF\n24 6 0\n", np.concatenate(sides()[:2], -1), QUADS), GREY),
    "colours at faces": (
        off_file("OFF\n24 6 0\n", SPOTS, [f"{QUADS[i][:-1]} {rows('', np.array([COLORS[i]]))}" for i in range(6)]),
        COLORS),
    "a number behind faces": (off_file("OFF\n24 6 0\n", SPOTS, [f"{q[:-1]} 7\n" for q in QUADS]), GREY),
}  # fmt: skip


@pytest.mark.parametrize("way", OFFS)
def test_off_is_read_however_it_is_written(way: str, tmp_path: Path) -> None:
    content, wanted = OFFS[way]
    (tmp_path / "a.off").write_bytes(content)
    right(tmp_path / "a.off", wanted)


# --- 3MF ---

VERTICES = "".join(f'<vertex x="{x}" y="{z}" z="{y}"/>' for x, y, z in (SPOTS * (1, 1, -1)).tolist())
"""Turned, so that +Z there is +Y here."""


def turned(text: str = "") -> str:
    """Triangles with `text` in each, where {side} is its side and {a} {b} {c} its corners."""
    rows_ = zip(triangles().tolist(), np.arange(12) // 2, strict=True)
    return "".join(
        f'<triangle v1="{a}" v2="{b}" v3="{c}" {text.format(side=side, a=a, b=b, c=c)}/>' for (a, b, c), side in rows_
    )


def thing(attributes: str = "", text: str = "", number: int = 9) -> str:
    mesh = f"<mesh><vertices>{VERTICES}</vertices><triangles>{turned(text)}</triangles></mesh>"
    return f'<object id="{number}" type="model" {attributes}>{mesh}</object>'


HEX = ["#{:02X}{:02X}{:02X}".format(*color) for color in COLORS]
BASES = (
    '<basematerials id="1">' + "".join(f'<base name="a" displaycolor="{one}FF"/>' for one in HEX) + "</basematerials>"
)
GROUP = '<m:colorgroup id="1">' + "".join(f'<m:color color="{one}"/>' for one in HEX) + "</m:colorgroup>"
PLACES = '<m:texture2d id="2" path="/3D/Textures/t%20x.png"/><m:texture2dgroup id="1" texid="2">' + "".join(
    f'<m:tex2coord u="{u}" v="{v}"/>' for u, v in sides()[2].tolist()) + "</m:texture2dgroup>"  # fmt: skip
MULTI = (
    '<m:multiproperties id="5" pids="1">'
    + "".join(f'<m:multi pindices="{i}"/>' for i in range(6))
    + "</m:multiproperties>"
)
HALF = 'transform="0.5 0 0 0 0.5 0 0 0 0.5 3 4 5"'
TWICE = 'transform="2 0 0 0 2 0 0 0 2 0 0 0"'
PACKAGES: dict[str, tuple[str, dict[str, bytes], str, Wanted]] = {
    "plain": (thing(), {}, '<item objectid="9"/>', GREY),
    "without a build": (thing(), {}, "", GREY),
    "one material": (BASES + thing('pid="1" pindex="4"'), {}, '<item objectid="9"/>', (COLORS[4],) * 6),
    "materials": (BASES + thing(text='pid="1" p1="{side}"'), {}, '<item objectid="9"/>', COLORS),
    "colours": (GROUP + thing(text='pid="1" p1="{side}" p2="{side}" p3="{side}"'), {}, '<item objectid="9"/>', COLORS),
    "the object's group": (GROUP + thing('pid="1" pindex="0"', 'p1="{side}"'), {}, '<item objectid="9"/>', COLORS),
    "mixed": (GROUP + MULTI + thing(text='pid="5" p1="{side}"'), {}, '<item objectid="9"/>', COLORS),
    "a texture": (PLACES + thing(text='pid="1" p1="{a}" p2="{b}" p3="{c}"'), {"3D/Textures/t x.png": png(tiles())},
                  '<item objectid="9"/>', COLORS),
    "components": (thing(number=8) + f'<object id="9"><components><component objectid="8" {HALF}/></components>'
                   "</object>", {}, f'<item objectid="9" {TWICE}/>', GREY),
}  # fmt: skip


@pytest.mark.parametrize("way", PACKAGES)
def test_3mf_is_read_however_it_is_put_together(way: str, tmp_path: Path) -> None:
    resources, extra, build, wanted = PACKAGES[way]
    (tmp_path / "a.3mf").write_bytes(threemf(resources, extra, build))
    assert any("Z points up" in line for line in right(tmp_path / "a.3mf", wanted))
    assert check(tmp_path / "a.3mf")["axis"] == {"up": "z", "unit": "mm"}


def test_3mf_across_parts_of_a_package(tmp_path: Path) -> None:
    other = threemf(thing(number=8))
    inner = zipfile.ZipFile(io.BytesIO(other)).read("3D/3dmodel.model")
    outer = '<object id="9"><components><component p:path="/3D/Objects/a.model" objectid="8"/></components></object>'
    (tmp_path / "a.3mf").write_bytes(threemf(outer, {"3D/Objects/a.model": inner}))
    right(tmp_path / "a.3mf", GREY)


BOMB = '<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
NEST = "".join(
    f'<object id="{i}"><components>{f"<component objectid={chr(34)}{i - 1}{chr(34)}/>" * 30}</components></object>'
    for i in range(10, 16)
)
BAD_PACKAGES = {
    "a circle": ('<object id="9"><components><component objectid="9"/></components></object>', "too deep"),
    "very many": (thing() + NEST, "too deep or too often"),
    "nobody": ('<object id="8"/>', "names object 9, which is not there"),
    "a corner too far": (thing().replace('v1="0"', 'v1="99"'), "a triangle names vertex 99, but there are 24"),
    "no number": (thing().replace('x="0.5"', 'x="wide"', 1), "an element has x = wide"),
    "a number lacks": (thing().replace('x="0.5"', "", 1), "an element lacks x; expected a number"),
    "broken": (thing() + "<a>", "its XML is broken in line 1"),
}


@pytest.mark.parametrize("way", BAD_PACKAGES)
def test_3mf_with_mistakes_is_refused_in_one_line(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resources, words = BAD_PACKAGES[way]
    monkeypatch.setattr("sds3d.formats.threemf.reader.MAX_PLACED", 2000)
    item = '<item objectid="{}"/>'.format(15 if way == "very many" else 9)
    (tmp_path / "a.3mf").write_bytes(threemf(resources, build=item))
    for read in (load_mesh, check):
        said = check_reader(read, tmp_path / "a.3mf", 10)
        assert said and words in said


def test_3mf_with_entities_or_a_swollen_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = zipfile.ZipFile(io.BytesIO(threemf(thing()))).read("3D/3dmodel.model").decode()
    for content, words in ((model.replace("?>", "?>" + BOMB, 1), "declares entities"), (model + " " * 1000, "at most")):
        with zipfile.ZipFile(tmp_path / "a.3mf", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("3D/3dmodel.model", content)
        monkeypatch.setattr("sds3d.formats.threemf.reader.MAX_XML", len(model) + 500)
        assert words in check_reader(load_mesh, tmp_path / "a.3mf")


# --- large files ---


def test_large_files_take_seconds(tmp_path: Path) -> None:
    side = 150
    grid = np.stack(np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side)), -1).reshape(-1, 2)
    table = np.concatenate([grid, np.sin(7 * grid[:, :1])], -1)
    first = (np.arange(side - 1)[:, None] * side + np.arange(side - 1)).reshape(-1)
    quads = np.stack([first, first + 1, first + side + 1, first + side], -1)
    solid = trimesh.Trimesh(table, quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3), process=False)
    faces = "".join("f {0}/{0} {1}/{1} {2}/{2} {3}/{3}\n".format(*row) for row in (quads + 1).tolist())
    (tmp_path / "a.obj").write_text(rows("v", table) + rows("vt", grid) + faces)
    for kind in ("ply", "stl", "off"):
        solid.export(tmp_path / f"a.{kind}")
    for kind in ("obj", "ply", "stl", "off"):
        start = time.monotonic()
        surfaces = surfaces_in(tmp_path / f"a.{kind}", 10**6)
        assert len(surfaces.faces) == 2 * len(quads)
        assert np.ptp(surfaces.positions, axis=0) == pytest.approx(np.ptp(table, axis=0), abs=1e-5)
        assert time.monotonic() - start < 10


def test_counts_beyond_the_file_take_no_memory(tmp_path: Path) -> None:
    import tracemalloc

    head = "ply\nformat binary_little_endian 1.0\nelement vertex {}\nproperty float x\n"
    head += "element face {}\nproperty list int int a\nend_header\n"
    files = {
        "a.ply": head.format(4 * 10**9, 1).encode() + bytes(100),
        "b.ply": head.format(0, 4 * 10**9).encode() + bytes(100),
        "c.ply": head.format(1, 1).encode() + struct.pack("<fi", 0, 2**31 - 1),
        "d.stl": bytes(80) + struct.pack("<I", 2**32 - 1) + bytes(50),
        "e.off": b"OFF\n4000000000 4000000000 0\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        tracemalloc.start()
        assert check_reader(lambda path: surfaces_in(path, 10**6), tmp_path / name) or name == "d.stl"
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
        tracemalloc.stop()


def test_reports_are_plain_json(tmp_path: Path) -> None:
    assert json.dumps(check(put(tmp_path)))
