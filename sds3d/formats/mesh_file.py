"""The contents of a mesh file as every reader returns them: for checks, and to see that an export arrived."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from sds3d.formats.layout import Layout, Unit, Up


@dataclass
class MeshFile:
    """What a file holds."""

    vertices: Float[ndarray, "V 3"]
    faces: Int[ndarray, "F 3"]
    normals: Float[ndarray, "V 3"] | None = None
    uv: Float[ndarray, "V 2"] | None = None
    """(0, 0) the upper-left corner."""
    colors: UInt8[ndarray, "V 3"] | None = None
    images: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Width and height of the textures, by what they hold."""
    material: dict[str, Any] = field(default_factory=dict)
    up: Up | None = None
    unit: Unit | None = None
    facts: dict[str, Any] | None = None
    """What the file says of its origin, where sds3d wrote it."""
    parts: Int[ndarray, " F"] | None = None
    """The material of each triangle, where there are several."""
    missing: list[str] = field(default_factory=list)
    """What the file names and cannot be had, a line each."""
    remarks: list[str] = field(default_factory=list)
    """What is unusual and was not read as it stands."""
    quads: int = 0
    """Faces of four corners; each is two of the first triangles here, cut from its first corner."""

    @property
    def layout(self) -> Layout:
        return Layout(self.up or "y", self.unit or "m")
