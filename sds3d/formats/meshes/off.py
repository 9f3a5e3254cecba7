"""OFF files: with colours, normals and texture coordinates at their points, and colours at their faces."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy import ndarray

from sds3d.formats.meshes.polygons import triangulated
from sds3d.formats.meshes.surfaces import Surfaces
from sds3d.formats.meshes.text_numbers import numbers, plain_bytes

MAX_CORNERS = 20_000
_HEAD = re.compile(rb"\s*(ST)?(C)?(N)?(4)?(n)?OFF\b\s*(BINARY)?")


def off_surfaces(path: Path, most: int) -> Surfaces:
    """An OFF file of up to `most` triangles. Raises ValueError, OSError."""
    content = re.sub(rb"#[^\r\n]*", b"", plain_bytes(path.read_bytes(), path.name))
    head = _HEAD.match(content)
    if head is None:
        raise ValueError("it does not begin with the word OFF")
    textured, _colored, normals, four, deep, binary = head.groups()
    if four or deep or binary:
        raise ValueError(f"it is {head.group().decode().strip()}; expected OFF as text, in three dimensions")
    lines = [line for line in content[head.end() :].splitlines() if line.strip()]
    counts = numbers(lines[0], "its counts") if lines else np.zeros(0)
    if len(counts) < 2 or not ((counts >= 0) & (counts == np.floor(counts)) & (counts < 2**40)).all():
        raise ValueError("its first numbers are not the counts of its vertices and faces")
    points, faces = int(counts[0]), int(counts[1])
    if points + faces > len(lines) - 1:
        raise ValueError(
            f"it counts {points:,} vertices and {faces:,} faces, but has {len(lines) - 1:,} lines for them"
        )
    if faces > most:
        raise ValueError(f"{path.name} has {faces:,} faces; at most {most:,} are read: simplify it first")
    surfaces = _points(lines[1 : points + 1], bool(normals), bool(textured), most)
    table, color_of, colors = _faces(lines[points + 1 : points + 1 + faces], surfaces.positions, most, path.name)
    wide = surfaces.colors, surfaces.normals, surfaces.uv
    surfaces.faces = table
    surfaces.checked()
    surfaces.by_vertex(colors=wide[0], normals=wide[1], uv=wide[2])
    if surfaces.colors is None and colors is not None:
        surfaces.colors, surfaces.color_of = colors, np.repeat(color_of[:, None], 3, 1)
    if not len(table) and (points or faces):
        surfaces.remarks.append("only points or lines")
    return surfaces


def _points(lines: list[bytes], normals: bool, textured: bool, most: int) -> Surfaces:
    """The points; what a row has beyond what its head says are colours."""
    none = Surfaces(np.zeros((0, 3)), np.zeros((0, 3), np.int64))
    if not lines:
        return none
    values = numbers(b" ".join(lines), "a vertex of it")
    width = len(lines[0].split())
    if len(values) != width * len(lines) or width < 3 + 3 * normals + 2 * textured:
        raise ValueError(f"its {len(lines):,} vertices have {len(values):,} numbers; expected {width} each")
    rows = values.reshape(len(lines), width)
    none.positions = rows[:, :3]
    at = 3
    if normals:
        none.normals, at = rows[:, at : at + 3], at + 3
    left = width - at - 2 * textured
    if left >= 3:
        none.colors = _shares(rows[:, at : at + 3])
    if textured:
        none.uv = rows[:, width - 2 :]
    return none


def _faces(lines: list[bytes], positions: ndarray, most: int, name: str) -> tuple[ndarray, ndarray, ndarray | None]:
    """(triangles, the face of each, colours of the faces)."""
    groups: dict[tuple[int, int], list[tuple[int, bytes]]] = {}
    total = 0
    for row, line in enumerate(lines):
        words = line.split(None, 1)
        count = int(words[0]) if words[0].isdigit() and len(words[0]) < 9 else -1
        size = len(line.split())
        if not 0 <= count < size or count > MAX_CORNERS:
            raise ValueError(f"face {row:,} says that it has {words[0].decode('ascii', 'replace')[:12]} corners, "
                             f"and {size - 1} numbers follow")  # fmt: skip
        total += max(count - 2, 0)
        if total > most:
            raise ValueError(f"{name} has more than {most:,} faces, the most that are read: simplify it first")
        groups.setdefault((count, size), []).append((row, line))
    polygons, colors = [], np.full((len(lines), 3), np.nan)
    for (count, size), rows in groups.items():
        values = numbers(b" ".join(line for _, line in rows), "a face of it").reshape(len(rows), size)
        mine = np.array([row for row, _ in rows])
        with np.errstate(all="ignore"):
            whole = np.where(np.abs(values) < 2**40, values, -1).astype(np.int64)
        if count >= 3:
            polygons.append((whole[:, 1 : count + 1, None], mine))
        if size - 1 - count >= 3:
            colors[mine] = values[:, count + 1 : count + 4]
    triangles, face, _ = triangulated(polygons, positions, len(lines))
    triangles = triangles[..., 0]
    there = np.isfinite(colors).all(1)
    if not there.any() or not len(face):
        return triangles, face, None
    return triangles, np.where(there[face], face, -1), _shares(colors)


def _shares(values: ndarray) -> ndarray:
    """Colours as 0..1, of shares or of bytes."""
    shares: ndarray = (np.nan_to_num(values) / (1.0 if values.max(initial=0) <= 1.001 else 255.0)).clip(0, 1)
    return shares
