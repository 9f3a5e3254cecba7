"""Where a texture runs on a surface: the frames that normal maps are written in, MikkTSpace's (Mikkelsen 2008).

Programs that read a file make these frames again, each by itself; a map looks right only where all make the same.
Shapes: V vertices, F triangles.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

_TINY = 1e-12


def tangents(
    vertices: Float[ndarray, "V 3"],
    normals: Float[ndarray, "V 3"],
    uv: Float[ndarray, "V 2"],
    faces: Int[ndarray, "F 3"],
) -> Float[ndarray, "V 4"]:
    """For every vertex the unit vector along which the texture runs to the right, and the sign of the one along which
    it runs up in the picture, which is that times normal x tangent.

    The triangles around a vertex count by their angle there. (0, 0) of `uv` is the upper-left corner; `normals` have
    unit length. Where triangles that mirror the texture share a vertex with others, most of the angle wins.
    """
    corners, places = vertices[faces].astype(np.float64), uv[faces].astype(np.float64)
    right, turn = _directions(corners, places)
    summed, turns = np.zeros((len(vertices), 3)), np.zeros(len(vertices))
    for k in range(3):
        at = faces[:, k]
        normal = normals[at].astype(np.float64)
        angle = _between(*(_along(corners[:, (k + step) % 3] - corners[:, k], normal) for step in (1, 2))) * (turn != 0)
        flat = _along(right, normal) * angle[:, None]
        for axis in range(3):
            summed[:, axis] += np.bincount(at, flat[:, axis], len(vertices))
        turns += np.bincount(at, angle * turn, len(vertices))
    length = np.linalg.norm(summed, axis=-1, keepdims=True)
    tangent = np.where(length > _TINY, summed / np.maximum(length, _TINY), _anywhere(normals.astype(np.float64)))
    return np.concatenate([tangent, np.where(turns < 0, -1.0, 1.0)[:, None]], -1)


def _directions(
    corners: Float[ndarray, "F 3 3"], places: Float[ndarray, "F 3 2"]
) -> tuple[Float[ndarray, "F 3"], Float[ndarray, " F"]]:
    """(where the texture runs to the right, of any length; 1, or -1 where it is mirrored, 0 where it has no area)."""
    (u, v), (s, t) = ((places[:, k] - places[:, 0]).T for k in (1, 2))
    area = u * t - v * s
    across, down = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    right = (across * t[:, None] - down * v[:, None]) * np.sign(area)[:, None]
    # Rows of the picture run down: a triangle that is not mirrored runs clockwise in them.
    return right, -np.sign(area)


def _along(vectors: Float[ndarray, "F 3"], normals: Float[ndarray, "F 3"]) -> Float[ndarray, "F 3"]:
    """The unit vectors of what is left of `vectors` in the planes across `normals`; 0 where nothing is."""
    flat = vectors - normals * (vectors * normals).sum(-1, keepdims=True)
    length = np.linalg.norm(flat, axis=-1, keepdims=True)
    unit: ndarray = np.where(length > _TINY, flat / np.maximum(length, _TINY), 0.0)
    return unit


def _between(a: Float[ndarray, "F 3"], b: Float[ndarray, "F 3"]) -> Float[ndarray, " F"]:
    """Angles between unit vectors, radians."""
    angle: ndarray = np.arccos((a * b).sum(-1).clip(-1, 1))
    return angle


def _anywhere(normals: Float[ndarray, "V 3"]) -> Float[ndarray, "V 3"]:
    """Some direction along the surface, where the texture says nothing."""
    other = np.cross(normals, np.where(np.abs(normals[:, :1]) < 0.9, [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]))
    unit: ndarray = other / np.maximum(np.linalg.norm(other, axis=-1, keepdims=True), _TINY)
    return unit
