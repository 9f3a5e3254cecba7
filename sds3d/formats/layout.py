"""How an asset lies in a file: which way is up, how long a unit is, how large the asset is, where it stands.

A mesh comes in the frame of `renderers.cameras` (+Y up, front +Z, one unit is one metre) and leaves it only here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from renderers.meshes.mesh import Mesh

GENERATOR = "sds3d"
ROUGHNESS = 0.9
"""Roughness of meshes without maps: their texture already holds the light, so there should be no highlights."""
METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001}
"""Length of each unit."""

Up = Literal["y", "z"]
Unit = Literal["m", "cm", "mm"]
Stand = Literal["free", "ground", "centre"]
Facts = Mapping[str, object]
"""What a file says of its origin; JSON values."""
NONE: Facts = {}
"""Nothing is said."""


MIN_SIZE_M, MAX_SIZE_M = 1e-6, 1e6
"""Metres of an asset's longest side."""


@dataclass(frozen=True)
class Layout:
    """How an asset lies in a file."""

    up: Up = "y"
    """y: +Y is up and the front looks to +Z, as in glTF; z: +Z is up and the front looks to -Y, as in Blender."""
    unit: Unit = "m"
    origin: Stand = "free"
    """free: where the scene has it; ground: on the plane through the origin, its middle above it; centre: its middle
    in the origin.
    """
    size_m: float | None = None
    """Longest side in metres; None: a unit of the scene is a metre."""

    def __post_init__(self) -> None:
        if self.size_m is not None and not MIN_SIZE_M <= self.size_m <= MAX_SIZE_M:
            limits = f"{MIN_SIZE_M:g} to {MAX_SIZE_M:g}"
            raise ValueError(f"size_m is {self.size_m:g}; expected the longest side in metres, from {limits}")

    def apply(self, mesh: Mesh) -> Mesh:
        """The mesh as its numbers stand in the file. Raises ValueError for one that cannot be written at all."""
        checked(mesh)
        vertices = mesh.vertices.astype(np.float64)
        low, high = vertices.min(0), vertices.max(0)
        if self.origin != "free":
            middle = (low + high) / 2
            if self.origin == "ground":
                middle[1] = low[1]
            vertices -= middle
        longest = float((high - low).max())
        if self.size_m is not None and not longest > 0:
            raise ValueError("all points of the mesh are one; it has no size that could be changed")
        scale = (1.0 if self.size_m is None else self.size_m / longest) / METRES[self.unit]
        return replace(mesh, vertices=self.rotate(vertices * scale), normals=self.rotate(mesh.normals))

    def rotate(self, vectors: Float[ndarray, "N 3"]) -> Float[ndarray, "N 3"]:
        """Vectors of the scene's frame in that of the file."""
        if self.up == "z":
            vectors = np.stack([vectors[:, 0], -vectors[:, 2], vectors[:, 1]], -1)
        return vectors.astype(np.float32)

    def unrotate(self, vectors: Float[ndarray, "N 3"]) -> Float[ndarray, "N 3"]:
        """Vectors of the file's frame with +Y up and the front at +Z."""
        if self.up == "z":
            vectors = np.stack([vectors[:, 0], vectors[:, 2], -vectors[:, 1]], -1)
        return vectors


DEFAULT_LAYOUT = Layout()
"""As the scene has it."""


def checked(mesh: Mesh) -> Mesh:
    """The mesh itself, if it can be written. Raises ValueError."""
    if len(mesh.faces) == 0:
        raise ValueError("the mesh has no triangles; there is nothing to write")
    for name, values in (("positions", mesh.vertices), ("texture coordinates", mesh.uv), ("normals", mesh.normals)):
        wrong = int((~np.isfinite(values).all(-1)).sum())
        if wrong:
            raise ValueError(f"{wrong} of the mesh's {len(values)} {name} are not finite numbers")
    return mesh


def uniform_metallic_roughness(mesh: Mesh) -> tuple[float, float] | None:
    """Roughness and metal, 0..1, where they are the same all over, so that no texture is needed; else None."""
    if mesh.maps is None:
        return ROUGHNESS, 0.0
    found = [values for values in (mesh.maps.roughness, mesh.maps.metallic) if values.min() == values.max()]
    if len(found) < 2:
        return None
    roughness, metallic = (round(float(values.flat[0]) / 255, 3) for values in found)
    return roughness, metallic


def polygons(mesh: Mesh) -> tuple[Int[ndarray, "Q 4"], Int[ndarray, "F 3"]]:
    """Corners of the quads, and of the triangles that are left."""
    pairs = mesh.faces[: 2 * mesh.quads].reshape(-1, 6)
    return pairs[:, [0, 1, 2, 5]], mesh.faces[2 * mesh.quads :]


def facts_json(facts: Facts, plain: bool = False) -> str:
    """The facts in one line; `plain` keeps to ASCII. Raises ValueError for what is no JSON."""
    try:
        return json.dumps(dict(facts), allow_nan=False, ensure_ascii=plain)
    except (TypeError, ValueError) as error:
        raise ValueError(f"provenance must hold JSON values only (text, numbers, lists, maps): {error}") from None
