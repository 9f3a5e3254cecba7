"""Every format of a mesh, read back by a program that is not ours: places, up, front, left, colours, closedness."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from numpy import ndarray
from PIL import Image

from renderers.meshes.mesh import MaterialMaps, Mesh
from renderers.meshing.tangents import tangents
from sds3d.formats.gltf.writer import write_glb, write_gltf
from sds3d.formats.layout import Facts, Layout
from sds3d.formats.obj.writer import write_obj
from sds3d.formats.ply_stl_3mf import write_3mf, write_mesh_ply, write_stl
from sds3d.formats.usd import write_usda, write_usdz
from tests.support.sds3d.signpost import BLUE, GREEN, GREY, RED, TIP, WORD, picture, signpost

FACTS = {"prompt": "ein blauer Emü & <more>", "seed": 3, "nested": {"steps": 1.5, "none": None}}
LAYOUTS = {"glb": Layout(), "gltf": Layout(), "obj": Layout(), "usda": Layout("y", "m"), "usdz": Layout("z", "cm")}
LAYOUTS |= {"ply": Layout("z"), "stl": Layout("z", "mm"), "3mf": Layout("z", "mm")}
UNIT = {"m": 1.0, "cm": 100.0, "mm": 1000.0}


@dataclass
class Back:
    """What the other program found, in the file's own frame and unit."""

    corners: ndarray
    """[F 3 3]"""
    uv: ndarray | None = None
    """[F 3 2], (0, 0) the lower-left corner."""
    image: ndarray | None = None
    colours: ndarray | None = None
    """[F 3 3]"""
    normals: ndarray | None = None
    """[F 3 3]"""


def written(folder: Path, kind: str, mesh: Mesh, facts: Facts = FACTS) -> Path:
    path, layout = folder / f"sign.{kind}", LAYOUTS[kind]
    laid = layout.apply(mesh)
    match kind:
        case "glb":
            write_glb(path, laid, facts)
        case "gltf":
            write_gltf(path, laid, facts)
        case "obj":
            write_obj(path, laid, facts)
        case _:
            writers = {"ply": write_mesh_ply, "stl": write_stl, "3mf": write_3mf, "usda": write_usda}
            writers.get(kind, write_usdz)(path, laid, facts, layout)
    return path


def read(path: Path) -> Back:
    if path.suffix in (".usda", ".usdz"):
        return _by_pixar(path)
    if path.suffix == ".3mf":
        pytest.importorskip("lxml")
    loaded = trimesh.load(path, force="mesh", process=False)
    back = Back(loaded.vertices[loaded.faces])
    if path.suffix != ".stl":
        back.normals = loaded.vertex_normals[loaded.faces]
    if loaded.visual.kind == "texture":
        material = loaded.visual.material
        image = getattr(material, "baseColorTexture", None) or material.image
        back.uv, back.image = loaded.visual.uv[loaded.faces], np.asarray(image.convert("RGB"))
    elif loaded.visual.kind == "vertex":
        back.colours = loaded.visual.vertex_colors[loaded.faces][..., :3]
    return back


def _by_pixar(path: Path) -> Back:
    usd = pytest.importorskip("pxr.Usd")
    from pxr import Ar, UsdGeom, UsdShade

    stage = usd.Stage.Open(str(path))
    shape = UsdGeom.Mesh(stage.GetPrimAtPath("/asset/mesh"))
    corners = np.asarray(shape.GetPointsAttr().Get())[np.asarray(shape.GetFaceVertexIndicesAttr().Get())]
    st = np.asarray(UsdGeom.PrimvarsAPI(shape).GetPrimvar("st").ComputeFlattened())
    shader = UsdShade.Shader(stage.GetPrimAtPath("/asset/material/color"))
    asset = Ar.GetResolver().OpenAsset(Ar.ResolvedPath(shader.GetInput("file").Get().resolvedPath))
    (path.parent / "inside.png").write_bytes(asset.GetBuffer())
    image = np.asarray(Image.open(path.parent / "inside.png").convert("RGB"))
    normals = np.asarray(shape.GetNormalsAttr().Get())
    return Back(corners.reshape(-1, 3, 3), st.reshape(-1, 3, 2), image, None, normals.reshape(-1, 3, 3))


def upright(kind: str, values: ndarray) -> ndarray:
    """The file's vectors with +Y up and the front at +Z, written out once more."""
    if LAYOUTS[kind].up == "z":
        return np.stack([values[..., 0], values[..., 2], -values[..., 1]], -1)
    return values


def colours(back: Back) -> ndarray:
    """[F 3] the colour of each triangle's middle."""
    if back.colours is not None:
        return back.colours.mean(1)
    assert back.uv is not None and back.image is not None
    u, v = back.uv.mean(1).T
    height, width = back.image.shape[:2]
    return back.image[((1 - v) * height).astype(int), (u * width).astype(int)]


@pytest.fixture(scope="module", params=sorted(LAYOUTS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def back(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Back:
    return read(written(tmp_path_factory.mktemp(kind), kind, signpost()))


def test_every_triangle_is_where_it_was_and_faces_outward(kind: str, back: Back) -> None:
    wanted = signpost()
    unit = UNIT[LAYOUTS[kind].unit]
    corners = upright(kind, back.corners) / unit
    assert corners == pytest.approx(wanted.vertices[wanted.faces], abs=2e-6)
    a, b, c = (corners[:, k] for k in range(3))
    assert (a * np.cross(b, c)).sum() / 6 == pytest.approx(wanted.surface.volume, rel=1e-4)
    if kind not in ("stl", "ply", "3mf"):
        assert upright(kind, back.normals) == pytest.approx(wanted.normals[wanted.faces], abs=1e-4)


def test_the_arrow_points_up_and_left_is_left(kind: str, back: Back) -> None:
    points = upright(kind, back.corners) / UNIT[LAYOUTS[kind].unit]
    assert points.reshape(-1, 3)[points.reshape(-1, 3)[:, 1].argmax()] == pytest.approx(TIP, abs=1e-5)
    if back.image is None and back.colours is None:
        return
    seen = colours(back)
    where = {c: points[np.abs(seen - c).max(-1) <= 2].mean((0, 1)) for c in (RED, BLUE, GREEN, GREY)}
    assert where[RED][0] > 0.4 and where[BLUE][0] < -0.4
    assert where[GREEN][1] > 0.5 and where[GREY][1] < -0.2


def test_the_word_reads_from_left_to_right_on_the_front(kind: str, back: Back) -> None:
    if back.image is None or back.uv is None:
        pytest.skip(f"{kind} has no texture")
    points = upright(kind, back.corners)
    panel = (points[:, :, 2] > 0.09 * UNIT[LAYOUTS[kind].unit]).all(1) & (np.ptp(back.uv[..., 0], axis=1) > 0.5)
    assert panel.sum() == 2
    place, uv = points[panel].reshape(-1, 3), back.uv[panel].reshape(-1, 2)
    # From a place on the panel to one in the picture: right is right, up is up.
    u, v = (np.linalg.lstsq(np.c_[place, np.ones(6)], column, rcond=None)[0] for column in uv.T)
    assert u[0] > 0 and v[1] > 0 and abs(u[1]) + abs(v[0]) < 1e-4 * (u[0] + v[1])
    left, top, right, bottom = WORD
    assert (back.image[top:bottom, left:right] == picture()[top:bottom, left:right]).all()


def test_closed_pieces_stay_closed_where_the_format_can_say_so(kind: str, back: Back) -> None:
    """Numbers are kept so well that points that were one still are."""
    points, index = np.unique(back.corners.reshape(-1, 3), axis=0, return_inverse=True)
    shape = trimesh.Trimesh(points, index.reshape(-1, 3), process=False)
    assert shape.is_watertight and shape.body_count == 5


def test_the_origin_is_told(kind: str, tmp_path: Path) -> None:
    path = written(tmp_path, kind, signpost())
    match kind:
        case "gltf":
            assert json.loads(path.read_text())["asset"]["extras"] == FACTS
        case "glb":
            pygltflib = pytest.importorskip("pygltflib")
            assert pygltflib.GLTF2().load(str(path)).asset.extras == FACTS
        case "obj":
            assert json.loads(path.read_text().splitlines()[0].removeprefix("# sds3d ")) == FACTS
        case "ply":
            said = pytest.importorskip("plyfile").PlyData.read(path).comments
            assert json.loads("".join(line[1:-1] for line in said if line.startswith("|"))) == FACTS
        case "3mf":
            with zipfile.ZipFile(path) as archive:
                assert "ein blauer Emü &amp; &lt;more&gt;" in archive.read("3D/3dmodel.model").decode()
        case "stl":
            assert path.read_bytes().startswith(b"sds3d unit mm up z ")
        case _:
            stage = pytest.importorskip("pxr.Usd").Stage.Open(str(path))
            assert json.loads(stage.GetRootLayer().customLayerData["sds3d"]) == FACTS


def test_usd_says_what_is_up_how_long_a_unit_is_and_what_to_show(tmp_path: Path) -> None:
    usd = pytest.importorskip("pxr.Usd")
    from pxr import UsdGeom, UsdValidation

    for kind, up, unit in (("usda", "Y", 1.0), ("usdz", "Z", 0.01)):
        stage = usd.Stage.Open(str(written(tmp_path, kind, with_maps(signpost()))))
        assert (UsdGeom.GetStageUpAxis(stage), UsdGeom.GetStageMetersPerUnit(stage)) == (up, unit)
        assert stage.GetDefaultPrim().GetPath() == "/asset"
        every = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
        assert len(every) > 10
        assert not UsdValidation.ValidationContext(every).Validate(stage)


def with_maps(mesh: Mesh) -> Mesh:
    side = mesh.texture.shape[0]
    flat = np.zeros((side, side, 3), np.uint8) + np.array([128, 128, 255], np.uint8)
    rough, metal = np.full((side, side), 51, np.uint8), np.full((side, side), 204, np.uint8)
    rough[0, 0] = 52
    return replace(mesh, maps=MaterialMaps(rough, metal, flat))


def test_materials_say_how_rough_and_how_metallic(tmp_path: Path) -> None:
    for kind in ("glb", "gltf"):
        for mesh in (signpost(), with_maps(signpost())):
            (back,) = trimesh.load(written(tmp_path, kind, mesh)).geometry.values()
            material = back.visual.material
            if mesh.maps is None:
                assert (material.metallicFactor, material.roughnessFactor) == (0, 0.9)
            else:
                grain = np.asarray(material.metallicRoughnessTexture)
                assert (material.metallicFactor, material.roughnessFactor) == (1, 1)
                assert (grain[1:, :, 1] == 51).all() and (grain[..., 2] == 204).all()
                assert material.normalTexture is not None


def test_a_material_that_is_the_same_all_over_needs_no_texture(tmp_path: Path) -> None:
    mesh = with_maps(signpost())
    assert mesh.maps is not None
    mesh.maps.roughness[:] = 51
    (back,) = trimesh.load(written(tmp_path, "glb", mesh)).geometry.values()
    material = back.visual.material
    assert (material.metallicFactor, material.roughnessFactor) == (0.8, 0.2)
    assert material.metallicRoughnessTexture is None and material.normalTexture is not None
    written(tmp_path, "obj", mesh)
    assert {"Pr 0.2", "Pm 0.8"} <= set((tmp_path / "sign.mtl").read_text().splitlines())
    assert {path.name for path in tmp_path.glob("*.png")} == {"sign.png", "sign_normal.png"}


def test_tangents_run_to_the_right_and_up_in_the_picture() -> None:
    mesh = signpost()
    front = (
        (mesh.normals[:, 2] > 0.99) & (np.abs(mesh.vertices[:, 1] - 0.1) < 0.31) & (np.abs(mesh.vertices[:, 0]) < 0.41)
    )
    found = tangents(mesh.vertices, mesh.normals, mesh.uv, mesh.faces)
    word = front & (mesh.vertices[:, 2] > 0.09)
    assert word.sum() == 4
    assert found[word] == pytest.approx(np.tile([1, 0, 0, 1], (4, 1)), abs=1e-6)
    assert np.linalg.norm(found[:, :3], axis=-1) == pytest.approx(np.ones(len(found)))
    assert (found[:, :3] * mesh.normals).sum(-1) == pytest.approx(np.zeros(len(found)), abs=1e-6)
    mirrored = replace(mesh, uv=mesh.uv * np.float32([-1, 1]) + np.float32([1, 0]))
    assert tangents(mesh.vertices, mesh.normals, mirrored.uv, mesh.faces)[word] == pytest.approx(
        np.tile([-1, 0, 0, -1], (4, 1)), abs=1e-6
    )


@pytest.mark.parametrize("unit", ["m", "cm", "mm"])
@pytest.mark.parametrize("up", ["y", "z"])
def test_a_layout_sets_size_and_stand_and_can_be_undone(up: str, unit: str) -> None:
    mesh = signpost()
    moved = replace(mesh, vertices=mesh.vertices + np.float32([3, -7, 2]))
    for stand in ("ground", "centre"):
        layout = Layout(up, unit, stand, 0.25)  # type: ignore[arg-type]
        laid = layout.apply(moved).vertices
        assert np.ptp(laid, axis=0).max() == pytest.approx(0.25 * UNIT[unit], rel=1e-5)
        low, high = layout.unrotate(laid).min(0), layout.unrotate(laid).max(0)
        assert (low + high)[[0, 2]] == pytest.approx([0, 0], abs=1e-4 * UNIT[unit])
        assert (low if stand == "ground" else low + high)[1] == pytest.approx(0, abs=1e-4 * UNIT[unit])
    assert Layout(up).unrotate(Layout(up).apply(moved).vertices) == pytest.approx(moved.vertices)  # type: ignore[arg-type]


def test_what_has_no_size_or_no_numbers_is_refused(tmp_path: Path) -> None:
    mesh = signpost()
    with pytest.raises(ValueError, match=r"size_m is -1; expected the longest side in metres"):
        Layout(size_m=-1.0)
    spoilt = mesh.vertices.copy()
    spoilt[3, 1] = np.nan
    with pytest.raises(ValueError, match="1 of the mesh's 112 positions are not finite"):
        Layout().apply(replace(mesh, vertices=spoilt))
    with pytest.raises(ValueError, match="all points of the mesh are one"):
        Layout(size_m=1.0).apply(replace(mesh, vertices=np.zeros_like(mesh.vertices)))
    with pytest.raises(ValueError, match="no triangles"):
        Layout().apply(replace(mesh, faces=mesh.faces[:0]))


def test_one_triangle_is_an_asset(kind: str, tmp_path: Path) -> None:
    mesh = signpost()
    one = Mesh(mesh.vertices[:3], np.array([[0, 1, 2]], np.int32), mesh.normals[:3], mesh.uv[:3], mesh.texture)
    assert read(written(tmp_path, kind, one)).corners.shape == (1, 3, 3)


def test_a_disk_that_is_full_leaves_nothing(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes | str, *_: object, **__: object) -> int:
        if not path.parent.is_relative_to(tmp_path):
            return len(content)
        with path.open("wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    monkeypatch.setattr(Path, "write_bytes", full)
    if kind == "3mf":
        monkeypatch.setattr(zipfile.ZipFile, "writestr", lambda *_, **__: full(tmp_path / "x", b""))
        monkeypatch.setattr(Path, "open", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError):
        written(tmp_path, kind, signpost())
    assert not list(tmp_path.iterdir())
