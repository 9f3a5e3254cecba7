"""Mesh and splat files: other programs read back what was written, and nothing is ever left half done."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from renderers.meshes.mesh import Mesh
from renderers.splats.config import SplatConfig
from renderers.splats.density_grid import SplatParameters
from sds3d.atomic_files import atomic_write
from sds3d.formats import splat_ply
from sds3d.formats.gltf.writer import write_glb
from sds3d.formats.layout import ROUGHNESS
from sds3d.formats.obj.writer import write_obj
from sds3d.formats.ply_stl_3mf import write_mesh_ply
from sds3d.formats.png import png
from sds3d.formats.splat_ply import read_splats, write_splats
from tests.support.renderers.known_shapes import ball

PROVENANCE = {"prompt": "a blue émeu", "seed": 3, "licences": ["CC0"], "nested": {"steps": 1.5, "none": None}}


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    """A ball with a seam: every triangle on the left half has corners of its own."""
    surface = ball(0.5, 8)
    half = len(surface.faces) // 2
    own = surface.faces[half:].ravel()
    vertices = np.concatenate([surface.vertices, surface.vertices[own]])
    normals = np.concatenate([surface.normals, surface.normals[own]])
    faces = surface.faces.copy()
    faces[half:] = len(surface.vertices) + np.arange(len(own)).reshape(-1, 3)
    uv = np.random.default_rng(0).uniform(0, 1, (len(vertices), 2)).astype(np.float32)
    texture = np.random.default_rng(1).integers(0, 256, (16, 16, 3), np.uint8)
    return Mesh(vertices, faces, normals, uv, texture)


def tree(path: Path) -> dict[str, object]:
    """The JSON part of a GLB file."""
    content = path.read_bytes()
    magic, version, length = struct.unpack("<4sII", content[:12])
    assert (magic, version, length) == (b"glTF", 2, len(content))
    (size,) = struct.unpack("<I", content[12:16])
    parsed: dict[str, object] = json.loads(content[20 : 20 + size])
    return parsed


def test_glb_reads_back_the_same(mesh: Mesh, tmp_path: Path) -> None:
    write_glb(tmp_path / "a.glb", mesh, PROVENANCE)
    (back,) = trimesh.load(tmp_path / "a.glb", process=False).geometry.values()
    assert (back.vertices == mesh.vertices).all()
    assert (back.faces == mesh.faces).all()
    assert back.vertex_normals == pytest.approx(mesh.normals, abs=1e-6)
    assert back.visual.uv == pytest.approx(mesh.uv * [1, -1] + [0, 1], abs=1e-6)  # trimesh counts v from below
    assert (np.asarray(back.visual.material.baseColorTexture)[..., :3] == mesh.texture).all()


def test_glb_says_what_the_material_is_and_where_the_asset_is_from(mesh: Mesh, tmp_path: Path) -> None:
    write_glb(tmp_path / "a.glb", mesh, PROVENANCE)
    parts = tree(tmp_path / "a.glb")
    assert parts["asset"] == {"version": "2.0", "generator": "sds3d", "extras": PROVENANCE}
    ((material,), (image,)) = parts["materials"], parts["images"]  # type: ignore[misc]
    assert material["doubleSided"] is False
    assert material["pbrMetallicRoughness"]["metallicFactor"] == 0
    assert material["pbrMetallicRoughness"]["roughnessFactor"] == ROUGHNESS
    assert image["mimeType"] == "image/png"
    (primitive,) = parts["meshes"][0]["primitives"]  # type: ignore[index]
    assert set(primitive["attributes"]) == {"POSITION", "NORMAL", "TEXCOORD_0"}


def test_glb_keeps_uv_from_the_upper_left_corner(mesh: Mesh, tmp_path: Path) -> None:
    """The numbers in the file itself, past any library."""
    write_glb(tmp_path / "a.glb", mesh, {})
    content, parts = (tmp_path / "a.glb").read_bytes(), tree(tmp_path / "a.glb")
    accessor = parts["accessors"][parts["meshes"][0]["primitives"][0]["attributes"]["TEXCOORD_0"]]  # type: ignore[index]
    view = parts["bufferViews"][accessor["bufferView"]]  # type: ignore[index]
    (size,) = struct.unpack("<I", content[12:16])
    start = 28 + size + view.get("byteOffset", 0)
    uv = np.frombuffer(content, "<f4", 2 * len(mesh.uv), start).reshape(-1, 2)
    assert uv == pytest.approx(mesh.uv, abs=1e-6)


def test_obj_reads_back_the_same_with_its_seams_closed(mesh: Mesh, tmp_path: Path) -> None:
    write_obj(tmp_path / "a.obj", mesh, PROVENANCE)
    assert {path.name for path in tmp_path.iterdir()} == {"a.obj", "a.mtl", "a.png"}
    back = trimesh.load(tmp_path / "a.obj", process=False)
    corners, wanted = back.vertices[back.faces], mesh.vertices[mesh.faces]
    assert corners == pytest.approx(wanted, abs=1e-6)
    assert back.visual.uv[back.faces] == pytest.approx((mesh.uv * [1, -1] + [0, 1])[mesh.faces], abs=1e-6)
    assert (np.asarray(back.visual.material.image)[..., :3] == mesh.texture).all()
    text = (tmp_path / "a.obj").read_text(encoding="utf-8")
    assert sum(line.startswith("v ") for line in text.splitlines()) == len(np.unique(mesh.vertices, axis=0))
    assert json.loads(text.splitlines()[0].removeprefix("# sds3d ")) == PROVENANCE


def test_mesh_ply_is_closed_and_has_the_texture_s_colours(mesh: Mesh, tmp_path: Path) -> None:
    write_mesh_ply(tmp_path / "a.ply", mesh, {})
    back = trimesh.load(tmp_path / "a.ply", process=False)
    assert back.is_watertight
    assert back.volume == pytest.approx(mesh.surface.volume, rel=1e-5)
    assert (back.vertices[back.faces] == mesh.vertices[mesh.faces]).all()
    known = {tuple(v): set() for v in mesh.vertices.tolist()}
    for position, colour in zip(mesh.vertices.tolist(), mesh.vertex_colors().tolist(), strict=True):
        known[tuple(position)].add(tuple(colour))
    colours = back.visual.vertex_colors[:, :3].tolist()
    assert all(tuple(c) in known[tuple(v)] for v, c in zip(back.vertices.tolist(), colours, strict=True))


def cloud(degree: int) -> SplatParameters:
    chance = torch.Generator().manual_seed(degree)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=chance)

    return SplatParameters(normal(7, 3), normal(7, 3), normal(7, 4), normal(7), normal(7, (degree + 1) ** 2, 3))


NAMES = ("means", "log_scales", "quats", "logit_opacities", "sh")


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_splats_read_back_bit_for_bit(tmp_path: Path, degree: int) -> None:
    write_splats(tmp_path / "s.ply", cloud(degree))
    back = read_splats(tmp_path / "s.ply")
    assert all(torch.equal(getattr(back, name), getattr(cloud(degree), name)) for name in NAMES)


def test_splats_lie_in_the_file_as_viewers_expect(tmp_path: Path) -> None:
    """One known splat of degree 1, column by column: raw values, w before x, red's harmonics before green's."""
    splat = SplatParameters(
        torch.tensor([[1.0, 2.0, 3.0]]),
        torch.tensor([[4.0, 5.0, 6.0]]),
        torch.tensor([[7.0, 8.0, 9.0, 10.0]]),
        torch.tensor([11.0]),
        torch.tensor([[[12.0, 13.0, 14.0], [15.0, 16.0, 17.0], [18.0, 19.0, 20.0], [21.0, 22.0, 23.0]]]),
    )
    write_splats(tmp_path / "s.ply", splat)
    head, _, body = (tmp_path / "s.ply").read_bytes().partition(b"end_header\n")
    rest = " ".join(f"f_rest_{i}" for i in range(9))
    order = f"x y z nx ny nz f_dc_0 f_dc_1 f_dc_2 {rest} opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3"
    assert [line.split()[-1] for line in head.decode().splitlines() if "property float" in line] == order.split()
    harmonics = [12, 13, 14, 15, 18, 21, 16, 19, 22, 17, 20, 23]
    assert np.frombuffer(body, "<f4").tolist() == [1, 2, 3, 0, 0, 0, *harmonics, 11, 4, 5, 6, 7, 8, 9, 10]


def test_padding_to_degree_3_keeps_the_picture(tmp_path: Path) -> None:
    write_splats(tmp_path / "s.ply", cloud(1), degree=3)
    back = read_splats(tmp_path / "s.ply")
    assert torch.equal(back.sh[:, :4], cloud(1).sh)
    assert back.sh.shape == (7, 16, 3)
    assert not back.sh[:, 4:].any()
    with pytest.raises(ValueError, match="degree is 0; the scene's is 1"):
        write_splats(tmp_path / "t.ply", cloud(1), degree=0)


def test_a_scene_under_training_is_written_as_it_is(tmp_path: Path) -> None:
    scene = SplatConfig(init_count=50).build("cpu", torch.Generator().manual_seed(0))
    write_splats(tmp_path / "s.ply", scene)
    back = read_splats(tmp_path / "s.ply")
    assert all(torch.equal(getattr(back, name), getattr(scene, name)) for name in NAMES)
    assert trimesh.load(tmp_path / "s.ply").vertices == pytest.approx(scene.means.detach().numpy())


def test_files_that_hold_no_splats_are_refused(mesh: Mesh, tmp_path: Path) -> None:
    path = tmp_path / "s.ply"
    write_mesh_ply(path, mesh, {})
    with pytest.raises(ValueError, match="does not hold splats"):
        read_splats(path)
    path.write_bytes(b"solid")
    with pytest.raises(ValueError, match=r"s\.ply cannot be read as PLY: it does not begin with the word ply"):
        read_splats(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"s\.ply cannot be read as PLY: it does not begin with the word ply"):
        read_splats(path)
    write_splats(path, cloud(1))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="cut short"):
        read_splats(path)
    path.write_bytes(whole.replace(b"float opacity", b"float opaqueness"))
    with pytest.raises(ValueError, match="no column opacity"):
        read_splats(path)
    with pytest.raises(FileNotFoundError):
        read_splats(tmp_path / "nowhere.ply")


@pytest.mark.parametrize("spoilt", ["triangles", "positions", "provenance"])
def test_what_cannot_be_written_leaves_nothing_behind(mesh: Mesh, tmp_path: Path, spoilt: str) -> None:
    bad, facts = mesh, PROVENANCE
    match spoilt:
        case "positions":
            bad = Mesh(mesh.vertices * np.float32(math.nan), mesh.faces, mesh.normals, mesh.uv, mesh.texture)
        case "triangles":
            bad = Mesh(mesh.vertices, mesh.faces[:0], mesh.normals, mesh.uv, mesh.texture)
        case "provenance":
            facts = {"prior": object()}
    for write, name in ((write_glb, "a.glb"), (write_obj, "a.obj")):
        with pytest.raises(ValueError, match=r"finite|no triangles|JSON"):
            write(tmp_path / name, bad, facts)
    assert not list(tmp_path.iterdir())


def test_a_failing_write_keeps_the_old_file_and_leaves_no_draft(
    mesh: Mesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full after half of the bytes."""
    for name in ("a.glb", "a.obj", "a.mtl", "a.png"):
        (tmp_path / name).write_text("old")

    def full(path: Path, content: bytes | str, *_: object, **__: object) -> int:
        with path.open("wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        write_obj(tmp_path / "a.obj", mesh, PROVENANCE)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_glb(tmp_path / "a.glb", mesh, PROVENANCE)
    assert {path.name for path in tmp_path.iterdir()} == {"a.glb", "a.obj", "a.mtl", "a.png"}
    assert all(path.read_bytes() == b"old" for path in tmp_path.iterdir())


def test_new_files_have_the_usual_permissions_and_folders_are_made(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")
    with atomic_write(tmp_path / "deep" / "er" / "a.txt") as draft:
        draft.write_text("whole")
    made = tmp_path / "deep" / "er" / "a.txt"
    assert made.read_text() == "whole"
    assert made.stat().st_mode == plain.stat().st_mode
    assert [path.name for path in made.parent.iterdir()] == ["a.txt"]


def test_a_folder_is_not_replaced(mesh: Mesh, tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="a file name was expected"):
        write_glb(tmp_path, mesh, {})


def test_png_keeps_every_pixel(mesh: Mesh, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(mesh.texture))
    assert (np.asarray(Image.open(tmp_path / "a.png")) == mesh.texture).all()


def test_degrees_are_those_of_the_harmonics() -> None:
    assert {(degree + 1) ** 2: degree for degree in range(4)} == splat_ply.DEGREES
