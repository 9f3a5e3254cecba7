"""OBJ files as other programs write them: six colours on a cube come back, or one line says what cannot be had.

The tables of ways are data: a new way to write a file is one more line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sds3d.export.check import check
from sds3d.formats.meshes.named_files import NamedFiles
from sds3d.formats.meshes.readers import surfaces_in
from sds3d.mesh_import.load import inspect_mesh, load_mesh
from tests.support.fuzzing import check_reader
from tests.support.sds3d.mesh_cubes import (
    COLORS,
    GREY,
    Wanted,
    corner_colors,
    obj_text,
    off,
    png,
    put,
    right,
    rows,
    seen_sides,
    sides,
    tiles,
    triangles,
)

DATA = Path(__file__).parents[2] / "data" / "obj"


# --- files after public reports ---


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("o03_backslash/m.obj", ""),
        ("o04_case/m.obj", "T.PNG, which it names, was found as t.png"),
        ("o06_absolute/m.obj", "was found as t.png"),
        ("o07_multi_mtllib/m.obj", ""),
        ("o12_quotes/m.obj", ""),
        ("o14b_vcol_uv.obj", "it has colours at its points"),
        ("o15_mixed/m.obj", "2 faces have no texture coordinates"),
    ],
)
def test_files_after_public_reports_have_their_colours(name: str, said: str) -> None:
    wanted: Wanted = COLORS
    if name.startswith("o15"):
        surfaces = surfaces_in(DATA / name, 100)
        assert surfaces.uv_of is not None
        bare = surfaces.positions[surfaces.faces[(surfaces.uv_of < 0).all(1)][0]]
        axis = int(np.argmin(np.ptp(bare, axis=0)))
        side = 2 * axis + int(bare[0, axis] < 0)
        wanted = tuple((128, 128, 128) if i == side else color for i, color in enumerate(COLORS))
    assert said in " ".join(right(DATA / name, wanted))
    assert not check(DATA / name)["problems"]


def test_decimal_commas_are_named() -> None:
    line = "o18_comma.obj cannot be read as OBJ: line 1: 0,5 has a decimal comma; expected a point, as in 0.5"
    assert line in check_reader(load_mesh, DATA / "o18_comma.obj")
    assert line in check_reader(check, DATA / "o18_comma.obj")


# --- MTL ---

MAPS = {
    "plain": "map_Kd t.png",
    "tabs and blanks": "\t map_Kd \t t.png  ",
    "another letter case": "MAP_KD t.png",
    "all options": "map_Kd -blendu on -blendv off -boost 1 -cc off -clamp off -texres 512 -bm 1 t.png",
    "scale and offset of one": "map_Kd -s 1 1 1 -o 0 0 0 -t 0 0 0 t.png",
    "scale of two numbers": "map_Kd -s 1 1 t.png",
    "options behind the name": "map_Kd t.png -s 1 1 1",
    "base and gain": "map_Kd -mm 0 1 t.png",
    "clamped": "map_Kd -clamp on t.png",
    "a comment behind": "map_Kd t.png # the skin",
    "a dot before": "map_Kd ./t.png",
    "folder": "map_Kd textures/t.png",
    "folder of Windows": "map_Kd textures\\t.png",
    "doubled separators": "map_Kd textures\\\\t.png",
    "doubled slashes": "map_Kd .//textures//t.png",
    "drive": "map_Kd C:\\Users\\me\\t.png",
    "drive and slashes": "map_Kd C:/Users/me/textures/t.png",
    "network share": "map_Kd \\\\server\\share\\t.png",
    "home": "map_Kd /home/me/t.png",
    "address of a file": "map_Kd file:///home/me/t.png",
    "above": "map_Kd ../textures/t.png",
    "far above": "map_Kd ..\\..\\..\\t.png",
    "letter case": "map_Kd T.PNG",
    "letter case of a folder": "map_Kd TEXTURES/t.PNG",
    "quotes": 'map_Kd "t.png"',
    "single quotes": "map_Kd 't.png'",
    "blanks": "map_Kd my tex.png",
    "blanks in quotes": 'map_Kd "my tex.png"',
    "blanks after options": "map_Kd -s 1 1 1 my tex.png",
    "several blanks": "map_Kd a  b.png",
    "percent signs": "map_Kd my%20tex.png",
    "percent in the name": "map_Kd 100%.png",
    "hash in the name": "map_Kd a#1.png",
    "number first": "map_Kd -s 1 1 1 2 t.png",
    "number alone": "map_Kd -o 0 0 0 7",
    "dash first": "map_Kd -t.png",
    "umlaut": "map_Kd Ärger.png",
    "umlaut, composed otherwise": "map_Kd A\u0308rger.png",
    "continued line": "map_Kd \\\n t.png",
    "ambient alone": "map_Ka t.png",
    "grey tint means nothing": "Kd 0.8 0.8 0.8\nmap_Kd t.png",
    "black means nothing": "Kd 0 0 0\nmap_Kd t.png",
    "emission on black": "Kd 0 0 0\nmap_Ke t.png",
    "the last counts": "map_Kd t.png\nmap_Kd my tex.png",
    "the first of a name counts": "map_Kd t.png\nnewmtl skin\nKd 1 0 0",
    "unknown words": "illum 2\nNi 1.45\nKs 0.5 0.5 0.5\nTf 1 1 1\nsharpness 60\nfoo bar\nmap_Kd t.png",
    "broken numbers elsewhere": "Ke x y z\nmap_Kd t.png",
    "refl is no colour": "refl -type sphere gone.png\nmap_Kd t.png",
}
"""Lines of a material that lay the picture on the cube."""


@pytest.mark.parametrize("way", MAPS)
def test_a_map_is_found_however_it_is_named(way: str, tmp_path: Path) -> None:
    content = png(tiles())
    names = (
        "t.png",
        "textures/t.png",
        "my tex.png",
        "a  b.png",
        "100%.png",
        "a#1.png",
        "2 t.png",
        "7",
        "-t.png",
        "Ärger.png",
    )
    path = put(tmp_path, **{name: content for name in names}, **{"m.mtl": f"newmtl skin\n{MAPS[way]}\n"})
    right(path)


COLOURS: dict[str, tuple[str, tuple[int, int, int]]] = {
    "three numbers": ("Kd 1 0.5 0", (255, 128, 0)),
    "one number": ("Kd 0.5", (128, 128, 128)),
    "bytes": ("Kd 255 128 0", (255, 128, 0)),
    "beyond one": ("Kd 1.2 0.5 0", (255, 128, 0)),
    "CIE XYZ": ("Kd xyz 0.4124 0.2126 0.0193", (255, 0, 0)),
    "no colour": ("illum 1", (128, 128, 128)),
    "spectral": ("Kd spectral a.rfl 1", (128, 128, 128)),
    "emission": ("Kd 0 0 0\nKe 0 1 0", (0, 255, 0)),
    "see-through": ("Kd 1 0.5 0\nd 0.2", (255, 128, 0)),
    "transparent, of two minds": ("Kd 1 0.5 0\nd 1\nTr 1", (255, 128, 0)),
    "a tint": ("Kd 1 0 0\nmap_Kd w.png", (255, 0, 0)),
    "gain": ("map_Kd -mm 0 0.5 w.png", (128, 128, 128)),
    "base": ("map_Kd -mm 0.25 0.5 w.png", (191, 191, 191)),
    "a picture that is gone": ("map_Kd gone.png", (128, 128, 128)),
    "a picture that is gone, white": ("Kd 1 1 1\nmap_Kd gone.png", (128, 128, 128)),
    "a picture that is gone, a colour": ("Kd 1 0.5 0\nmap_Kd gone.png", (255, 128, 0)),
    "a picture that is none": ("map_Kd m.obj", (128, 128, 128)),
    "a map without a name": ("Kd 1 0.5 0\nmap_Kd", (255, 128, 0)),
}


@pytest.mark.parametrize("way", COLOURS)
def test_colours_of_materials(way: str, tmp_path: Path) -> None:
    white = png(tiles().point(lambda value: 255))
    words, color = COLOURS[way]
    path = put(tmp_path, **{"w.png": white, "m.mtl": f"newmtl skin\n{words}\n"})
    remarks = " ".join(right(path, (color,) * 6))
    assert ("which it names, is not there" in remarks) == ("gone" in way)
    assert ("drawn solid" in remarks) == (way == "see-through")


def test_a_lost_map_is_said_by_its_name_in_texture_and_check(tmp_path: Path) -> None:
    path = put(tmp_path, **{"m.mtl": "newmtl skin\nmap_Kd -s 1 1 1 sub\\gone.png\n"})
    line = "sub\\gone.png, which it names, is not there; what it holds is left grey"
    assert line in load_mesh(path, 16).warnings
    assert line in check(path)["problems"]


def test_maps_of_roughness_metal_and_normals_are_kept(tmp_path: Path) -> None:
    flat, bump = tiles().point(lambda _: 51), tiles().point(lambda _: 128)
    blue = np.zeros((8, 8, 3), np.uint8) + np.array((128, 128, 255), np.uint8)
    from PIL import Image

    files = {"t.png": png(tiles()), "r.png": png(flat), "n.png": png(Image.fromarray(blue)), "h.png": png(bump)}
    lines = {
        "own": "Pr 1\nmap_Pr r.png\nPm 1\nmap_Pm -imfchan r r.png\nnorm n.png",
        "in bump": "map_Pr r.png\nmap_Pm r.png\nmap_Bump -bm 1.0 n.png",
        "in small letters": "map_pr r.png\nmap_pm r.png\nbump n.png",
    }
    for words in lines.values():
        path = put(tmp_path, **files, **{"m.mtl": f"newmtl skin\nmap_Kd t.png\n{words}\n"})
        maps = load_mesh(path, 32).mesh.maps
        assert maps is not None and maps.normals is not None
        assert np.unique(maps.roughness).tolist() == [51] and np.unique(maps.metallic).tolist() == [51]
        assert (maps.normals == (128, 128, 255)).all()
    path = put(tmp_path, **files, **{"m.mtl": "newmtl skin\nmap_Kd t.png\nPr 0.2\nPm 1\nbump h.png\n"})
    loaded = load_mesh(path, 32)
    assert loaded.mesh.maps is not None and loaded.mesh.maps.normals is None
    assert "h.png is a map of heights; it was left out" in loaded.warnings
    assert (int(loaded.mesh.maps.roughness.max()), int(loaded.mesh.maps.metallic.min())) == (51, 255)


def test_a_map_that_is_scaled_and_moved_lies_where_it_says(tmp_path: Path) -> None:
    uv = sides()[2]
    text = obj_text().replace(rows("vt", uv), rows("vt", (uv - (0.25, 0.5)) / (2, -3)))
    path = put(tmp_path, **{"m.obj": text, "m.mtl": "newmtl skin\nmap_Kd -s 2 -3 1 -o 0.25 0.5 0 t.png\n"})
    right(path)


def test_clamped_maps_show_their_border_and_others_repeat(tmp_path: Path) -> None:
    uv = sides()[2]
    text = obj_text().replace(rows("vt", uv), rows("vt", uv + np.array((0, 5))))
    right(put(tmp_path, **{"m.obj": text}))
    path = put(tmp_path, **{"m.obj": text, "m.mtl": "newmtl skin\nmap_Kd -clamp on t.png\n"})
    upper = (*COLORS[:3], *COLORS[:3])
    right(path, upper)


def test_alpha_hides_faces(tmp_path: Path) -> None:
    rows_ = np.full((32, 48), 255, np.uint8)
    rows_[:16, :16] = 0
    from PIL import Image

    path = put(tmp_path, **{"a.png": png(Image.fromarray(rows_)), "m.mtl": "newmtl skin\nmap_Kd t.png\nmap_d a.png\n"})
    loaded = load_mesh(path, 64)
    assert seen_sides(loaded.mesh) == {1, 2, 3, 4, 5}
    assert "2 faces that its alpha hides were left out" in loaded.warnings


# --- OBJ ---

LIBRARIES = {
    "one": "mtllib m.mtl",
    "several": "mtllib other.mtl m.mtl",
    "several lines": "mtllib other.mtl\nmtllib m.mtl",
    "quotes": 'mtllib "m.mtl"',
    "quotes and several": 'mtllib "other.mtl" "my lib.mtl"',
    "blanks": "mtllib my lib.mtl",
    "blanks and several": "mtllib other.mtl my lib.mtl",
    "Windows": "mtllib C:\\me\\m.mtl",
    "letter case": "mtllib M.MTL",
    "another ending": "mtllib other.mtl m.txt",
    "none but one beside": "g cube",
    "gone but one beside": "mtllib gone.mtl",
    "after tabs": "\tmtllib\tm.mtl",
}


@pytest.mark.parametrize("way", LIBRARIES)
def test_libraries_are_found_however_they_are_named(way: str, tmp_path: Path) -> None:
    skin = "newmtl skin\nmap_Kd t.png\n"
    files = {"m.mtl": skin, "my lib.mtl": skin, "m.txt": skin, "other.mtl": "newmtl nothing\nKd 1 0 0\n"}
    right(put(tmp_path, **files, **{"m.obj": obj_text(f"{LIBRARIES[way]}\nusemtl skin\n")}))


def corners(pattern: str, reverse: bool = False) -> str:
    """Faces of the cube's quads; {v} {n} {r} in a pattern are the number, and the number from the end."""
    lines = ""
    for quad in sides()[3].tolist():
        lines += "f " + " ".join(pattern.format(v=i + 1, n=i // 4 + 1, r=i - 24, m=i // 4 - 6) for i in quad) + "\n"
    return lines


NORMALS = rows("vn", sides()[1][::4])
SHAPES: dict[str, Callable[[], str]] = {
    "quads": obj_text,
    "triangles": lambda: obj_text(faces="".join("f {0}/{0} {1}/{1} {2}/{2}\n".format(*(t + 1)) for t in triangles())),
    "with normals": lambda: obj_text(faces=NORMALS + corners("{v}/{v}/{n}")),
    "empty normals": lambda: obj_text(faces=corners("{v}/{v}/")),
    "zero normals": lambda: obj_text(faces=corners("{v}/{v}/0")),
    "from the end": lambda: obj_text(faces=NORMALS + corners("{r}/{r}/{m}")),
    "from the end, all mixed": lambda: obj_text(faces=corners("{r}/{v}")),
    "Windows lines": lambda: obj_text(end="\r\n"),
    "old Mac lines": lambda: obj_text(end="\r"),
    "continued lines": lambda: obj_text(faces=corners("{v}/{v} \\\n")),
    "comments": lambda: obj_text("# a cube\n#mtllib no.mtl\nmtllib m.mtl\nusemtl skin\n").replace("\nf ", " # v\nf "),
    "tabs": lambda: obj_text().replace("v ", "v\t").replace("f ", "f\t "),
    "indented": lambda: "  " + obj_text().replace("\n", "\n   "),
    "byte order mark": lambda: "\ufeff" + obj_text(),
    "groups and smoothing": lambda: obj_text(faces="o a\ng a b\ns 1\n" + corners("{v}/{v}") + "s off\ng\n"),
    "points and lines too": lambda: obj_text() + "p 1\nl 1 2 3\n",
    "curves too": lambda: obj_text() + "cstype bezier\ndeg 3\ncurv 0 1 1 2 3 4\nend\n",
    "faces first": lambda: obj_text("", corners("{v}/{v}")).replace("\nvt", "\nvt", 1) + "",
    "vertex weights": lambda: obj_text().replace("5\nv ", "5 1.0\nv "),
    "three texture coordinates": lambda: obj_text().replace("\nvt", " 0\nvt").replace("vt 0", "vt 0", 1),
    "fo instead of f": lambda: obj_text(faces=corners("{v}/{v}").replace("f ", "fo ")),
    "names in another case": lambda: obj_text("mtllib m.mtl\nusemtl Skin \n"),
    "material in quotes": lambda: obj_text('mtllib m.mtl\nusemtl "skin"\n'),
    "exponents": lambda: obj_text().replace("0.5 ", "5e-1 "),
    "whole floats": lambda: obj_text(faces=corners("{v}.0/{v}.0")),
    "no line end": lambda: obj_text().rstrip("\n"),
}


@pytest.mark.parametrize("way", SHAPES)
def test_obj_is_read_however_it_is_written(way: str, tmp_path: Path) -> None:
    text = SHAPES[way]()
    if way == "faces first":
        first, _, rest = text.partition("f ")
        text = "mtllib m.mtl\nusemtl skin\nf " + rest + first
    right(put(tmp_path, **{"m.obj": text}))


SQUARES = {
    "Windows lines": "v 0 0 0\r\nv 1 0 0\r\nv 1 1 0\r\nv 0 1 0\r\nf 1 2 3 4\r\n",
    "byte order mark, from the end": "\ufeffv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf -4 -3 -2 -1\n",
    "a continued face": "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1 2 \\\n3 4\n",
    "weights and slashes": "g a\ns off\nv\t0 0 0 1\nv 1 0 0 1\nv 1 1 0 1\nv 0 1 0 1\nl 1 2\nf 1// 2// 3// 4//\n",
    "points after faces": "v 0 0 0\nv 1 0 0\nf 1 2 3\nv 1 1 0\nv 0 1 0\nf 1 3 4\n",
    "coordinates that are not there": "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1/7 2/8 3/9 4/9\n",
}


@pytest.mark.parametrize("way", SQUARES)
def test_a_square_without_more_is_two_triangles(way: str, tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text(SQUARES[way], encoding="utf-8", newline="")
    parts, remarks = inspect_mesh(tmp_path / "a.obj")
    assert len(parts.faces) == 2 and len(np.unique(parts.vertices, axis=0)) == 4
    assert any("texture coordinates that are not there" in line for line in remarks) == ("not there" in way)


def test_vertex_colours_of_obj(tmp_path: Path) -> None:
    spots, _, uv, _ = sides()
    ways = {
        "shares": np.concatenate([spots, corner_colors() / 255], -1),
        "bytes": np.concatenate([spots, corner_colors()], -1),
        "bytes with alpha": np.concatenate([spots, corner_colors(), np.full((24, 1), 255)], -1),
        "with alpha": np.concatenate([spots, corner_colors() / 255, np.ones((24, 1))], -1),
    }
    for table in ways.values():
        for faces in (corners("{v}"), corners("{v}/{v}")):
            text = rows("v", table) + rows("vt", uv) + faces
            right(put(tmp_path, **{"m.obj": text}))
            right(put(tmp_path, **{"m.obj": "mtllib m.mtl\nusemtl skin\n" + text, "m.mtl": "newmtl skin\nKd 1 1 1\n"}))
    painted = "".join(f"ff{r:02x}{g:02x}{b:02x}" for r, g, b in corner_colors().tolist())
    text = rows("v", spots) + f"#MRGB {painted[:96]}\n#MRGB {painted[96:]}\n" + corners("{v}")
    right(put(tmp_path, **{"m.obj": text}))


def test_a_texture_hides_vertex_colours_and_that_is_said(tmp_path: Path) -> None:
    spots, _, uv, _ = sides()
    text = rows("v", np.concatenate([spots, 1 - corner_colors() / 255], -1)) + rows("vt", uv) + corners("{v}/{v}")
    remarks = right(put(tmp_path, **{"m.obj": "mtllib m.mtl\nusemtl skin\n" + text}))
    assert "colours at its points were left out where a texture lies" in remarks


def test_encodings_of_names(tmp_path: Path) -> None:
    for encoding in ("utf-8", "utf-8-sig", "cp1252"):
        words = "newmtl Fläche\nmap_Kd Öl.png\n".encode(encoding)
        text = obj_text("mtllib Möbel.mtl\nusemtl Fläche\n").encode(encoding)
        right(put(tmp_path, **{"m.obj": text, "Möbel.mtl": words, "Öl.png": png(tiles())}))
    for encoding in ("utf-16", "utf-16-le", "utf-32"):
        path = put(tmp_path, **{"m.obj": obj_text().encode(encoding)})
        assert "m.obj is text in UTF-16 or UTF-32; expected UTF-8: save it as UTF-8" in check_reader(load_mesh, path)
    path = put(tmp_path, **{"m.mtl": "newmtl skin\nmap_Kd t.png\n".encode("utf-16")})
    assert any("m.mtl is text in UTF-16" in line for line in load_mesh(path, 16).warnings)


def test_smoothing_groups_give_normals(tmp_path: Path) -> None:
    spots, _, _, quads = sides()
    points, index = np.unique(spots, axis=0, return_inverse=True)
    faces = [" ".join(str(index.reshape(-1)[i] + 1) for i in quad) for quad in quads.tolist()]
    for group, flat in (("off", True), ("0", True), ("1", False)):
        text = rows("v", points) + f"s {group}\n" + "".join(f"f {face}\n" for face in faces)
        (tmp_path / "m.obj").write_text(text)
        surfaces = surfaces_in(tmp_path / "m.obj", 100)
        assert surfaces.normals is not None and surfaces.normal_of is not None
        normals = surfaces.normals[surfaces.normal_of]
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
        assert (np.abs(normals).max(-1).min() == pytest.approx(1)) == flat


def test_polygons_with_dents_stay_inside_their_outline(tmp_path: Path) -> None:
    outlines = {
        "arrow": [(0, 0), (4, -3), (1, 0), (4, 3)],
        "L": [(0, 0), (3, 0), (3, 1), (1, 1), (1, 3), (0, 3)],
        "comb": [(0, 0), (9, 0), (9, 5), (7, 5), (7, 1), (5, 1), (5, 5), (3, 5), (3, 1), (1, 1), (1, 5), (0, 5)],
    }
    for outline in outlines.values():
        for turn in range(len(outline)):
            points = np.array(outline[turn:] + outline[:turn], float)
            area = (
                abs(
                    np.cross(points, np.roll(points, -1, 0)).sum()
                    if points.shape[1] == 3
                    else (points[:, 0] * np.roll(points[:, 1], -1) - points[:, 1] * np.roll(points[:, 0], -1)).sum()
                )
                / 2
            )
            table = np.concatenate([points, np.zeros((len(points), 1))], -1)
            (tmp_path / "m.obj").write_text(rows("v", table) + "f " + " ".join(map(str, range(1, len(points) + 1))))
            surfaces = surfaces_in(tmp_path / "m.obj", 100)
            a, b, c = surfaces.positions[surfaces.faces].transpose(1, 0, 2)
            assert np.abs(np.cross(b - a, c - a)[:, 2]).sum() / 2 == pytest.approx(area)


def test_nothing_outside_the_folder_is_read(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (tmp_path / "t.png").write_bytes(png(tiles()))
    (tmp_path / "m.mtl").write_text("newmtl skin\nKd 1 0 0\n")
    (own / "linked.png").symlink_to(tmp_path / "t.png")
    (own / "up").symlink_to(tmp_path)
    opened = []

    def listen(event: str, given: Any) -> None:
        if watching and event == "open" and isinstance(given[0], str | bytes | Path):
            opened.append(Path(str(given[0])).resolve())

    watching = True
    sys.addaudithook(listen)
    for name in ("../t.png", str(tmp_path / "t.png"), "linked.png", "up/t.png", "http://127.0.0.1:9/t.png", "/dev/zero",
                 "..\\t.png", "%2e%2e/t.png", "up\\t.png", "\\\\127.0.0.1\\t.png"):  # fmt: skip
        (own / "m.mtl").write_text(f"newmtl skin\nmap_Kd {name}\n")
        (own / "m.obj").write_text(obj_text())
        assert NamedFiles(own).find(name) is None
        assert off(load_mesh(own / "m.obj", 16).mesh, GREY) <= 1
        (own / "n.obj").write_text(obj_text(f"mtllib {name.replace('t.png', 'm.mtl')}\nusemtl skin\n"))
        load_mesh(own / "n.obj", 16)
    watching = False
    inside = [path for path in opened if path.is_relative_to(tmp_path)]
    assert inside and all(path.is_relative_to(own) for path in inside)


def test_two_files_that_differ_only_in_letter_case_are_not_guessed(tmp_path: Path) -> None:
    for name in ("a.png", "A.png"):
        (tmp_path / name).write_bytes(b"")
    if len(list(tmp_path.iterdir())) == 2:
        assert NamedFiles(tmp_path).find("a.PNG") is None
        assert NamedFiles(tmp_path).find("A.png") == (tmp_path / "A.png").resolve()
