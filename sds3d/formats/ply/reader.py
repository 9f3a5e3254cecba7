"""Meshes in PLY files, by all the names that programs give to their columns."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from sds3d.formats.file_access import shortened
from sds3d.formats.meshes.named_files import NamedFiles
from sds3d.formats.meshes.polygons import triangulated
from sds3d.formats.meshes.surfaces import Skin, Surfaces
from sds3d.formats.obj.materials import Library
from sds3d.formats.ply.table import Lists, Ply, Table, read_ply

_COLORS = (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue"),
           ("diffuse_r", "diffuse_g", "diffuse_b"), ("color_r", "color_g", "color_b"),
           ("vertex_red", "vertex_green", "vertex_blue"), ("ambient_red", "ambient_green", "ambient_blue"))  # fmt: skip
_PLACES = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"), ("texture_s", "texture_t"), ("tu", "tv"), ("tx", "ty"),
           ("texcoord_u", "texcoord_v"), ("texcoord_0", "texcoord_1"),
           ("texcoord_x", "texcoord_y"), ("texcoord_s", "texcoord_t"))  # fmt: skip
_NORMALS = (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z"))
_CORNERS = ("vertex_indices", "vertex_index", "vertex_indicies", "vertices", "indices")
_TEXTURE = re.compile(r"TextureFile\s+(\S.*)", re.IGNORECASE)
_SAID = re.compile(r"up ([yz]) unit (m|cm|mm)")


def ply_surfaces(path: Path, most: int) -> Surfaces:
    """A PLY file of up to `most` triangles. Raises ValueError, OSError."""
    ply = read_ply(path)
    points = ply.elements.get("vertex") or ply.elements.get("vertices") or ply.elements.get("point")
    if points is None:
        named = ", ".join(shortened(name) for name in list(ply.elements)[:5]) or "none at all"
        raise ValueError(f"its header has no element vertex, but {named}")
    positions = _stacked(points, ("x", "y", "z"))
    if positions is None:
        raise ValueError("its points have no columns x, y and z")
    faces = ply.elements.get("face") or ply.elements.get("faces")
    triangles, face = _faces(faces, positions, most, path.name)
    strips = ply.elements.get("tristrips")
    if strips is not None:
        more = _strips(strips, most, path.name)
        triangles = np.concatenate([triangles, np.stack([more, np.full_like(more, -1)], -1)])
        face = np.concatenate([face, np.full(len(more), -1)])
    surfaces = Surfaces(positions, triangles[..., 0])
    if not len(triangles):
        gaussians = "; it holds splats" if "f_dc_0" in points.columns else ""
        surfaces.remarks.append(f"only points or lines{gaussians}")
        return surfaces
    surfaces.checked()
    surfaces.by_vertex(normals=_first(points, _NORMALS), uv=_first(points, _PLACES), colors=_colors(points))
    if faces is not None and surfaces.colors is None and (own := _colors(faces)) is not None:
        surfaces.colors, surfaces.color_of = own, np.repeat(face[:, None], 3, 1)
    if faces is not None:
        _wedges(faces, surfaces, triangles, face)
    _textures(ply, faces, surfaces, face, path)
    said = next((match for line in ply.comments if (match := _SAID.fullmatch(line))), None)
    if said is not None:
        surfaces.up, surfaces.unit = said[1], said[2]  # type: ignore[assignment]
    return surfaces


def _stacked(table: Table, names: tuple[str, ...]) -> ndarray | None:
    """[N C] float64 columns; None where one is not there."""
    if any(name not in table.columns for name in names):
        return None
    return np.stack([table.columns[name].astype(np.float64) for name in names], -1)


def _first(table: Table, choices: tuple[tuple[str, ...], ...]) -> ndarray | None:
    """The first of several sets of columns that is there."""
    return next((found for names in choices if (found := _stacked(table, names)) is not None), None)


def _colors(table: Table) -> ndarray | None:
    """[N 3] sRGB 0..1, of whole numbers of any width and of floats."""
    for names in _COLORS:
        values = _stacked(table, names)
        if values is None or not len(values):
            continue
        kind = table.kinds[names[0]]
        values = np.nan_to_num(values)
        if kind in ("u1", "u2"):
            most = 255.0 if kind == "u1" else 65535.0
        else:
            # Floats are 0..1, but some programs write bytes as floats or as ints.
            high = values.max()
            most = 1.0 if kind[0] == "f" and high <= 1.001 else 255.0 if high <= 255 else 65535.0
        shares: ndarray = (values / most).clip(0, 1)
        return shares
    return None


def _list(table: Table, names: tuple[str, ...]) -> Lists | None:
    return next((table.lists[name] for name in names if name in table.lists), None)


def _faces(table: Table | None, positions: ndarray, most: int, name: str) -> tuple[ndarray, ndarray]:
    """([T 3 2] the vertex and the place in its list of every corner, [T] the row of its face)."""
    none = np.zeros((0, 3, 2), np.int64), np.zeros(0, np.int64)
    if table is None or not table.rows:
        return none
    corners = _list(table, _CORNERS) or next(iter(table.lists.values()), None)
    if corners is None:
        raise ValueError("its faces have no list of vertices")
    total = int(np.maximum(corners.lengths - 2, 0).sum())
    if total > most:
        raise ValueError(f"{name} has {total:,} faces; at most {most:,} are read: simplify it first")
    starts = np.cumsum(corners.lengths) - corners.lengths
    polygons = []
    whole = _whole(corners.values)
    for length in np.unique(corners.lengths):
        mine = np.flatnonzero(corners.lengths == length)
        if length >= 3:
            rows = starts[mine][:, None] + np.arange(length)
            polygons.append((np.stack([whole[rows], np.broadcast_to(np.arange(length), rows.shape)], -1), mine))
    triangles, face, _ = triangulated(polygons, positions, table.rows)
    return (triangles, face) if len(triangles) else none


def _whole(values: ndarray) -> ndarray:
    """Indices as whole numbers; what cannot be one names no vertex."""
    with np.errstate(all="ignore"):
        sane = np.isfinite(values) & (np.abs(values.astype(np.float64)) < 2**40)
        return np.where(sane, values, -1).astype(np.int64)


def _strips(table: Table, most: int, name: str) -> ndarray:
    """[T 3] Triangles of strips, which -1 ends."""
    lists = _list(table, _CORNERS) or next(iter(table.lists.values()), None)
    if lists is None:
        return np.zeros((0, 3), np.int64)
    values = _whole(np.insert(lists.values.astype(np.float64), np.cumsum(lists.lengths), -1))
    if len(values) > 3 * most:
        raise ValueError(f"{name} has strips of {len(values):,} corners; at most {3 * most:,} are read")
    if len(values) < 3:
        return np.zeros((0, 3), np.int64)
    rows = np.stack([values[:-2], values[1:-1], values[2:]], -1)
    # Within a strip every other triangle is turned.
    ends = np.flatnonzero(values < 0)
    begin = np.concatenate([[0], ends + 1])
    place = np.arange(len(rows)) - begin[np.searchsorted(ends, np.arange(len(rows)))]
    rows[place % 2 == 1] = rows[place % 2 == 1][:, [1, 0, 2]]
    return rows[(rows >= 0).all(1)]


def _wedges(table: Table, surfaces: Surfaces, triangles: ndarray, face: ndarray) -> None:
    """Texture coordinates of the corners of faces, as MeshLab writes them."""
    lists = _list(table, ("texcoord", "texcoords", "texture_coordinates", "uv"))
    if lists is None or not len(lists.values):
        return
    starts = np.cumsum(lists.lengths) - lists.lengths
    corners = _list(table, _CORNERS) or next(iter(table.lists.values()))
    fine = (lists.lengths == 2 * corners.lengths) & (lists.lengths > 0)
    if not fine[face].any():
        return
    values = np.concatenate([lists.values, [0.0] * (len(lists.values) % 2)]).astype(np.float64).reshape(-1, 2)
    if (starts % 2).any():
        return
    places = np.where(fine[face][:, None], starts[face][:, None] // 2 + triangles[..., 1], -1)
    surfaces.uv, surfaces.uv_of = values, places


def _textures(ply: Ply, table: Table | None, surfaces: Surfaces, face: ndarray, path: Path) -> None:
    """Pictures that comments name, and which of them lies on each face."""
    names = [match[1].strip() for line in ply.comments if (match := _TEXTURE.match(line))][:1000]
    if not names or surfaces.uv is None:
        return
    library = Library(NamedFiles(path.parent))
    for name in names:
        skin = Skin(name)
        try:
            skin.layers["color"] = library.layer(name)
        except ValueError as error:
            skin.lost = True
            library.lack(str(error))
        surfaces.skins.append(skin)
    number: Any = np.zeros(len(face), np.int64)
    if table is not None and len(names) > 1 and "texnumber" in table.columns:
        number = np.where(face >= 0, _whole(table.columns["texnumber"])[face], 0)
        number = np.where((number >= 0) & (number < len(names)), number, -1)
    surfaces.skin_of = number
    surfaces.lacking += library.lacking
    surfaces.remarks += library.remarks
