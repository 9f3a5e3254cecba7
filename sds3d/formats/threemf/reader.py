"""3MF files: every object that is built, in its place, with colours of materials, of corners and of textures.

Shapes: T triangles.
"""

from __future__ import annotations

import posixpath
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from numpy import ndarray

from sds3d.formats import metadata
from sds3d.formats.file_access import shortened
from sds3d.formats.layout import Unit
from sds3d.formats.meshes.images import MAX_BYTES, Pictures
from sds3d.formats.meshes.surfaces import Layer, Skin, Surfaces
from sds3d.formats.threemf.xml import Model, Shape, Walk, placed

MAX_XML = 400 * 2**20
"""Bytes of XML in a 3MF file."""
MAX_DEPTH = 16
"""How deep objects may lie within objects."""
MAX_PLACED = 20_000
"""Objects that are placed, counted as often as they are."""
_UNITS: dict[str, Unit] = {"meter": "m", "centimeter": "cm", "millimeter": "mm"}
_OTHER_UNITS = {"micron": 1e-3, "inch": 25.4, "foot": 304.8}
"""In millimetres."""


def threemf_surfaces(path: Path, most: int) -> Surfaces:
    """A 3MF file of up to `most` triangles. Raises ValueError, OSError."""
    model = Model(most, path.name)
    with zipfile.ZipFile(path) as archive:
        names = {name.lower().lstrip("/"): name for name in archive.namelist()}
        first = _root(archive, names)
        left = MAX_XML
        waiting, seen = [first], set[str]()
        while waiting:
            part = waiting.pop()
            if part.lower() in seen or part.lower() not in names:
                continue
            seen.add(part.lower())
            info = archive.getinfo(names[part.lower()])
            if info.file_size > left:
                raise ValueError(f"its model has {info.file_size:,} bytes; at most {left:,} are read")
            left -= info.file_size
            with archive.open(info) as file:
                content = file.read(info.file_size + 1)
            walk = Walk(model, part, is_root=part == first)
            walk.parse(content)
            waiting += sorted(walk.parts)
        surfaces = _built(model, _Painter(model, archive, names))
    surfaces.up, surfaces.unit = "z", _UNITS.get(model.unit)
    if model.unit in _OTHER_UNITS:
        surfaces.positions = surfaces.positions * _OTHER_UNITS[model.unit]
        surfaces.unit = "mm"
    surfaces.facts = metadata.parsed(model.metadata.get("Description", ""))
    return surfaces


def _root(archive: zipfile.ZipFile, names: dict[str, str]) -> str:
    """The part of XML where a package begins."""
    if "_rels/.rels" in names and archive.getinfo(names["_rels/.rels"]).file_size < 2**20:
        text = archive.read(names["_rels/.rels"]).decode("utf-8", "replace")
        for tag in re.findall(r"<\w*:?Relationship\b[^>]*>", text):
            target = re.search(r"""Target\s*=\s*["']([^"']+)["']""", tag)
            if "3dmodel" in tag.rpartition("Type")[2] + tag and target and target[1].lower().endswith(".model"):
                part = unquote(target[1]).lstrip("/")
                if part.lower() in names:
                    return part
    first = next((name for name in sorted(names.values()) if name.lower().endswith(".model")), None)
    if first is None:
        raise ValueError("there is no model in the archive")
    return first.lstrip("/")


def _built(model: Model, painter: _Painter) -> Surfaces:
    """All objects in their places as one mesh."""
    whole = Surfaces(np.zeros((0, 3)), np.zeros((0, 3), np.int64))
    points, faces, skins, places, colors = [], [], [], [], []
    start = total = 0
    waiting = [(key, matrix, 0) for key, matrix in model.build[::-1]]
    if not waiting:
        waiting = [(key, placed(None), 0) for key, one in model.objects.items() if one.corners]
    steps = 0
    while waiting:
        key, matrix, depth = waiting.pop()
        steps += 1
        one = model.objects.get(key)
        if one is None:
            raise ValueError(f"it names object {shortened(key[1])}, which is not there")
        if depth > MAX_DEPTH or steps + len(waiting) + len(one.inside) > MAX_PLACED:
            raise ValueError("its objects lie too deep or too often within each other")
        with np.errstate(all="ignore"):
            for inner, place in one.inside:
                both = np.concatenate([place[:3] @ matrix[:3], place[3:] @ matrix[:3] + matrix[3:]])
                waiting.append((inner, both, depth + 1))
            own = np.array(one.points, np.float64).reshape(-1, 3)
            points.append(own @ matrix[:3] + matrix[3])
            mirrored = np.linalg.det(np.nan_to_num(matrix[:3])) < 0
        corners = np.array(one.corners, np.int64).reshape(-1, 3)
        if len(corners) and (corners.min() < 0 or corners.max() >= len(own)):
            raise ValueError(f"a triangle names vertex {corners.max()}, but there are {len(own)}")
        total += len(corners)
        if total > model.most:
            raise ValueError(
                f"{model.name} has more than {model.most:,} faces, the most that are read: simplify it first"
            )
        turn = [0, 2, 1] if mirrored else [0, 1, 2]
        faces.append(corners[:, turn] + start)
        start += len(own)
        if len(corners):
            skin, uv, color = painter.paint(key[0], one)
            skins.append(skin)
            places.append(uv[:, turn])
            colors.append(color[:, turn])
    if not total:
        whole.remarks += ["only points or lines"] if start else []
        return whole
    whole.positions, whole.faces = np.concatenate(points), np.concatenate(faces)
    whole.skin_of, whole.skins, whole.lacking = np.concatenate(skins), painter.skins, painter.lacking
    uv, color = np.concatenate(places), np.concatenate(colors)
    if np.isfinite(uv).any():
        whole.uv, whole.uv_of = np.nan_to_num(uv.reshape(-1, 2)), _own_rows(uv)
    if np.isfinite(color).any():
        whole.colors, whole.color_of = np.nan_to_num(color.reshape(-1, 3)), _own_rows(color)
    return whole


def _own_rows(values: ndarray) -> ndarray:
    """[T 3] A row for every corner of the triangles that have finite values; -1 for those of the others."""
    rows = np.arange(3 * len(values)).reshape(-1, 3)
    return np.where(np.isfinite(values).all((1, 2))[:, None], rows, -1)


@dataclass
class _Painter:
    """Finds the colours of triangles, and reads the pictures of the package."""

    model: Model
    archive: zipfile.ZipFile
    names: dict[str, str]
    """Of its parts, by their names in small letters."""
    skins: list[Skin] = field(default_factory=list)
    _number: dict[str, int] = field(default_factory=dict)
    """Of the material of each picture, by its path."""
    lacking: list[str] = field(default_factory=list)
    _pictures: Pictures = field(default_factory=Pictures)

    def paint(self, part: str, one: Shape) -> tuple[ndarray, ndarray, ndarray]:
        """([T] material, [T 3 2] texture coordinates, [T 3 3] colours) of an object's triangles; NaN for none."""
        count = len(one.paint)
        skin, uv, color = np.full(count, -1), np.full((count, 3, 2), np.nan), np.full((count, 3, 3), np.nan)
        groups, of = np.unique([group for group, *_ in one.paint], return_inverse=True)
        entries = np.array([row[1:] for row in one.paint])
        order = np.argsort(of, kind="stable")
        bounds = np.searchsorted(of[order], np.arange(len(groups) + 1))
        for number, group in enumerate(groups.tolist()):
            mine = order[bounds[number] : bounds[number + 1]]
            key, rows = (part, group), entries[mine]
            if mixed := self.model.first_of.get(key):
                inner = mixed[0][0]
                lookup = np.array([entry if of == inner else -1 for of, entry in mixed])
                rows = np.where((rows >= 0) & (rows < len(lookup)), lookup[rows.clip(0, len(lookup) - 1)], -1)
                key = part, inner
            colors, places = self.model.colors.get(key), self.model.places.get(key)
            fine = ((rows >= 0) & (rows < len(colors or places or ()))).all(1)
            if colors:
                color[mine[fine]] = np.array(colors)[rows[fine]]
            elif places:
                uv[mine[fine]] = np.array(places)[rows[fine]]
                skin[mine[fine]] = self._skin(key)
        return skin, uv, color

    def _skin(self, key: tuple[str, str]) -> int:
        """The number of the material of a group of texture coordinates."""
        path = self.model.textures.get((key[0], self.model.texture_of[key]), "")
        if path not in self._number:
            self._number[path] = len(self.skins)
            skin = Skin(path, lost=True)
            self.skins.append(skin)
            try:
                skin.layers["color"], skin.lost = self._layer(path), False
            except ValueError as error:
                self.lacking.append(f"{error}; what it holds is left grey")
        return self._number[path]

    def _layer(self, path: str) -> Layer:
        inside, shown = posixpath.normpath(unquote(path)).lstrip("/").lower(), shortened(path) or "a texture"
        if inside not in self.names:
            raise ValueError(f"{shown}, which it names, is not there")
        info = self.archive.getinfo(self.names[inside])
        if info.file_size > MAX_BYTES:
            raise ValueError(f"{shown} has {info.file_size:,} bytes; at most {MAX_BYTES:,} are read")
        picture = self._pictures.decoded(inside, shown, lambda: self.archive.read(info))
        return Layer(posixpath.basename(inside), *picture)
