"""Models as triangles, and how they are drawn, from files made here."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
import pytest

from renderers.cameras import orbit_cameras
from sds3d.mini_training.catalogue import Model, models, objects
from sds3d.mini_training.obj_loader import MaterialMesh, load

pytest.importorskip("tinyobjloader", reason="comes with the extra: pip install -e '.[train]'")

CORNERS = [(x, y, z) for x in (0, 2) for y in (0, 4) for z in (0, 6)]
SIDES = [(1, 2, 4, 3), (5, 7, 8, 6), (1, 5, 6, 2), (3, 4, 8, 7), (1, 3, 7, 5), (2, 6, 8, 4)]


def archive(folder: Path, obj: str, mtl: str = "newmtl red\nKd 0.8 0.1 0.2\nd 1\n") -> Model:
    """A library of one model."""
    file = folder / "Scopia.sh3f"
    with zipfile.ZipFile(file, "w") as content:
        content.writestr("a/box.obj", obj)
        content.writestr("a/box.mtl", mtl)
    return Model(file, "a/box.obj", "Box", "me", "CC0 1.0", np.eye(3))


def box() -> str:
    """2 x 4 x 6, outward, one material."""
    lines = ["mtllib box.mtl", "usemtl red", *(f"v {x} {y} {z}" for x, y, z in CORNERS)]
    return "\n".join([*lines, *("f " + " ".join(map(str, side)) for side in SIDES)]) + "\n"


def ball(rows: int = 12, columns: int = 24) -> str:
    """A sphere of quads without normals."""
    lines = ["mtllib box.mtl", "usemtl red"]
    for row in range(rows + 1):
        for column in range(columns):
            up, around = math.pi * row / rows, 2 * math.pi * column / columns
            place = math.sin(up) * math.cos(around), math.cos(up), math.sin(up) * math.sin(around)
            lines.append("v {:.6f} {:.6f} {:.6f}".format(*place))
    for row in range(rows):
        for column in range(columns):
            a, b = row * columns + column + 1, row * columns + (column + 1) % columns + 1
            lines.append(f"f {a} {b} {b + columns} {a + columns}")
    return "\n".join(lines) + "\n"


def only(parts: list[MaterialMesh]) -> MaterialMesh:
    assert len(parts) == 1
    return parts[0]


def test_a_model_just_fits_the_unit_ball(tmp_path: Path) -> None:
    part = only(load(archive(tmp_path, box())))
    places = part.vertices[:, :3]
    assert part.vertices.shape == (36, 8)
    np.testing.assert_allclose(places.max(0), -places.min(0), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(places, axis=-1).max(), 1.0, atol=1e-6)
    np.testing.assert_allclose(np.ptp(places, axis=0) / np.ptp(places[:, 0]), (1, 2, 3), rtol=1e-5)
    np.testing.assert_allclose(part.color, (0.8, 0.1, 0.2, 1.0), atol=1e-6)


def test_edges_of_a_box_stay_sharp(tmp_path: Path) -> None:
    part = only(load(archive(tmp_path, box())))
    triangles = part.vertices.reshape(-1, 3, 8)
    face = np.cross(*(triangles[:, k, :3] - triangles[:, 0, :3] for k in (1, 2)))
    face /= np.linalg.norm(face, axis=-1, keepdims=True)
    np.testing.assert_allclose(triangles[:, :, 3:6], np.repeat(face[:, None], 3, 1), atol=1e-5)


def test_a_ball_is_smooth(tmp_path: Path) -> None:
    part = only(load(archive(tmp_path, ball())))
    outward = np.abs((part.vertices[:, :3] * part.vertices[:, 3:6]).sum(-1))
    outward = outward[np.linalg.norm(part.vertices[:, 3:6], axis=-1) > 0.5]  # at the poles some have no area
    assert len(outward) > 1500 and float(outward.min()) > 0.98


def test_a_missing_texture_leaves_the_colour(tmp_path: Path) -> None:
    mtl = "newmtl red\nKd 0.8 0.1 0.2\nmap_Kd C:\\pictures\\gone.png\n"
    part = only(load(archive(tmp_path, box(), mtl)))
    assert part.texture is None
    np.testing.assert_allclose(part.color[:3], (0.8, 0.1, 0.2), atol=1e-6)


def test_the_catalogue_turns_a_model(tmp_path: Path) -> None:
    made = archive(tmp_path, box())
    turned = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    part = only(load(Model(made.archive, made.path, "Box", "me", "CC0 1.0", turned)))
    spread = np.ptp(part.vertices[:, :3], axis=0)
    np.testing.assert_allclose(spread / spread.min(), (3, 2, 1), rtol=1e-5)


def test_missing_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="apt-get download"):
        models(tmp_path)
    with zipfile.ZipFile(tmp_path / "Scopia.sh3f", "w") as content:
        content.writestr("PluginFurnitureCatalog.properties", "name#1=Box\nmodel#1=/a/box/box.obj\n")
    with pytest.raises(FileNotFoundError, match=objects()[0].name):
        models(tmp_path)


def test_a_drawn_box_covers_what_it_should(tmp_path: Path) -> None:
    moderngl = pytest.importorskip("moderngl")
    from sds3d.mini_training.opengl_renderer import OffscreenRenderer

    try:
        drawers = OffscreenRenderer(32, 2, 2), OffscreenRenderer(16, 2, 2)
    except Exception as error:  # moderngl raises bare Exceptions where there is no EGL
        pytest.skip(f"no offscreen OpenGL here: {error}, moderngl {moderngl.__version__}")
    parts = load(archive(tmp_path, box()))
    # Two contexts in turn: each has to draw into its own pictures.
    big, small = (drawer(parts, orbit_cameras(6, 0.0, size)) for drawer, size in zip(drawers, (32, 16), strict=True))
    share = [float((d.albedo[..., 3] / 255).mean((1, 2))[0]) for d in (big, small)]
    assert share[0] == pytest.approx(share[1], abs=0.02) and share[0] > 0.05
    seen = big.albedo[..., 3] == 255
    np.testing.assert_allclose(big.albedo[seen][:, :3].mean(0) / 255, (0.8, 0.1, 0.2), atol=0.01)
    front = big.normal[0][seen[0]].astype(float) / 127.5 - 1
    np.testing.assert_allclose(np.median(front, axis=0), (0, 0, 1), atol=0.02)
    assert float(np.median(big.depth[0][seen[0]])) == pytest.approx(3 - 3 / math.sqrt(14), abs=0.02)
