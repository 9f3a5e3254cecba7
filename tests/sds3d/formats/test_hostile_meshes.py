"""OBJ, MTL, PLY, STL and OFF files made to take long, to take much memory, or to show what lies outside."""

from __future__ import annotations

import functools
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sds3d.export.check import check
from sds3d.formats.mesh_reader import facts_of
from sds3d.mesh_import.load import READABLE_SUFFIXES, load_mesh
from tests.support.fuzzing import check_reader
from tests.support.sds3d.gltf_cube import Cube
from tests.support.sds3d.mesh_cubes import threemf

SECONDS = 15.0
"""For both readers of one file, on a machine that does other things too."""
POINTS = b"v 0 0 0\nv 1 0 0\nv 0 1 0\n"
SQUARE = (
    b"mtllib m.mtl\nusemtl skin\n" + POINTS + b"v 1 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nvt 1 1\nf 1/1 2/2 3/3\nf 2/2 4/4 3/3\n"
)
SECRET = (255, 0, 255)
TABLE = b"element vertex %d\nproperty float x\nproperty float y\nproperty float z\nelement face %d\n"


def ply(form: bytes, vertices: int, faces: int, body: bytes, count: bytes = b"uchar") -> bytes:
    lists = b"property list " + count + b" int vertex_indices\nend_header\n"
    return b"ply\nformat " + form + b" 1.0\n" + TABLE % (vertices, faces) + lists + body


def worn(count: int) -> bytes:
    """Triangles that all have another material, and texture coordinates."""
    spots = b"".join(b"v %d 0 0\nv %d 1 0\nv %d 0 1\n" % (number, number, number) for number in range(count))
    faces = (b"usemtl a%d\nf %d/1 %d/2 %d/3\n" % (n, 3 * n + 1, 3 * n + 2, 3 * n + 3) for n in range(count))
    return spots + b"vt 0 0\nvt 1 0\nvt 0 1\n" + b"".join(faces)


def package(count: int, corner: str = "0") -> bytes:
    """A 3MF file whose triangles all have another group of colours."""
    groups = "".join(f'<m:colorgroup id="c{n}"><m:color color="#FF0000"/></m:colorgroup>' for n in range(count))
    spots = "".join(f'<vertex x="{n}" y="{n % 7}" z="{n % 5}"/>' for n in range(count + 2))
    faces = "".join(f'<triangle v1="{n}" v2="{n + 1}" v3="{corner}" pid="c{n}" p1="0"/>' for n in range(1, count + 1))
    mesh = f"<mesh><vertices>{spots}</vertices><triangles>{faces}</triangles></mesh>"
    return threemf(f'{groups}<object id="9">{mesh}</object>')


TRIANGLE = b"0 0 0\n1 0 0\n0 1 0\n"
FILES: dict[str, tuple[str, bytes]] = {
    "rows that are not there": ("a.ply", ply(b"ascii", 4 * 10**9, 4 * 10**9, b"0 0 0\n")),
    "more rows than any disk": ("a.ply", ply(b"binary_little_endian", 10**12, 10**12, bytes(100))),
    "fewer rows than none": ("a.ply", ply(b"ascii", -1, -1, TRIANGLE)),
    "a face of 2e9 corners": ("a.ply", ply(b"ascii", 3, 1, TRIANGLE + b"2000000000 0 1 2\n", b"int")),
    "a corner of 20 digits": ("a.ply", ply(b"ascii", 3, 1, TRIANGLE + b"3 0 1 99999999999999999999\n")),
    "a million empty faces": ("a.ply", ply(b"binary_little_endian", 3, 10**6, bytes(36 + 10**6))),
    "rows without columns": (
        "a.ply",
        b"ply\nformat binary_little_endian 1.0\nelement junk 99999999999\nelement vertex 0\nend_header\n",
    ),
    "off: lines that are not there": ("a.off", b"OFF\n4000000000 4000000000 0\n0 0 0\n"),
    "off: a face of 2e9 corners": ("a.off", b"OFF\n3 1 0\n" + TRIANGLE + b"2000000000 0 1 2\n"),
    "stl: triangles that are not there": ("a.stl", b"x" * 80 + b"\xff\xff\xff\xff" + bytes(50)),
    "an index of 5000 digits": ("a.obj", POINTS + b"f 1 2 " + b"9" * 5000 + b"\n"),
    "a coordinate of many digits": ("a.obj", b"v " + b"1" * 500_000 + b" 0 0\n"),
    "a polygon of many corners": ("a.obj", POINTS + b"f " + b"1 2 3 " * 100_000 + b"\n"),
    "a vertex of many numbers": ("a.obj", b"v " + b"1 " * 2_000_000),
    "a line continued without end": ("a.obj", b"\\\n" * 100_000),
    "slashes": ("a.obj", b"v 0 0 0\nf " + b"/" * 1_000_000),
    "blanks": ("a.obj", b"mtllib" + b" " * 1_000_000 + b"x\n" + POINTS + b"f 1 2 3\n"),
    "zeros": ("a.obj", bytes(1000)),
    "a material a face": (
        "a.obj",
        POINTS + b"".join(b"usemtl a%d\nf 1 2 3\n" % number for number in range(20_000)),
    ),
    "many libraries": ("a.obj", b"mtllib " + b"a.mtl " * 50_000 + b"\n" + POINTS + b"f 1 2 3\n"),
    "many words for libraries": ("a.obj", b"mtllib " + b"a " * 50_000 + b"\n" + POINTS + b"f 1 2 3\n"),
    "many names of libraries": (
        "a.obj",
        b"mtllib " + b" ".join(b"a%d.mtl" % number for number in range(20_000)) + b"\n" + POINTS + b"f 1 2 3\n",
    ),
    "many materials in use": ("a.obj", b"mtllib many.mtl\n" + worn(400)),
    "blanks before a backslash": ("a.obj", b" " * 1_000_000 + b"x\\\n" + POINTS + b"f 1 2 3\n"),
    "empty lines": ("a.obj", b"\n" * 100_000),
    "empty lines, ply": ("a.ply", b"\n" * 100_000),
    "elements": ("a.ply", b"ply\nformat ascii 1.0\n" + b"element a 0\n" * 20_000 + b"end_header\n"),
    "off: a corner of 20 digits": ("a.off", b"OFF\n3 1 0\n" + TRIANGLE + b"3 0 1 99999999999999999999\n"),
    "obj: a corner of 20 digits": ("a.obj", POINTS + b"f 1 2 99999999999999999999\n"),
    "obj: a corner of 20 digits from the end": ("a.obj", POINTS + b"f 1 2 -99999999999999999999\n"),
    "3mf: a group a triangle": ("a.3mf", package(10_000)),
    "3mf: a corner of 20 digits": ("a.3mf", package(1, "9" * 20)),
    "a pipe as its library": ("a.obj", SQUARE.replace(b"m.mtl", b"pipe.mtl")),
}
MATERIALS: dict[str, str] = {
    "blanks before a backslash": "map_Kd" + " " * 1_000_000 + "\\ t.png",
    "many comments": "map_Kd" + " #" * 500_000,
    "many of a name": "newmtl skin\n" * 100_000,
    "a link that leads out": "map_Kd link.png",
    "a folder that leads out": "map_Kd out/s.png",
    "a way up": "map_Kd ../secret/s.png",
    "a way up, Windows": "map_Kd ..\\secret\\s.png",
    "a way up, percent signs": "map_Kd %2e%2e/secret/s.png",
    "a place on the disk": "map_Kd {secret}/s.png",
    "a place on the disk, an address": "map_Kd file://{secret}/s.png",
    "an address": "map_Kd http://127.0.0.1:9/a.png",
    "a device": "map_Kd /dev/zero",
    "a pipe": "map_Kd pipe.png",
    "a folder": "map_Kd folder.png",
    "itself": "map_Kd .",
    "a zero in the name": "map_Kd a\0b.png",
    "a name of 5000 letters": "map_Kd " + "a" * 5000 + ".png",
    "many options": "map_Kd " + "-s 1 " * 50_000 + "t.png",
    "many quotes": "map_Kd " + '"' * 100_000,
    "many materials": "\n".join(f"newmtl m{number}\nmap_Kd t{number}.png" for number in range(20_000)),
}


def both(path: Path) -> None:
    """As a user would: loaded, and looked at."""
    refused = None
    for read in (functools.partial(load_mesh, texture=16, faces=2000), check):
        try:
            read(path)
        except (ValueError, OSError, ImportError) as error:
            refused = error
    if refused is not None:
        raise refused


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with pipes and with links to a picture outside it."""
    monkeypatch.setenv("PATH", "")
    secret, home = tmp_path / "secret", tmp_path / "home"
    secret.mkdir()
    home.mkdir()
    Image.new("RGB", (8, 8), SECRET).save(secret / "s.png")
    (home / "link.png").symlink_to(secret / "s.png")
    (home / "out").symlink_to(secret)
    (home / "folder.png").mkdir()
    for name in ("pipe.png", "pipe.mtl"):
        os.mkfifo(home / name)
    (home / "m.mtl").write_text("newmtl skin\n")
    Image.new("RGB", (128, 128), (128, 128, 255)).save(home / "blue.png")
    maps = "map_Kd -mm 0 0.{0:03} blue.png\nbump blue.png\nmap_Pr blue.png\nmap_d blue.png\n"
    (home / "many.mtl").write_text("".join(f"newmtl a{n}\n" + maps.format(n) for n in range(400)))
    return home


@pytest.fixture(autouse=True)
def _awake() -> Iterator[None]:
    """A reader that waits for a pipe is woken."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it took over 40 s"))
    signal.alarm(40)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", FILES)
def test_files_that_ask_for_too_much_are_answered_in_one_line_and_soon(name: str, folder: Path) -> None:
    file, content = FILES[name]
    (folder / file).write_bytes(content)
    check_reader(both, folder / file, SECONDS)


@pytest.mark.parametrize("name", MATERIALS)
def test_materials_show_nothing_from_outside_and_end_soon(name: str, folder: Path) -> None:
    words = MATERIALS[name].replace("{secret}", str(folder.parent / "secret"))
    (folder / "m.mtl").write_text(f"newmtl skin\nKd 0.2 0.4 0.6\n{words}\n")
    (folder / "a.obj").write_bytes(SQUARE)
    said = check_reader(both, folder / "a.obj", SECONDS)
    if not said:
        shown = load_mesh(folder / "a.obj", 16).mesh.texture.reshape(-1, 3).astype(int)
        assert np.abs(shown - SECRET).sum(1).min() > 60


@pytest.mark.parametrize("ending", [*READABLE_SUFFIXES, ".usdz", ".usda", ".splat", ".spz", ".png", ".mp4"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_is_refused_at_once(make: Callable[[Path], None], ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{ending}"
    make(path)
    for read in (load_mesh, check, facts_of):
        said = check_reader(read, path, SECONDS)
        assert ("; expected a file" in said) or (read is load_mesh and "expected a mesh" in said)


STAGE = """#usda 1.0
({layers})
def Mesh "m"
{{
    point3f[] points = [(0, 0, 0), (1, 0, 0), (0, 1, 0)]
    int[] faceVertexCounts = [3]
    int[] faceVertexIndices = [0, 1, 2]
}}
def Shader "s"
{{
    uniform token info:id = "UsdUVTexture"
    asset inputs:file = @{texture}@
}}
"""


@pytest.mark.parametrize("name", ["pipe.png", "folder.png", "link.png"])
def test_a_stage_that_names_what_is_no_file_of_its_folder_is_told(name: str, folder: Path) -> None:
    pytest.importorskip("pxr")
    (folder / "a.usda").write_text(STAGE.format(layers="", texture=f"./{name}"))
    assert any(f"{name}, which it names, is" in line for line in check(folder / "a.usda")["problems"])
    (folder / "a.usda").write_text(STAGE.format(layers=f"subLayers = [@./{name}@]", texture="./s.png"))
    assert f"{name}, which it names, is" in check_reader(check, folder / "a.usda", SECONDS)


@pytest.mark.parametrize("name", ["pipe.png", "folder.png", "link.png", "pipe.mtl"])
@pytest.mark.parametrize("role", ["buffers", "images"])
def test_a_gltf_file_that_names_what_is_no_file_of_its_folder_is_told(role: str, name: str, folder: Path) -> None:
    cube = Cube()
    cube.write(folder / "a.gltf")
    tree = json.loads((folder / "a.gltf").read_text())
    tree[role] = [{"uri": name, **({"byteLength": tree["buffers"][0]["byteLength"]} if role == "buffers" else {})}]
    (folder / "a.gltf").write_text(json.dumps(tree))
    said = check_reader(check, folder / "a.gltf", SECONDS) or " ".join(check(folder / "a.gltf")["problems"])
    assert name in said and "which it names, is" in said


def test_a_pipe_where_the_origin_would_stand_is_passed_by(folder: Path) -> None:
    (folder / "a.stl").write_bytes(bytes(84))
    os.mkfifo(folder / "a.stl.origin.json")
    assert facts_of(folder / "a.stl") is None


def test_of_very_many_lacking_files_the_first_are_named_and_the_rest_counted(folder: Path) -> None:
    names = [f"gone{number}.mtl" for number in range(200)]
    (folder / "a.obj").write_text(f"mtllib {' '.join(names)}\n{POINTS.decode()}f 1 2 3\n")
    wrong = check(folder / "a.obj")["problems"]
    assert len(wrong) < 60 and names[0] in wrong[0] and wrong[-1] == "and 150 more of that kind"
