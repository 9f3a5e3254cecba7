"""STL files: of bytes and of text, whatever their first words say, with the colours that two programs put into them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy import ndarray

from sds3d.formats.layout import GENERATOR
from sds3d.formats.meshes.surfaces import Surfaces
from sds3d.formats.meshes.text_numbers import numbers, plain_bytes

_ROW = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("more", "<u2")])
_HEAD = 84
_VERTEX = re.compile(rb"(?i)^[ \t]*vertex[ \t]+(.*)$", re.MULTILINE)


def stl_surfaces(path: Path, most: int) -> Surfaces:
    """An STL file of up to `most` triangles. Raises ValueError, OSError."""
    content = path.read_bytes()
    counted = int.from_bytes(content[80:84], "little") if len(content) >= _HEAD else -1
    if len(content) != _HEAD + counted * _ROW.itemsize and _is_text(content):
        return _text(plain_bytes(content, path.name), most, path.name)
    return _binary(content, counted, most, path.name)


def _is_text(content: bytes) -> bool:
    head = content[:4096].lower()
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return True
    return b"\0" not in head and (b"facet" in head or head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"solid"))


def _surfaces(corners: ndarray) -> Surfaces:
    """[F 3 3] Triangles, each with corners of its own."""
    return Surfaces(corners.reshape(-1, 3).astype(np.float64), np.arange(3 * len(corners)).reshape(-1, 3))


def _binary(content: bytes, counted: int, most: int, name: str) -> Surfaces:
    if len(content) < _HEAD:
        raise ValueError(f"it has {len(content)} bytes; an STL file of bytes has at least {_HEAD}")
    there = (len(content) - _HEAD) // _ROW.itemsize
    count = min(counted, there)
    remarks = []
    if counted > there or (counted < there and (len(content) - _HEAD) % _ROW.itemsize == 0):
        count = there
        _plausible(np.frombuffer(content, _ROW, count, _HEAD), counted, len(content))
        remarks.append(f"its head counts {counted:,} triangles, but there are {there:,}; these were read")
    elif len(content) > _HEAD + count * _ROW.itemsize:
        extra = len(content) - _HEAD - count * _ROW.itemsize
        remarks.append(f"{extra:,} bytes behind its {count:,} triangles were left out")
    if count > most:
        raise ValueError(f"{name} has {count:,} faces; at most {most:,} are read: simplify it first")
    rows = np.frombuffer(content, _ROW, count, _HEAD)
    surfaces = _surfaces(rows["corners"])
    surfaces.remarks = remarks
    colors = _colors(content[:80], rows["more"])
    if colors is not None:
        surfaces.colors, surfaces.color_of = colors, np.repeat(np.arange(count)[:, None], 3, 1)
    said = re.match(rf"{GENERATOR} unit (m|cm|mm) up ([yz]) ", content[:80].decode("ascii", "replace"))
    if said:
        surfaces.unit, surfaces.up = said[1], said[2]  # type: ignore[assignment]
    return surfaces


def _plausible(rows: ndarray, counted: int, size: int) -> None:
    """Raises ValueError where rows are no triangles: their normals are of length 1, or all left at 0."""
    length = np.linalg.norm(rows["normal"].astype(np.float64), axis=-1)
    if not len(rows) or (np.isclose(length, 1, atol=0.01) | (length == 0)).mean() < 0.5:
        raise ValueError(f"its head counts {counted:,} triangles, for which {size:,} bytes are not right: it is no STL")


def _colors(head: bytes, more: ndarray) -> ndarray | None:
    """[F 3] Colours in the two bytes behind a triangle: Materialise's, whose head has one for all, or VisCAM's."""
    if not len(more):
        return None
    fives = np.stack([more & 31, more >> 5 & 31, more >> 10 & 31], -1) / 31
    marked = more >= 0x8000
    at = head.find(b"COLOR=")
    if 0 <= at <= 70:
        whole = np.frombuffer(head[at + 6 : at + 9], np.uint8) / 255
        return np.where(marked[:, None], whole, fives)
    # Others write what they like there; colours are believed where every triangle is marked and not all are black.
    return fives[:, ::-1] if marked.all() and fives.any() else None


def _text(content: bytes, most: int, name: str) -> Surfaces:
    rows = _VERTEX.findall(content.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
    if len(rows) > 3 * most:
        raise ValueError(f"{name} has {len(rows) // 3:,} faces; at most {most:,} are read: simplify it first")
    values = numbers(b" ".join(rows), "a vertex of it")
    if len(values) != 3 * len(rows):
        raise ValueError(f"its {len(rows):,} vertices have {len(values):,} numbers; expected three each")
    facets = len(re.findall(rb"(?i)^[ \t]*facet", content.replace(b"\r", b"\n"), re.MULTILINE))
    whole = len(rows) // 3
    if len(rows) != 3 * facets and len(rows) % 3:
        # Cut short: what is whole is there.
        values = values[: 9 * whole]
    if not whole:
        return Surfaces(np.zeros((0, 3)), np.zeros((0, 3), np.int64))
    surfaces = _surfaces(values.reshape(-1, 3, 3))
    if len(rows) != 3 * facets:
        surfaces.remarks.append(f"it has {facets:,} facets and {len(rows):,} vertices: it is cut short or damaged")
    return surfaces
