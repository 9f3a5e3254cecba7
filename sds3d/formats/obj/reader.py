"""Reads the geometry of OBJ files as it is written: positions, colors, texture coordinates, normals, polygons.

Shapes: P positions, T texture coordinates, N normals, F triangles after polygons were cut into fans.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64
from numpy import ndarray

from sds3d.formats.obj.materials import text_of


@dataclass(frozen=True)
class ObjFile:
    """What an OBJ file holds."""

    positions: Float[ndarray, "P 3"]
    colors: Float[ndarray, "P 3"] | None
    """sRGB, behind the positions; None where not all have one."""
    uv: Float[ndarray, "T 2"]
    """As written: (0, 0) is the lower-left corner."""
    normals: Float[ndarray, "N 3"]
    corners: Int64[ndarray, "F 3 3"]
    """Of each corner its position, texture coordinate and normal; -1 for none."""
    material: Int64[ndarray, " F"]
    """Number in `materials`; -1 for none."""
    materials: tuple[str, ...]
    libraries: tuple[str, ...]
    """The rest of each `mtllib` line."""


def read_obj(path: Path, max_faces: int) -> ObjFile:
    """Reads an OBJ file.

    Raises:
        OSError: it cannot be read.
        ValueError: in one line with its number, what is damaged; it has more than `max_faces` triangles.
    """
    text = re.sub(r"\\\r?\n", " ", text_of(path.read_bytes(), path.name))
    columns: dict[str, list[list[float]]] = {"v": [], "vt": [], "vn": []}
    triangles: list[int] = []
    owners: list[int] = []
    names: dict[str, int] = {}
    libraries: list[str] = []
    current = -1
    for number, line in enumerate(text.splitlines(), 1):
        key, _, rest = line.strip().replace("\t", " ").partition(" ")
        if key in columns:
            try:
                columns[key].append([float(word) for word in rest.split()])
            except ValueError:
                raise ValueError(f"{path.name}, line {number}: {_wrong_number(rest)}") from None
        elif key == "f":
            try:
                polygon = [_corner(word, columns) for word in rest.split()]
            except ValueError:
                raise ValueError(f"{path.name}, line {number}: {rest[:40]!r} is not a face; expected v/vt/vn") from None
            for at in range(1, len(polygon) - 1):
                triangles += [*polygon[0], *polygon[at], *polygon[at + 1]]
                owners.append(current)
            if len(owners) > max_faces:
                raise ValueError(f"{path.name} has more than {max_faces:,} faces; simplify it first")
        elif key == "usemtl":
            current = names.setdefault(rest.strip(), len(names))
        elif key == "mtllib":
            libraries.append(rest.strip())
    corners = np.array(triangles, np.int64).reshape(-1, 3, 3)
    positions = _table(columns["v"], 3, path.name, "v")
    uv, normals = _table(columns["vt"], 2, path.name, "vt"), _table(columns["vn"], 3, path.name, "vn")
    for column, (what, table) in enumerate((("vertex", positions), ("texture coordinate", uv), ("normal", normals))):
        used = corners[..., column]
        if used.size and (used.max() >= len(table) or used.min() < (0 if column == 0 else -1)):
            bad = int(used.max()) + 1 if used.max() >= len(table) else int(used.min())
            raise ValueError(f"{path.name}: a face names {what} {bad}, and there are {len(table)}")
    colored = columns["v"] and all(len(row) >= 6 for row in columns["v"])
    colors = np.array([row[-3:] for row in columns["v"]], np.float64) if colored else None
    return ObjFile(positions, colors, uv, normals, corners, np.array(owners, np.int64), tuple(names), tuple(libraries))


def _corner(word: str, columns: dict[str, list[list[float]]]) -> tuple[int, int, int]:
    """Indices from 0 of one corner such as 3, 3/1, 3//2 or -1/-1/-1. Raises ValueError."""
    parts = word.split("/")
    if len(parts) > 3 or not parts[0]:
        raise ValueError(word)
    found = [-1, -1, -1]
    for place, (part, table) in enumerate(zip(parts, columns.values(), strict=False)):
        if part:
            index = int(part)
            found[place] = index - 1 if index > 0 else len(table) + index
            if index == 0 or found[place] < 0:
                raise ValueError(word)
    return found[0], found[1], found[2]


def _table(rows: list[list[float]], width: int, name: str, key: str) -> Float[ndarray, "_ W"]:
    """Rows as an array of their first columns; a texture coordinate of one number lies at v = 0."""
    if key == "vt":
        rows = [row if len(row) > 1 else [*row, 0.0] for row in rows]
    if any(len(row) < width for row in rows):
        raise ValueError(f"{name}: a line {key!r} has fewer than {width} numbers")
    return np.array([row[:width] for row in rows], np.float64).reshape(-1, width)


def _wrong_number(rest: str) -> str:
    """What is wrong with a line of numbers."""
    if re.search(r"\d,\d", rest):
        return f"{rest[:40]!r} has a comma where a decimal point belongs; write 0.5 in place of 0,5"
    return f"{rest[:40]!r} is not a list of numbers"
