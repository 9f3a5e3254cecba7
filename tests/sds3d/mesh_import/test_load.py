"""Meshes from files: what is kept, what is mended and said, what is refused, and that the way back is exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from numpy import ndarray
from PIL import Image

from renderers.cameras import look_at_origin, orbit_cameras
from renderers.meshes.config import MeshConfig
from renderers.meshes.mesh import Mesh, StaticMeshScene
from sds3d.mesh_import import load as loading
from sds3d.mesh_import.load import FIT, LoadedMesh, load_mesh
from tests.support.renderers.known_shapes import ball, unwrapped

SIZE = 64
STRIPES = np.zeros((SIZE, SIZE, 3), np.uint8)
STRIPES[: SIZE // 2], STRIPES[SIZE // 2 :] = (200, 40, 40), (40, 60, 200)


def save(path: Path, mesh: Mesh) -> None:
    """The mesh and its texture as another program would write them."""
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_normals=mesh.normals, process=False)
    material = trimesh.visual.material.SimpleMaterial(Image.fromarray(mesh.texture), diffuse=[255, 255, 255, 255])
    if path.suffix == ".glb":
        material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(mesh.texture))
    upward = np.stack([mesh.uv[:, 0], 1 - mesh.uv[:, 1]], -1)
    solid.visual = trimesh.visual.TextureVisuals(uv=upward, material=material)
    solid.export(path, include_normals=True)


def picture(mesh: Mesh, size: int = 64) -> ndarray:
    """Three views side by side, 0..1."""
    rgb: ndarray = StaticMeshScene(mesh).render(orbit_cameras(3, 0.3, size), torch.zeros(3, 3)).rgb.numpy()
    return rgb


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def radius(mesh: Mesh) -> float:
    middle = (mesh.vertices.max(0) + mesh.vertices.min(0)) / 2
    return float(np.linalg.norm(mesh.vertices - middle, axis=-1).max())


@pytest.mark.parametrize("kind", ["glb", "obj"])
def test_what_was_written_comes_back_as_it_was(tmp_path: Path, kind: str) -> None:
    mesh = unwrapped(ball(FIT, 12), STRIPES)
    path = tmp_path / f"mesh.{kind}"
    save(path, mesh)
    loaded = load_mesh(path, SIZE)
    # x and y are the texture coordinates of this ball: its front and its back have the same texels.
    assert [remark.split(" % ")[1].split(" ")[0] for remark in loaded.warnings] == ["of"]
    assert loaded.placement.scale == pytest.approx(1, abs=1e-5)
    assert np.abs(picture(loaded.mesh) - picture(mesh)).mean() < 2e-3
    assert len(loaded.mesh.faces) == len(mesh.faces)


def test_it_is_put_into_the_unit_ball_and_back(tmp_path: Path) -> None:
    mesh = unwrapped(ball(0.3, 8), STRIPES)
    moved = Mesh(20 * mesh.vertices + [5.0, -3.0, 100.0], mesh.faces, mesh.normals, mesh.uv, mesh.texture)
    save(tmp_path / "far.glb", moved)
    loaded = load_mesh(tmp_path / "far.glb", SIZE)
    assert radius(loaded.mesh) == pytest.approx(FIT, rel=1e-5)
    assert np.abs(loaded.mesh.vertices).max() <= FIT + 1e-5
    there = loaded.placement.inverse(loaded.mesh).vertices
    assert np.sort(there, 0) == pytest.approx(np.sort(moved.vertices, 0), abs=1e-3)


def test_a_mesh_without_texture_is_unfolded_and_keeps_its_colours(tmp_path: Path) -> None:
    plain = trimesh.creation.icosphere(2, 0.9)
    colours = np.where(plain.vertices[:, 1:2] > 0, [[220, 30, 30]], [[30, 30, 220]])
    plain.visual.vertex_colors = np.concatenate([colours, np.full((len(colours), 1), 255)], -1).astype(np.uint8)
    plain.export(tmp_path / "plain.ply")
    loaded = load_mesh(tmp_path / "plain.ply", 256)
    assert loaded.warnings == ("it has no texture coordinates: it was unfolded anew, and its colours carried over",)
    view = picture(loaded.mesh)[0]
    assert view[20, 32] == pytest.approx(np.array([220, 30, 30]) / 255, abs=0.03)
    assert view[46, 32] == pytest.approx(np.array([30, 30, 220]) / 255, abs=0.03)
    assert loaded.mesh.uv.min() >= 0 and loaded.mesh.uv.max() <= 1


def two_boxes(tmp_path: Path) -> Path:
    scene = trimesh.Scene()
    for place, colour in ((-1.0, [255, 0, 0, 255]), (1.0, [0, 0, 255, 255])):
        box = trimesh.creation.box((1, 1, 1))
        uv = np.random.default_rng(0).uniform(0, 1, (8, 2))
        material = trimesh.visual.material.PBRMaterial(baseColorFactor=colour, roughnessFactor=0.25, metallicFactor=1.0)
        box.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
        scene.add_geometry(box, transform=trimesh.transformations.translation_matrix([place, 0, 0]))
    scene.export(tmp_path / "boxes.glb")
    return tmp_path / "boxes.glb"


def test_several_materials_become_one(tmp_path: Path) -> None:
    loaded = load_mesh(two_boxes(tmp_path), 128)
    assert loaded.warnings[0].startswith("it has 2 materials: it was unfolded anew")
    view = picture(loaded.mesh)[0]
    assert view[34, 22] == pytest.approx([1, 0, 0], abs=0.02)
    assert view[34, 42] == pytest.approx([0, 0, 1], abs=0.02)
    assert loaded.mesh.maps is not None
    assert np.unique(loaded.mesh.maps.roughness).tolist() == [64]
    assert np.unique(loaded.mesh.maps.metallic).tolist() == [255]


def test_maps_of_a_single_material_are_kept(tmp_path: Path) -> None:
    mesh = unwrapped(ball(0.9, 12), STRIPES)
    grain = np.zeros((16, 16, 3), np.uint8)
    grain[..., 1], grain[..., 2] = 51, 255
    bumps = np.full((16, 16, 3), (128, 128, 255), np.uint8)
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=Image.fromarray(STRIPES),
        metallicRoughnessTexture=Image.fromarray(grain),
        normalTexture=Image.fromarray(bumps),
        metallicFactor=0.5,
    )
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_normals=mesh.normals, process=False)
    upward = np.stack([mesh.uv[:, 0], 1 - mesh.uv[:, 1]], -1)
    solid.visual = trimesh.visual.TextureVisuals(uv=upward, material=material)
    solid.export(tmp_path / "maps.glb", include_normals=True)
    maps = load_mesh(tmp_path / "maps.glb", SIZE).mesh.maps
    assert maps is not None and maps.normals is not None
    assert np.unique(maps.roughness).tolist() == [51]
    assert np.unique(maps.metallic).tolist() == [128]
    assert (maps.normals == (128, 128, 255)).all()
    knobs = MeshConfig(
        light="studio", train_material=True, train_normal_map=True, train_geometry=False, texture_size=SIZE
    )
    scene = knobs.from_mesh(load_mesh(tmp_path / "maps.glb", SIZE).mesh, "cpu", torch.Generator())
    assert float(scene.metallic_roughness[..., 0].mean().detach()) == pytest.approx(0.2, abs=1e-3)


BAD_CORNERS = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv nan 0 0\nv 1 1 1\nf 1 2 3\nf 1 2 4\nf 2 3 5\nf 2 2 3\nf 1 1 1\n"


def test_bad_triangles_are_left_out_and_told(tmp_path: Path) -> None:
    loaded = load_mesh(written(tmp_path, "bad.obj", BAD_CORNERS), SIZE)
    assert len(loaded.mesh.faces) == 2
    assert loaded.warnings[:2] == (
        "1 faces with corners that are not finite numbers were left out",
        "2 faces of no area were left out",
    )


def test_a_crowded_edge_is_told(tmp_path: Path) -> None:
    fan = "v 0 0 0\nv 0 1 0\nv 1 0 0\nv -1 0 0\nv 0 0 1\nf 1 2 3\nf 1 2 4\nf 1 2 5\n"
    loaded = load_mesh(written(tmp_path, "fan.obj", fan), SIZE)
    assert "1 edges are shared by more than two faces; the mesh is drawn as it is" in loaded.warnings
    assert len(loaded.mesh.faces) == 3


def test_a_missing_texture_is_told_and_left_grey(tmp_path: Path) -> None:
    shape = "mtllib lost.mtl\nusemtl skin\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n"
    loaded = load_mesh(written(tmp_path, "lost.obj", shape), SIZE)
    assert loaded.warnings == ("lost.mtl, which it names, is not there; what it holds is left grey",)
    assert np.unique(loaded.mesh.texture).tolist() == [128]
    written(tmp_path, "found.mtl", "newmtl skin\nmap_Kd gone.png\n")
    loaded = load_mesh(written(tmp_path, "found.obj", shape.replace("lost", "found")), SIZE)
    assert loaded.warnings == ("gone.png, which it names, is not there; what it holds is left grey",)


def test_too_many_faces_are_simplified_and_keep_their_colours(tmp_path: Path) -> None:
    mesh = unwrapped(ball(0.9, 40), STRIPES)
    save(tmp_path / "fine.glb", mesh)
    loaded = load_mesh(tmp_path / "fine.glb", 256, faces=800)
    assert len(loaded.mesh.faces) <= 800
    assert loaded.warnings[0].startswith("its 6,240 faces were simplified to ")
    assert np.abs(picture(loaded.mesh) - picture(mesh)).mean() < 0.02


def test_far_too_many_faces_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "MAX_FACES", 100)
    save(tmp_path / "huge.glb", unwrapped(ball(0.9, 12), STRIPES))
    with pytest.raises(ValueError, match=r"huge.glb has 528 faces; at most 100 are read: simplify it first"):
        load_mesh(tmp_path / "huge.glb")
    monkeypatch.setattr(loading, "MAX_FILE_BYTES", 1000)
    with pytest.raises(ValueError, match=r"huge.glb has [\d,]+ bytes; expected up to 1,000, and not 0"):
        load_mesh(tmp_path / "huge.glb")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\n", "no triangles, only points or lines"),
        ("a.obj", "hello\n", "no triangles"),
        ("a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "a face names vertex 9"),
        ("a.obj", "v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "no triangles that can be drawn"),
        ("a.obj", "v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n", "no triangles that can be drawn"),
        ("a.obj", "v 0 0 0\nv 1e30 0 0\nv 0 1e30 0\nf 1 2 3\n", "is its unit sane"),
        ("a.glb", "this is no glb", "cannot be read as GLB"),
        ("a.ply", "ply\nformat ascii 1.0\n", "cannot be read as PLY"),
        ("a.stl", "solid\nendsolid\n", "a.stl"),
        ("a.gltf", '{"asset": {"version": "2.0"}}', "a.gltf"),
        ("a.txt", "v 0 0 0\n", "expected a mesh, a file that ends in .glb"),
        ("a.obj", "", "has 0 bytes"),
    ],
)
def test_what_is_no_mesh_is_refused_in_one_line(tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as refusal:
        load_mesh(written(tmp_path, name, text))
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"none.glb"):
        load_mesh(tmp_path / "none.glb")


def test_mirrored_parts_face_outward(tmp_path: Path) -> None:
    scene = trimesh.Scene()
    scene.add_geometry(trimesh.creation.icosphere(2, 1.0), transform=np.diag([-1.0, 1, 1, 1]))
    scene.export(tmp_path / "mirror.glb")
    loaded = load_mesh(tmp_path / "mirror.glb", SIZE)
    assert loaded.mesh.surface.volume > 0


def test_a_loaded_mesh_can_be_trained(tmp_path: Path) -> None:
    loaded: LoadedMesh = load_mesh(two_boxes(tmp_path), 64)
    scene = MeshConfig(texture_size=64).from_mesh(loaded.mesh, "cpu", torch.Generator().manual_seed(0))
    camera = look_at_origin(torch.zeros(1), torch.zeros(1), 32)
    frame = scene.render(camera, torch.zeros(1, 3))
    frame.rgb.square().sum().backward()
    assert scene.base_color.grad is not None and bool((scene.base_color.grad != 0).any())
    assert scene.vertex_offsets.grad is not None and bool((scene.vertex_offsets.grad != 0).any())
