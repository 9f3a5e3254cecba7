"""glTF files of other programs: the colours and the size come out right, or one line says what cannot be had."""

from __future__ import annotations

import json
import struct
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy import ndarray
from PIL import Image

from sds3d.__main__ import main
from sds3d.export.check import check
from sds3d.formats.gltf import images
from sds3d.mesh_import.load import FIT, load_mesh
from tests.support.fuzzing import check_reader, make_glb
from tests.support.sds3d.gltf_cube import COLORS, Change, Cube, linear, off, png, seen_sides, sides, tiles

DATA = Path(__file__).parents[2] / "data" / "gltf"
CLOSE = 14
"""Levels of 255 within which colours have to be."""
SCALE = FIT / (3**0.5 / 2)
"""Of a cube of side 1."""
MAGENTA = (*COLORS[:5], None)

REPORTED: dict[str, tuple[tuple[int, int, int] | None, ...]] = {
    **{name: COLORS for name in (
        "00_plain.glb", "01_texture_transform.glb", "02_texcoord1.glb", "03_quantised.glb", "04_gltfpack.glb",
        "15_vcol_times_texture.glb", "16_vcol_material.glb", "17_vcol_u16.glb", "18_specgloss.glb",
        "19_emissive_only.glb", "20_strip_fan.glb", "26 spaced/my model é.gltf", "26b/a.gltf", "32_stray.glb",
        "33_mask.glb")},
    "29_two_textures.glb": (*COLORS[:5], (255, 0, 255)),
}  # fmt: skip
"""Files after situations in public reports, with the colours of their sides."""
SAID = {
    "05_draco.glb": "KHR_draco_mesh_compression is damaged",
    "06_meshopt.glb": "EXT_meshopt_compression is damaged",
    "27_nobuf/a.gltf": "gone.bin, which it names, is missing",
}
"""Files that cannot be read, with what is said."""
REMARKED = {
    "09_ktx2.glb": "KTX2 (KHR_texture_basisu), which is not decoded here",
    "19_emissive_only.glb": "its emissive texture is part of its colour",
    "32_stray.glb": "1 faces lie up to 513 times as far out as the rest",
    "33_mask.glb": "4 faces that its alpha hides were left out",
}
"""Files with something that has to be said."""


@pytest.mark.parametrize("name", REPORTED)
def test_reported_files_have_their_colours_and_their_size(name: str) -> None:
    loaded = load_mesh(DATA / name, 256)
    assert off(loaded.mesh, REPORTED[name]) <= CLOSE
    assert loaded.placement.scale == pytest.approx(SCALE, rel=0.01)


@pytest.mark.parametrize("name", SAID)
def test_reported_files_that_cannot_be_read_are_refused_in_one_line(name: str) -> None:
    for read in (load_mesh, check):
        assert SAID[name] in check_reader(read, DATA / name)


@pytest.mark.parametrize("name", REMARKED)
def test_reported_files_with_something_to_say_say_it(name: str) -> None:
    assert [line for line in load_mesh(DATA / name, 64).warnings if REMARKED[name] in line]
    report = check(DATA / name)
    assert [line for line in report["remarks"] + report["problems"] if REMARKED[name].split(" were")[0] in line]


def test_strays_can_be_kept() -> None:
    assert load_mesh(DATA / "32_stray.glb", 64, strays=True).placement.scale < 0.01
    report = check(DATA / "32_stray.glb")
    assert report["remarks"] == ["1 of 2 parts have no texture coordinates"]
    assert not [line for line in report["problems"] if "coordinates" in line]
    bounds = report["bounds"]
    assert bounds["to"][0] > 499 and bounds["robust"]["to"] == [0.5, 0.5, 0.5]


# --- every way to store the same cube ---


def stored(name: str, kind: str, factor: float, normalized: bool, stride: int = 0, **node: Any) -> Change:
    def change(cube: Cube) -> None:
        values = dict(zip(("POSITION", "NORMAL", "TEXCOORD_0"), sides()[:3], strict=True))[name] * factor
        rounded = values if kind == "f" else np.rint(values)
        cube.primitive["attributes"][name] = cube.accessor(rounded.astype(kind), normalized, stride)
        cube.json["nodes"][0] |= node

    return change


def transformed(offset: list[float], scale: list[float], rotation: float) -> Change:
    """Texture coordinates that only KHR_texture_transform puts in place."""

    def change(cube: Cube) -> None:
        cos, sin = np.cos(rotation), np.sin(rotation)
        back = sides()[2] - offset
        uv = np.stack([cos * back[:, 0] - sin * back[:, 1], sin * back[:, 0] + cos * back[:, 1]], -1) / scale
        cube.primitive["attributes"] |= {"TEXCOORD_0": cube.accessor(uv.astype("f"))}
        extension = {"offset": offset, "scale": scale, "rotation": rotation}
        cube.base["extensions"] = {"KHR_texture_transform": extension}

    return change


def far_set(number: int, by_extension: bool = False) -> Change:
    def change(cube: Cube) -> None:
        attributes = cube.primitive["attributes"]
        attributes[f"TEXCOORD_{number}"] = attributes["TEXCOORD_0"]
        attributes["TEXCOORD_0"] = cube.accessor(np.zeros((24, 2), "f"))
        where = cube.base.setdefault("extensions", {"KHR_texture_transform": {}})["KHR_texture_transform"]
        (where if by_extension else cube.base)["texCoord"] = number

    return change


def wrapped(mode: int, function: Any) -> Change:
    """Texture coordinates outside the picture that a wrap mode brings back."""

    def change(cube: Cube) -> None:
        cube.json["samplers"] = [{"wrapS": mode, "wrapT": mode}]
        cube.json["textures"][0]["sampler"] = 0
        cube.primitive["attributes"]["TEXCOORD_0"] = cube.accessor(function(sides()[2]).astype("f"))

    return change


def corner_colors() -> ndarray:
    return np.repeat([linear(color) for color in COLORS], 4, 0)


def colored(kind: str, factor: float, width: int, keep: str = "") -> Change:
    """Colours at the points, with the texture, a plain material or none."""

    def change(cube: Cube) -> None:
        colors = np.concatenate([corner_colors(), np.ones((24, 1))], -1)[:, :width] * factor
        values = colors if kind == "f" else np.rint(colors)
        stride = -(-values.astype(kind)[0].nbytes // 4) * 4
        cube.primitive["attributes"]["COLOR_0"] = cube.accessor(values.astype(kind), kind != "f", stride)
        if keep == "material":
            del cube.material["pbrMetallicRoughness"]["baseColorTexture"]
        elif keep == "texture":
            cube.json["images"][0]["bufferView"] = cube.view(png(Image.new("RGB", (4, 4), "white")))
        else:
            del cube.primitive["material"]

    return change


def topology(mode: int) -> Change:
    def change(cube: Cube) -> None:
        order = [0, 1, 3, 2] if mode == 5 else [0, 1, 2, 3]
        cube.json["meshes"][0]["primitives"] = [
            cube.primitive
            | {"mode": mode, "indices": cube.accessor(np.array(order, "H")[:, None] + np.uint16(4 * side))}
            for side in range(6)
        ]

    return change


def sewn_strip(cube: Cube) -> None:
    """All sides as one strip, sewn together by triangles without area."""
    order = [corner + 4 * side for side in range(6) for corner in (0, 1, 3, 2, 2, 4)][:-1]
    cube.primitive |= {"mode": 5, "indices": cube.accessor(np.array(order, "H")[:, None])}


def without_indices(cube: Cube) -> None:
    corners = sides()[3].reshape(-1)
    for name, values in zip(("POSITION", "NORMAL", "TEXCOORD_0"), sides()[:3], strict=True):
        cube.primitive["attributes"][name] = cube.accessor(values[corners].astype("f"))
    del cube.primitive["indices"]


def indices(kind: str) -> Change:
    def change(cube: Cube) -> None:
        cube.primitive["indices"] = cube.accessor(sides()[3].reshape(-1, 1).astype(kind))

    return change


def sparse(base: bool) -> Change:
    """Four positions wrong, or all of them zero, and put right by a sparse accessor."""

    def change(cube: Cube) -> None:
        rows = np.arange(4 if base else 24)
        entry = cube.json["accessors"][cube.primitive["attributes"]["POSITION"]]
        right = sides()[0].astype("f")
        if base:
            wrong = right.copy()
            wrong[:4] = 7
            entry["bufferView"] = cube.view(wrong.tobytes())
        else:
            del entry["bufferView"]
        entry["sparse"] = {
            "count": len(rows),
            "indices": {"bufferView": cube.view(rows.astype("B").tobytes()), "componentType": 5121},
            "values": {"bufferView": cube.view(right[rows].tobytes())},
        }

    return change


def nodes(*chain: dict[str, Any]) -> Change:
    """The cube under a chain of nodes."""

    def change(cube: Cube) -> None:
        cube.json["nodes"] = [node | {"children": [k + 1]} for k, node in enumerate(chain)] + [{"mesh": 0}]

    return change


def mirrored(cube: Cube) -> None:
    """A cube that is stored inside out and mirrored in x, under a node that mirrors it back."""
    spots, normals, _, corners = sides()
    flip = np.array([-1.0, 1, 1])
    cube.primitive["attributes"] |= {
        "POSITION": cube.accessor((spots * flip).astype("f")), "NORMAL": cube.accessor((normals * flip).astype("f")),
    }  # fmt: skip
    cube.primitive["indices"] = cube.accessor(corners[:, ::-1].reshape(-1, 1).astype("H"))
    cube.json["nodes"][0]["scale"] = [-1, 1, 1]


def skinned(cube: Cube) -> None:
    """A cube twice as large, brought back by the only bone that it hangs on; its own node does not count."""
    attributes = cube.primitive["attributes"]
    attributes["POSITION"] = cube.accessor((2 * sides()[0]).astype("f"))
    attributes["JOINTS_0"] = cube.accessor(np.zeros((24, 4), "B"))
    attributes["WEIGHTS_0"] = cube.accessor(np.tile([1, 0, 0, 0], (24, 1)).astype("f"))
    cube.json["nodes"] = [{"mesh": 0, "skin": 0, "scale": [1, 9, 1]}, {"scale": [0.5, 0.5, 0.5]}]
    cube.json["scenes"][0]["nodes"] = [0, 1]
    cube.json["skins"] = [{"joints": [1], "inverseBindMatrices": cube.accessor(np.eye(4, dtype="f").reshape(1, 16))}]


def morphed(cube: Cube) -> None:
    spots = sides()[0]
    cube.primitive["attributes"]["POSITION"] = cube.accessor((3 * spots).astype("f"))
    cube.primitive["targets"] = [{"POSITION": cube.accessor((-4 * spots).astype("f"))}]
    cube.json["meshes"][0]["weights"] = [0.5]


def instanced(cube: Cube) -> None:
    place = cube.accessor(np.array([[0.25, 0, 0]], "f"))
    cube.json["nodes"][0]["extensions"] = {"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": place}}}


def pictured(mode: str, kind: str = "PNG") -> Change:
    def change(cube: Cube) -> None:
        cube.json["images"][0]["bufferView"] = cube.view(png(tiles(mode), kind))

    return change


def by_extension(name: str, kind: str) -> Change:
    def change(cube: Cube) -> None:
        pictured("RGB", kind)(cube)
        cube.json["textures"][0] = {"extensions": {name: {"source": 0}}}
        cube.json["extensionsRequired"] = [name]

    return change


def glossy(cube: Cube) -> None:
    cube.json["materials"] = [{"extensions": {"KHR_materials_pbrSpecularGlossiness": {
        "diffuseTexture": {"index": 0}, "specularFactor": [0.04] * 3}}}]  # fmt: skip


def glowing(base: list[float]) -> Change:
    def change(cube: Cube) -> None:
        cube.json["materials"] = [{
            "pbrMetallicRoughness": {"baseColorFactor": base, "metallicFactor": 0},
            "emissiveTexture": {"index": 0}, "emissiveFactor": [1, 1, 1],
        }]  # fmt: skip

    return change


def no_scene(cube: Cube) -> None:
    del cube.json["scene"], cube.json["scenes"]


def data_uri(prefix: str) -> Change:
    def change(cube: Cube) -> None:
        import base64

        cube.json["images"][0] = {"uri": prefix + base64.b64encode(png(tiles())).decode()}

    return change


def draco(cube: Cube) -> None:
    draco_py = pytest.importorskip("DracoPy")
    spots, normals, uv, corners = sides()
    stream = draco_py.encode(
        spots.astype("f"), corners.astype(np.uint32), quantization_bits=14, tex_coord=uv.astype(np.float64),
        normals=normals.astype(np.float64),
    )  # fmt: skip
    # The stream holds positions, then coordinates and normals; their ids are in it.
    ids = {one["attribute_type"]: one["unique_id"] for one in draco_py.decode(stream).attributes}
    attributes = cube.primitive["attributes"]
    for index in (*attributes.values(), cube.primitive["indices"]):
        del cube.json["accessors"][index]["bufferView"]
    mapping = {name: ids[kind] for name, kind in (("POSITION", 0), ("NORMAL", 1), ("TEXCOORD_0", 3))}
    points = len(draco_py.decode(stream).points)
    for index in attributes.values():
        cube.json["accessors"][index]["count"] = points
    cube.primitive["extensions"] = {
        "KHR_draco_mesh_compression": {"bufferView": cube.view(stream), "attributes": mapping}
    }
    cube.json["extensionsRequired"] = ["KHR_draco_mesh_compression"]


def meshopt(cube: Cube) -> None:
    optimizer = pytest.importorskip("meshoptimizer")
    spots, normals, uv, corners = (values.astype("f") for values in sides())
    whole = {"POSITION": spots, "NORMAL": normals, "TEXCOORD_0": uv}
    for name, values in whole.items():
        stream = bytes(optimizer.encode_vertex_buffer(values, len(values), values[0].nbytes))
        view = cube.json["bufferViews"][cube.json["accessors"][cube.primitive["attributes"][name]]["bufferView"]]
        packed(cube, view, stream, count=24, byteStride=values[0].nbytes, mode="ATTRIBUTES")
    stream = bytes(optimizer.encode_index_buffer(corners.reshape(-1).astype(np.uint32), 36, 24))
    view = cube.json["bufferViews"][cube.json["accessors"][cube.primitive["indices"]]["bufferView"]]
    packed(cube, view, stream, count=36, byteStride=2, mode="TRIANGLES")
    cube.json["extensionsRequired"] = ["EXT_meshopt_compression"]


def packed(cube: Cube, view: dict[str, Any], stream: bytes, **more: Any) -> None:
    start = cube.json["bufferViews"][cube.view(stream)]["byteOffset"]
    extension = {"buffer": 0, "byteOffset": start, "byteLength": len(stream), **more}
    view["extensions"] = {"EXT_meshopt_compression": extension}


HALF = {"scale": [0.5, 0.5, 0.5]}
WAYS: dict[str, Change] = {
    "plain": lambda cube: None,
    **{f"positions {kind} normalized": stored("POSITION", kind, 2 * top, True, stride, **HALF)
       for kind, top, stride in (("b", 127, 4), ("h", 32767, 8))},
    **{f"positions {kind} of whole numbers": stored("POSITION", kind, 100, False, stride, scale=[0.01] * 3)
       for kind, stride in (("b", 4), ("h", 8))},
    **{f"coordinates {kind} normalized": stored("TEXCOORD_0", kind, top, True, 4)
       for kind, top in (("b", 127), ("B", 255), ("h", 32767), ("H", 65535))},
    **{f"normals {kind}": stored("NORMAL", kind, top, True, stride)
       for kind, top, stride in (("b", 127, 4), ("h", 32767, 8))},
    "rows apart": stored("POSITION", "f", 1, False, 32),
    "transform: offset and scale": transformed([0.25, -0.5], [0.5, 2.0], 0.0),
    "transform: turned": transformed([0.3, 0.1], [0.5, 0.7], 0.6),
    "transform: upside down": transformed([0.0, 1.0], [1.0, -1.0], 0.0),
    "second set": far_set(1),
    "fifth set": far_set(4),
    "set named by the transform": far_set(1, True),
    "repeat": wrapped(10497, lambda uv: uv + np.array([3, -2])),
    "mirror": wrapped(33648, lambda uv: np.stack([2 - uv[:, 0], -uv[:, 1]], -1)),
    **{f"colours {kind}{width}": colored(kind, top, width) for kind, top in (("f", 1), ("B", 255), ("H", 65535))
       for width in (3, 4)},
    "colours times white": colored("f", 1, 3, "texture"),
    "colours and a material": colored("H", 65535, 4, "material"),
    "strips": topology(5),
    "fans": topology(6),
    "one sewn strip": sewn_strip,
    "no indices": without_indices,
    **{f"indices {kind}": indices(kind) for kind in "BHI"},
    "sparse over a base": sparse(True),
    "sparse over nothing": sparse(False),
    "nodes": nodes({"translation": [5, 0, 0]}, {"scale": [1, 1, 1]},
                   {"matrix": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 2, 3, 4, 1]}),
    "mirrored by a node": mirrored,
    "skinned": skinned,
    "morphed": morphed,
    "instanced": instanced,
    "no scene": no_scene,
    **{f"picture {mode} {kind}": pictured(mode, kind) for mode, kind in (
        ("RGBA", "PNG"), ("P", "PNG"), ("RGB", "JPEG"), ("CMYK", "JPEG"), ("RGB", "WEBP"))},
    "webp by its extension": by_extension("EXT_texture_webp", "WEBP"),
    "gloss": glossy,
    "glows on black": glowing([0, 0, 0, 1]),
    "data uri": data_uri("data:image/png;base64,"),
    "data uri in capitals": data_uri("DATA:image/PNG;BASE64,"),
    "draco": draco,
    "meshopt": meshopt,
}  # fmt: skip


@pytest.mark.parametrize("name", WAYS)
def test_the_same_cube_comes_out_however_it_is_stored(name: str, tmp_path: Path) -> None:
    cube = Cube()
    WAYS[name](cube)
    loaded = load_mesh(cube.write(tmp_path / "a.glb"), 128)
    assert off(loaded.mesh) <= CLOSE, loaded.warnings
    assert seen_sides(loaded.mesh) == set(range(6)) and len(loaded.mesh.faces) == 12
    assert loaded.placement.scale == pytest.approx(SCALE, rel=0.02)
    assert loaded.mesh.surface.volume > 0
    facing = loaded.mesh.normals[loaded.mesh.faces].sum(1)
    corners = loaded.mesh.vertices[loaded.mesh.faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert ((facing * across).sum(-1) > 0).all()
    report = check(tmp_path / "a.glb")
    assert report["watertight"] and report["faces"] == 12 and not report["normals"].get("turned", 0)
    assert not [line for line in report["problems"] if "gltf-validator" not in line and "normals" not in line], report[
        "problems"
    ]


GREYS = {
    "L": (np.uint8, 255), "1": (bool, 1), "LA": (np.uint8, 255), "16 bits": (np.uint16, 65535),
}  # fmt: skip


@pytest.mark.parametrize("depth", GREYS)
def test_greys_of_every_depth(depth: str, tmp_path: Path) -> None:
    level = 1.0 if depth == "1" else 0.4
    kind, top = GREYS[depth]
    rows = np.full((8, 8), level * top).astype(kind)
    picture = Image.fromarray(rows)
    picture = picture.convert(depth) if depth in ("LA", "1") else picture
    loaded = load_mesh(Cube(png(picture)).write(tmp_path / "a.glb"), 64)
    assert off(loaded.mesh, ((round(255 * level),) * 3,) * 6) <= 2  # type: ignore[arg-type]


def test_a_picture_of_squares_is_not_blended_and_a_clamped_one_ends(tmp_path: Path) -> None:
    cube = Cube(png(Image.fromarray(np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8))))
    cube.json["samplers"] = [{"magFilter": 9728, "wrapS": 33071, "wrapT": 33071}]
    cube.json["textures"][0]["sampler"] = 0
    cube.primitive["attributes"]["TEXCOORD_0"] = cube.accessor(np.tile([[0.45, 0.5], [-3, 0.5]], (12, 1)).astype("f"))
    assert off(load_mesh(cube.write(tmp_path / "a.glb"), 128).mesh, ((255, 0, 0),) * 6) <= CLOSE


def huge(side: int) -> bytes:
    """A PNG that says it is large."""
    small = bytearray(png(Image.new("L", (8, 8))))
    small[16:24] = struct.pack(">II", side, side)
    small[29:33] = struct.pack(">I", zlib.crc32(bytes(small[12:29])))
    return bytes(small)


@pytest.mark.parametrize("side", [12_500, 20_000, 2**31 - 1])
def test_pictures_of_too_many_texels_are_said_and_not_opened(side: int, tmp_path: Path) -> None:
    path = Cube(huge(side)).write(tmp_path / "a.glb")
    assert "texels; at most 150,994,944 are read" in load_mesh(path, 64).warnings[0]
    assert "texels; at most 150,994,944 are read" in check(path)["problems"][0]


def test_large_pictures_are_made_smaller_and_keep_their_colours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "KEPT_SIDE", 40)
    for mode in ("RGB", "P", "RGBA"):
        loaded = load_mesh(Cube(png(tiles(mode, 60))).write(tmp_path / "a.glb"), 96)
        assert off(loaded.mesh) <= CLOSE


def test_textures_of_one_material_lie_where_each_says(tmp_path: Path) -> None:
    cube = Cube()
    grain = np.zeros((1, 2, 3), np.uint8)
    grain[0, :, 1] = (51, 204)
    number = cube.texture(png(Image.fromarray(grain)))
    cube.primitive["attributes"]["TEXCOORD_1"] = cube.accessor(np.full((24, 2), 0.75, "f"))
    cube.material["pbrMetallicRoughness"]["metallicRoughnessTexture"] = {"index": number, "texCoord": 1}
    loaded = load_mesh(cube.write(tmp_path / "a.glb"), 128)
    assert off(loaded.mesh) <= CLOSE
    assert loaded.mesh.maps is not None and set(np.unique(loaded.mesh.maps.roughness)) == {204}


def test_alpha_that_cuts_through_faces_is_said_and_hidden_ones_are_left_out(tmp_path: Path) -> None:
    picture = tiles("RGBA", 16)
    rows = np.array(picture)
    rows[:16, :16, 3] = 0  # all of +x
    rows[:8, 16:32, 3] = 0  # half of -x
    for mode, words in (("MASK", "cuts through 2 faces"), ("BLEND", "see-through"), ("OPAQUE", "")):
        cube = Cube(png(Image.fromarray(rows)))
        cube.material["alphaMode"] = mode
        loaded = load_mesh(cube.write(tmp_path / "a.glb"), 128)
        assert seen_sides(loaded.mesh) == set(range(6)) - ({0} if words else set())
        assert any(words in line for line in loaded.warnings) or not words
        assert off(loaded.mesh) <= CLOSE


@pytest.mark.parametrize(("way", "package"), [("draco", "DracoPy"), ("meshopt", "meshoptimizer")])
def test_a_compressed_file_names_the_package_that_is_missing(
    way: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cube = Cube()
    WAYS[way](cube)
    path = cube.write(tmp_path / "a.glb")
    monkeypatch.setitem(sys.modules, package, None)
    for read in (load_mesh, check):
        said = check_reader(read, path)
        assert f"takes the package {package}: pip install" in said and "compression" in said


def test_what_is_far_out_and_large_is_no_stray(tmp_path: Path) -> None:
    cube = Cube()
    cube.json["nodes"] += [{"mesh": 0, "translation": [500, 0, 0]}]
    cube.json["scenes"][0]["nodes"] = [0, 1]
    loaded = load_mesh(cube.write(tmp_path / "a.glb"), 64)
    assert len(loaded.mesh.faces) == 24 and not [line for line in loaded.warnings if "left out" in line]


# --- what cannot be had, and what is wrong ---


def picture_at(uri: Any) -> Change:
    def change(cube: Cube) -> None:
        cube.json["images"][0] = {"uri": uri}

    return change


LACKING: dict[str, tuple[Change, str]] = {
    "outside": (picture_at("../outside.png"), "outside.png, which it names, is outside its own folder and is not read"),
    "outside, encoded": (picture_at("%2e%2e%2foutside.png"), "is outside its own folder and is not read"),
    "outside, backslashes": (picture_at("..\\outside.png"), "is outside its own folder and is not read"),
    "absolute": (picture_at("/etc/hostname"), "is outside its own folder and is not read"),
    "link": (picture_at("link.png"), "is outside its own folder and is not read"),
    "http": (picture_at("http://127.0.0.1:9/a.png"), "is an address and not a file beside it"),
    "no scheme": (picture_at("//127.0.0.1/a.png"), "is an address and not a file beside it"),
    "file": (picture_at("file:///etc/hostname"), "is an address and not a file beside it"),
    "missing": (picture_at("gone.png"), "gone.png, which it names, is missing"),
    "a folder": (picture_at("."), "is not a file"),
    "broken base64": (picture_at("data:image/png;base64,@@@"), "a data URI in it is broken"),
    "no comma": (picture_at("data:image/png;base64"), "a data URI in it is broken"),
    "capitals, no picture": (picture_at("DATA:image/png;base64,AAAA"), "damaged picture"),
    "no picture": (lambda cube: cube.json["images"][0].pop("bufferView"), "has neither a uri nor a bufferView"),
    "no such set": (lambda cube: cube.base.update(texCoord=3), "lies at TEXCOORD_3, which a mesh lacks"),
    "no coordinates": (lambda cube: cube.primitive["attributes"].pop("TEXCOORD_0"), "lies at TEXCOORD_0, which a mesh"),
    "no source": (lambda cube: cube.json["textures"][0].pop("source"), "names no image"),
}  # fmt: skip


@pytest.mark.parametrize("name", LACKING)
def test_a_texture_that_cannot_be_had_is_said_by_all_and_nothing_outside_is_read(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (tmp_path / "outside.png").write_bytes(png(tiles()))
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    cube = Cube()
    change, words = LACKING[name]
    change(cube)
    for path in (folder / "a.glb", folder / "a.gltf"):
        cube.write(path)
        loaded = load_mesh(path, 64)
        assert [line for line in loaded.warnings if words in line], loaded.warnings
        assert off(loaded.mesh, ((128, 128, 128),) * 6) <= 2
        assert [line for line in check(path)["problems"] if words in line]
        assert main(["check", str(path)]) == 1


def test_buffers_outside_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    cube = Cube()
    path = cube.write(folder / "a.gltf")
    (folder / "b.bin").rename(tmp_path / "b.bin")
    for uri, words in (("../b.bin", "outside its own folder"), ("https://127.0.0.1/b.bin", "is an address")):
        cube.json["buffers"][0]["uri"] = uri
        path.write_text(json.dumps(cube.json))
        for read in (load_mesh, check):
            assert words in check_reader(read, path)


def setting(*place: Any, value: Any) -> Change:
    """A value deep in the document is replaced."""

    def change(cube: Cube) -> None:
        entry: Any = cube.json
        for key in place[:-1]:
            entry = entry[key]
        entry[place[-1]] = value

    return change


def deep(cube: Cube) -> None:
    tree: list[Any] = []
    for _ in range(900):
        tree = [tree]
    cube.json["extras"] = {"deep": tree}


WRONG: dict[str, tuple[Change, str]] = {
    "object for a string": (picture_at({"a": 1}), r"Expected `str \| null`, got `object` - at `images"),
    "negative count": (setting("accessors", 0, "count", value=-1), "Expected `int` >= 1 - at `accessors"),
    "no count": (lambda cube: cube.json["accessors"][0].pop("count"), "missing required field `count`"),
    "huge count": (setting("accessors", 0, "count", value=2**30), "at most 12,000,000 are read"),
    "count beyond": (setting("accessors", 0, "count", value=99), "reaches byte"),
    "odd component": (setting("accessors", 0, "componentType", value=9), "numbers of an unknown kind"),
    "index beyond": (setting("accessors", 3, "bufferView", value=2), "has indices that|names vertex"),
    "no accessor": (setting("meshes", 0, "primitives", 0, "indices", value=77), r"names accessors\[77\]"),
    "no mesh": (setting("nodes", 0, "mesh", value=5), r"nodes\[0\] names meshes\[5\], but there are 1"),
    "no material": (setting("meshes", 0, "primitives", 0, "material", value=5), r"names materials\[5\]"),
    "no texture": (setting("textures", value=[]), r"names textures\[0\]"),
    "own child": (setting("nodes", 0, "children", value=[0]), "stands in the tree twice"),
    "view beyond": (setting("bufferViews", 0, "byteOffset", value=10**6), "ends at byte"),
    "mode 9": (setting("meshes", 0, "primitives", 0, "mode", value=9), "Expected `int` <= 6"),
    "version 1": (setting("asset", "version", value="1.0"), "only version 2 is read"),
    "unknown extension": (setting("extensionsRequired", value=["XX_holes"]), "requires 'XX_holes', an extension"),
    "positions of 2": (setting("accessors", 0, "type", value="VEC2"), "has POSITION of 2 numbers"),
    "other count": (setting("accessors", 1, "count", value=3), "has 24 positions and 3 of NORMAL"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named_with_its_place_in_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cube = Cube()
    change, words = WRONG[name]
    change(cube)
    path = cube.write(tmp_path / "a.glb")
    for read in (load_mesh, check):
        said = check_reader(read, path)
        assert path.name in said
        with pytest.raises(ValueError, match=words):
            read(path)
    assert main(["check", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_json_that_is_deep_is_refused(tmp_path: Path) -> None:
    for depth in (2_000, 1_000_000):
        for extra in ("extras", "nodes", "asset"):
            words = b'{"asset":{"version":"2.0"},"%s":' % extra.encode() + b"[" * depth + b"]" * depth + b"}"
            (tmp_path / "a.glb").write_bytes(make_glb(words))
            (tmp_path / "a.gltf").write_bytes(words)
            for name in ("a.glb", "a.gltf"):
                assert check_reader(check, tmp_path / name, 3) and check_reader(load_mesh, tmp_path / name, 3)


@pytest.mark.parametrize(
    "shape", ["chain", *(pytest.param(shape, marks=pytest.mark.slow) for shape in ("flat", "drawn"))]
)
def test_very_many_nodes_take_seconds(shape: str, tmp_path: Path) -> None:
    cube, count = Cube(), 200_000
    if shape == "chain":
        cube.json["nodes"] += [{"children": [k + 2], "translation": [0, 0, 0]} for k in range(count)] + [{}]
        cube.json["scenes"][0]["nodes"] = [0, 1]
    else:
        extra = {"mesh": 0, "translation": [1, 2, 3]} if shape == "drawn" else {"name": "empty", "scale": [1, 1, 1]}
        cube.json["nodes"] += [extra] * count
        cube.json["scenes"][0]["nodes"] = list(range(count + 1))
    path = cube.write(tmp_path / "a.glb")
    began = time.process_time()
    if shape == "drawn":
        with pytest.raises(ValueError, match="2,400,012 faces; at most 2,000,000"):
            from sds3d.mesh_import.gltf_parts import gltf_parts

            gltf_parts(path, 2_000_000, [])
    else:
        assert check(path)["faces"] == 12
    assert time.process_time() - began < 12
