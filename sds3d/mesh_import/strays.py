"""Specks far away from a mesh, left behind by a modelling program: they make everything else vanish.

Shapes: F triangles.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from sds3d.mesh_import.parts import MergedMesh

FAR = 20.0
"""Distances from the middle, in that within which nearly all of the surface lies, beyond which a speck is stray."""
AREA = 1e-3
"""Share of the surface that strays may have at most; more is part of the object."""


def strays(corners: Float[ndarray, "F 3 3"]) -> tuple[Bool[ndarray, " F"], float]:
    """The triangles that are specks far away, and how many times as far out as the rest the farthest lies."""
    none = np.zeros(len(corners), bool)
    with np.errstate(all="ignore"):
        area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1)
        if not np.isfinite(area).all() or not area.sum() > 0:
            return none, 1.0
        order = corners.mean(1)
        middle = np.array([_weighted(order[:, k], area, 0.5) for k in range(3)])
        away = np.linalg.norm(corners - middle, axis=-1)
        reach = _weighted(away.max(1), area, 1 - AREA)
        near = away.max(1) <= reach
        reach = float(away[near].max()) if near.any() else reach
        out = away.min(1) > FAR * reach
    if not out.any() or not reach > 0 or area[out].sum() > AREA * area.sum():
        return none, 1.0
    return out, float(away[out].max() / reach)


def _weighted(values: Float[ndarray, " F"], weights: Float[ndarray, " F"], share: float) -> float:
    """The value below which a share of the weight lies."""
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][min(int(np.searchsorted(total, share * total[-1])), len(values) - 1)])


def without_strays(read: MergedMesh, remarks: list[str]) -> MergedMesh:
    """The mesh without specks that would make all else tiny, and vertices that only they use."""
    out, times = strays(read.vertices[read.faces])
    if not out.any():
        return read
    remarks.append(f"{int(out.sum())} faces lie up to {times:.3g} times as far out as the rest and were left out")
    used, index = np.unique(read.faces[~out], return_inverse=True)
    return replace(
        read,
        vertices=read.vertices[used],
        faces=index.reshape(-1, 3).astype(np.int32),
        normals=None if read.normals is None else read.normals[used],
        part=read.part[~out],
        row=read.row[~out],
    )
