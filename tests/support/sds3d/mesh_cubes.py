"""A cube of side 1 with six colours, put together by hand as OBJ, PLY, STL, OFF and 3MF in the ways of many programs.

+x green, -x yellow, +y light, -y dark, +z red, -z blue; texture coordinates lie inside the tiles of a picture of 3 x 2.
"""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy import ndarray
from PIL import Image

from renderers.meshes.mesh import Mesh
from sds3d.mesh_import.load import load_mesh

COLORS = ((0, 200, 0), (220, 220, 0), (230, 230, 230), (40, 40, 40), (220, 0, 0), (0, 0, 220))
"""Of the sides +x, -x, +y, -y, +z, -z."""


def sides() -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """(positions [24 3], normals [24 3], texture coordinates [24 2] from the lower left, quads [6 4])."""
    spots, normals, uv = [], [], []
    for side in range(6):
        axis, sign = side // 2, 1 - 2 * (side % 2)
        across, up = np.eye(3)[(axis + 1) % 3], np.eye(3)[(axis + 2) % 3]
        if sign < 0:
            across, up = up, across
        middle = sign * np.eye(3)[axis]
        for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
            spots.append((middle + a * across + b * up) / 2)
            normals.append(middle)
            uv.append(((side % 3 + 0.5 + 0.3 * a) / 3, 1 - (side // 3 + 0.5 - 0.3 * b) / 2))
    return np.array(spots), np.array(normals), np.array(uv), np.arange(24).reshape(6, 4)


def corner_colors() -> ndarray:
    """[24 3] eight bits."""
    return np.repeat(np.array(COLORS), 4, 0)


def triangles() -> ndarray:
    """[12 3]"""
    return sides()[3][:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)


def tiles(mode: str = "RGB", texels: int = 16) -> Image.Image:
    """The picture of all six colours."""
    rows = np.zeros((2 * texels, 3 * texels, 3), np.uint8)
    for side, color in enumerate(COLORS):
        down, across = side // 3 * texels, side % 3 * texels
        rows[down : down + texels, across : across + texels] = color
    return Image.fromarray(rows).convert(mode)


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def rows(word: str, table: ndarray) -> str:
    return "".join(f"{word} {' '.join(f'{value:g}' for value in row)}\n" for row in table.tolist())


def obj_text(head: str = "mtllib m.mtl\nusemtl skin\n", faces: str | None = None, end: str = "\n") -> str:
    """The cube with texture coordinates; `faces` in place of its quads."""
    spots, _, uv, quads = sides()
    usual = "".join("f " + " ".join(f"{i + 1}/{i + 1}" for i in quad) + "\n" for quad in quads.tolist())
    return (head + rows("v", spots) + rows("vt", uv) + (usual if faces is None else faces)).replace("\n", end)


def put(folder: Path, **files: str | bytes) -> Path:
    """Writes `m.obj`, the materials and the picture; names with other signs come by a dict."""
    everything = {"m.obj": obj_text(), "m.mtl": "newmtl skin\nmap_Kd t.png\n", "t.png": png(tiles()), **files}
    for name, content in everything.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder / "m.obj"


def stl(head: bytes = b"", count: int | None = None, more: ndarray | None = None) -> bytes:
    spots, normals, _, _ = sides()
    table = np.zeros(12, [("n", "<f4", 3), ("v", "<f4", (3, 3)), ("m", "<u2")])
    table["v"], table["n"] = spots[triangles()], normals[triangles()[:, 0]]
    table["m"] = 0 if more is None else more
    return (
        head.ljust(80, b" " if head else b"\0")[:80]
        + struct.pack("<I", 12 if count is None else count)
        + table.tobytes()
    )


def stl_text() -> str:
    facets = ""
    for corners in sides()[0][triangles()].tolist():
        loop = "".join(f"      vertex {x:g} {y:g} {z:g}\n" for x, y, z in corners)
        facets += f"  facet normal 0 0 0\n    outer loop\n{loop}    endloop\n  endfacet\n"
    return f"solid cube\n{facets}endsolid cube\n"


def threemf(resources: str, extra: dict[str, bytes] | None = None, build: str = '<item objectid="9"/>') -> bytes:
    """A package whose `resources` hold an object 9; {vertices} and {triangles} are the cube's, for `str.format`."""
    model = (
        '<?xml version="1.0" encoding="UTF-8"?><model unit="millimeter" '
        'xmlns="http://schemas.microsoft.com/3dmanufacturing/core/2015/02" '
        'xmlns:m="http://schemas.microsoft.com/3dmanufacturing/material/2015/02" '
        'xmlns:p="http://schemas.microsoft.com/3dmanufacturing/production/2015/06">'
        f"<resources>{resources}</resources><build>{build}</build></model>"
    )
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("3D/3dmodel.model", model)
        for name, content in (extra or {}).items():
            archive.writestr(name, content)
    return file.getvalue()


def off(mesh: Mesh, wanted: tuple[tuple[int, int, int] | None, ...] = COLORS) -> float:
    """How far the colours of a loaded cube are from the wanted ones, in levels of 255; sides of None are passed."""
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    facing = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    worst = 0.0
    for face, normal in enumerate(facing):
        axis = int(np.abs(normal).argmax())
        color = wanted[2 * axis + int(normal[axis] < 0)]
        if color is None:
            continue
        for bary in ((0.34, 0.33, 0.33), (0.6, 0.2, 0.2), (0.2, 0.6, 0.2), (0.2, 0.2, 0.6)):
            across, down = (mesh.uv[mesh.faces[face]] * np.array(bary)[:, None]).sum(0) * len(mesh.texture)
            last = len(mesh.texture) - 1
            texel = mesh.texture[min(int(down), last), min(int(across), last)].astype(float)
            worst = max(worst, float(np.abs(texel - color).max()))
    return worst


def seen_sides(mesh: Mesh) -> set[int]:
    """The sides that have triangles."""
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    facing = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    axis = np.abs(facing).argmax(1)
    return set((2 * axis + (facing[np.arange(len(axis)), axis] < 0)).tolist())


LEVELS = 14
"""How far colours may be off, of 255."""
GREY = ((128, 128, 128),) * 6
Wanted = tuple[tuple[int, int, int] | None, ...]


def right(path: Path, wanted: Wanted = COLORS, texture: int = 128) -> tuple[str, ...]:
    """Loads a cube, holds it against the wanted colours and its side of 1; returns what was said."""
    loaded = load_mesh(path, texture)
    assert seen_sides(loaded.mesh) == set(range(6))
    assert np.ptp(loaded.placement.inverse(loaded.mesh).vertices, axis=0) == pytest.approx(1, abs=1e-4)
    assert off(loaded.mesh, wanted) <= LEVELS
    assert loaded.mesh.surface.volume > 0
    return loaded.warnings
