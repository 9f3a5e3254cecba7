"""Which triangle each pixel sees: projection, the native z-buffer, and its readable twin.

Shapes: B pictures, V vertices, F triangles, H and W pixels. Screen positions are x and y in pixels (y down, the
centre of the first pixel at (0.5, 0.5)) and the depth along the camera's axis. Both sides of a triangle are drawn;
one with a corner at depth <= 0 is left out, so cameras stay outside of what they look at.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from renderers.cameras import Cameras
from renderers.native import library

SUB = 256
"""Parts of a pixel that corners are snapped to."""
FARTHEST = 1e6
"""Corners farther than this many pixels from the picture's own corner are not drawn."""
PAIRS = 4_000_000
"""Pairs of a triangle and a pixel that the twin holds at once."""


@dataclass(frozen=True)
class Fragments:
    """What every pixel sees."""

    face: Int[ndarray, "B H W"]
    """Index of the nearest triangle, -1 where there is none."""
    bary: Float[ndarray, "B H W 3"]
    """Perspective-correct weights of its three corners; 0 where there is none."""
    depth: Float[ndarray, "B H W"]
    """Depth of the surface; 0 where there is none."""

    @property
    def seen(self) -> ndarray:
        """[B H W] True where a pixel sees a triangle."""
        seen: ndarray = self.face >= 0
        return seen


def project(vertices: Float[ndarray, "V 3"], cameras: Cameras) -> Float[ndarray, "B V 3"]:
    """Points of the world in the pictures of every camera, as float32 screen positions."""
    view = cameras.viewmats().double().cpu().numpy()
    k = cameras.intrinsics().double().cpu().numpy()
    points = vertices.astype(np.float64) @ view[:, :3, :3].transpose(0, 2, 1) + view[:, None, :3, 3]
    depth = points[..., 2:]
    safe = np.where(depth > 0, depth, 1.0)
    xy = points[..., :2] / safe * k[:, None, [0, 1], [0, 1]] + k[:, None, [0, 1], [2, 2]]
    return np.concatenate([xy, depth], -1).astype(np.float32)


def rasterise(screen: Float[ndarray, "B V 3"], faces: Int[ndarray, "F 3"], height: int, width: int) -> Fragments:
    """The nearest triangle at every pixel's centre, by the native kernel where it is built, else by the twin.

    Raises ValueError for a triangle that names a vertex which does not exist.
    """
    screen, faces = _checked(screen, faces)
    native = library()
    if native is None:
        return rasterise_slowly(screen, faces, height, width)
    views = screen.shape[0]
    face = np.empty((views, height, width), np.int32)
    bary = np.empty((views, height, width, 3), np.float32)
    depth = np.empty((views, height, width), np.float32)
    sizes = [ctypes.c_int64(n) for n in (views, screen.shape[1], faces.shape[0], height, width)]
    outputs = [ctypes.c_void_p(a.ctypes.data) for a in (face, bary, depth)]
    native.sds3d_zbuffer(ctypes.c_void_p(screen.ctypes.data), ctypes.c_void_p(faces.ctypes.data), *sizes, *outputs)
    return Fragments(face, bary, depth)


def _checked(screen: ndarray, faces: ndarray) -> tuple[ndarray, ndarray]:
    """Both arrays in the layout of the kernel, after the indices were checked."""
    if faces.size and (faces.min() < 0 or faces.max() >= screen.shape[1]):
        raise ValueError(f"triangles name vertex {faces.max()}, but there are {screen.shape[1]} vertices")
    return np.ascontiguousarray(screen, np.float32), np.ascontiguousarray(faces, np.int32)


def rasterise_slowly(screen: Float[ndarray, "B V 3"], faces: Int[ndarray, "F 3"], height: int, width: int) -> Fragments:
    """The twin of the native kernel, in numpy: every pair of a triangle and a pixel in its box, then the nearest."""
    shown = [_one_picture(corners, faces, height, width) for corners in screen]
    face, bary, depth = (np.stack(part) for part in zip(*shown, strict=True))
    return Fragments(face, bary, depth)


def _one_picture(screen: ndarray, faces: ndarray, height: int, width: int) -> tuple[ndarray, ndarray, ndarray]:
    """(face [H W], bary [H W 3], depth [H W]) of one picture."""
    nearest = np.zeros(height * width)
    face = np.full(height * width, -1, np.int32)
    bary = np.zeros((height * width, 3), np.float32)
    ids, corners, inverse = _drawable(screen, faces)
    low, size = _boxes(corners, height, width)
    area = size.prod(-1)
    for rows in np.split(np.arange(len(ids)), np.flatnonzero(np.diff(np.cumsum(area) // PAIRS)) + 1):
        owner = np.repeat(rows, area[rows])
        place = np.arange(len(owner)) - np.repeat(np.cumsum(area[rows]) - area[rows], area[rows])
        i, j = low[owner, 1] + place // size[owner, 0], low[owner, 0] + place % size[owner, 0]
        inside, weights = _weights(corners[owner], np.stack([j, i], -1) * SUB + SUB // 2)
        owner, pixel, weights = owner[inside], (i * width + j)[inside], weights[inside] * inverse[owner[inside]]
        closeness = weights.sum(-1)
        order = np.lexsort((ids[owner], -closeness, pixel))
        order = order[np.r_[True, np.diff(pixel[order]) != 0]] if len(order) else order
        order = order[closeness[order] > nearest[pixel[order]]]
        won = pixel[order]
        nearest[won], face[won] = closeness[order], ids[owner[order]]
        bary[won] = weights[order] / closeness[order, None]
    depth = np.divide(1.0, nearest, out=np.zeros_like(nearest), where=nearest > 0).astype(np.float32)
    return face.reshape(height, width), bary.reshape(height, width, 3), depth.reshape(height, width)


def _drawable(screen: ndarray, faces: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """Indices [N], snapped corners [N 3 2] in sub-pixels and inverse depths [N 3] of triangles that can be drawn."""
    usable = (screen[:, 2] > 0) & (np.abs(screen[:, :2]) < FARTHEST).all(-1)
    ids = np.flatnonzero(usable[faces].all(-1))
    corners = np.rint(screen[faces[ids], :2].astype(np.float64) * SUB).astype(np.int64)
    solid = _edge(corners[:, 0], corners[:, 1], corners[:, 2]) != 0
    ids = ids[solid]
    return ids, corners[solid], 1.0 / screen[faces[ids], 2].astype(np.float64)


def _boxes(corners: ndarray, height: int, width: int) -> tuple[ndarray, ndarray]:
    """First pixel [N 2] and number of pixels [N 2] of the box around each triangle, x before y."""
    low = np.maximum(-((SUB // 2 - corners.min(1)) // SUB), 0)
    high = np.minimum((corners.max(1) - SUB // 2) // SUB, [width - 1, height - 1])
    return low, np.maximum(high - low + 1, 0)


def _edge(a: ndarray, b: ndarray, p: ndarray) -> ndarray:
    """[N] twice the signed area of (a, b, p), whole sub-pixels."""
    area: ndarray = (b[:, 0] - a[:, 0]) * (p[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (p[:, 0] - a[:, 0])
    return area


def _weights(corners: ndarray, p: ndarray) -> tuple[ndarray, ndarray]:
    """(whether `p` is inside [N], linear weights [N 3]); edges own their points by the top-left rule."""
    doubled = _edge(corners[:, 0], corners[:, 1], corners[:, 2])
    turn = np.sign(doubled)
    inside = np.ones(len(p), bool)
    weights = np.empty((len(p), 3))
    for k in range(3):
        a, b = corners[:, (k + 1) % 3], corners[:, (k + 2) % 3]
        dx, dy = ((b - a) * turn[:, None]).T
        owns = (dy < 0) | ((dy == 0) & (dx > 0))
        value = _edge(a, b, p)
        inside &= value * turn >= np.where(owns, 0, 1)
        weights[:, k] = value / doubled
    return inside, weights
