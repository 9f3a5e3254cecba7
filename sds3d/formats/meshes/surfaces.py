"""The contents of a mesh file in the words that all formats but glTF and USD share: corners that point into tables.

Shapes: P positions, U texture coordinates, N normals, C colours, F triangles.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from sds3d.formats.layout import Unit, Up


@dataclass
class Layer:
    """A picture of a material, and how it lies on a surface."""

    name: str
    pixels: UInt8[ndarray, "H W 4"]
    size: tuple[int, int]
    """Width and height in the file."""
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)
    """A place of the surface is at `scale * uv + offset`."""
    clamp: bool = False
    """Outside 0..1 lies its border; else it repeats."""

    @property
    def laid(self) -> tuple[Any, ...]:
        return self.scale, self.offset, self.clamp


@dataclass
class Skin:
    """A material. Colours are sRGB."""

    name: str
    color: tuple[float, float, float] | None = None
    glow: tuple[float, float, float] | None = None
    roughness: float | None = None
    metallic: float | None = None
    alpha: float = 1.0
    layers: dict[str, Layer] = field(default_factory=dict)
    """By what they hold: color, roughness, metallic, normal, glow, alpha."""
    lost: bool = False
    """Its colour is a picture that cannot be had."""


@dataclass
class Surfaces:
    """A mesh file. Indices of -1 stand for none."""

    positions: Float[ndarray, "P 3"]
    faces: Int[ndarray, "F 3"]
    uv: Float[ndarray, "U 2"] | None = None
    """(0, 0) the lower-left corner."""
    uv_of: Int[ndarray, "F 3"] | None = None
    normals: Float[ndarray, "N 3"] | None = None
    normal_of: Int[ndarray, "F 3"] | None = None
    colors: Float[ndarray, "C 3"] | None = None
    """sRGB, 0..1."""
    color_of: Int[ndarray, "F 3"] | None = None
    skins: list[Skin] = field(default_factory=list)
    skin_of: Int[ndarray, " F"] | None = None
    up: Up | None = None
    unit: Unit | None = None
    facts: dict[str, Any] | None = None
    lacking: list[str] = field(default_factory=list)
    """What the file names and cannot be had, a line each."""
    remarks: list[str] = field(default_factory=list)
    """What is unusual and was not read as it stands."""
    quads: int = 0
    """Faces of four corners before all others; each is two triangles, cut from its first corner."""

    def by_vertex(self, **tables: ndarray | None) -> Surfaces:
        """With tables that have a row for every position: `uv`, `normals`, `colors`."""
        names = {"uv": "uv_of", "normals": "normal_of", "colors": "color_of"}
        for name, table in tables.items():
            if table is not None:
                setattr(self, name, table)
                setattr(self, names[name], self.faces)
        return self

    def checked(self) -> Surfaces:
        """Itself. Raises ValueError where a corner points nowhere."""
        for what, table, rows in (
            ("vertex", self.faces, self.positions),
            ("texture coordinate", self.uv_of, self.uv),
            ("normal", self.normal_of, self.normals),
            ("colour", self.color_of, self.colors),
        ):
            if table is None or not len(table):
                continue
            low, high, count = int(table.min()), int(table.max()), 0 if rows is None else len(rows)
            if high >= count or low < (0 if what == "vertex" else -1):
                raise ValueError(f"a face names {what} {high if high >= count else low}, but there are {count}")
        return self


def distinct(rows: Int[ndarray, "R C"]) -> tuple[Int[ndarray, "D C"], Int[ndarray, " R"]]:
    """Every row of small whole numbers from -1 up once, and which of them each is."""
    key, step = np.zeros(len(rows), np.int64), 1
    for column in rows.T:
        width = int(column.max(initial=-1)) + 2
        if step * width >= 2**62:
            both: tuple[ndarray, ndarray] = np.unique(rows, axis=0, return_inverse=True)
            return both[0], both[1].reshape(-1)
        key += (column + 1) * step
        step *= width
    _, first, index = np.unique(key, return_index=True, return_inverse=True)
    return rows[first], index.reshape(-1)
