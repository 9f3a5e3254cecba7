"""From splats to a mesh: density, the level whose silhouettes fit best, cleaning, simplification, texture.

Every number that decides the shape is found from the scene itself; the fixed ones say how finely to look.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from renderers.cameras import Cameras
from renderers.density import Gaussians, Grid, density
from renderers.mesh import Mesh, Surface, around, iou, look
from renderers.scene import Scene
from renderers.texture import painted

FLOATER = 0.02
"""Pieces smaller than this fraction of the largest one's volume are dropped."""
COARSE = 14
"""Levels tried first, spread over the volume they enclose."""
REFINEMENTS = 8
"""Levels tried around the best of them."""
GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Meshing:
    """How a scene of splats becomes a mesh."""

    faces: int = 20_000
    """Most triangles of the mesh."""
    texture: int = 1024
    """Texels along a side of the texture."""
    resolution: int = 112
    """Points of the density grid along the longest side of the scene."""
    level: float | None = None
    """Density at which the surface lies; None looks for the one whose silhouettes fit best."""
    views: int = 12
    """Silhouettes that are compared in that search."""
    outline: int = 96
    """Pixels along a side of each of them."""
    pictures: int = 384
    """Pixels along a side of the pictures that the texture is painted from."""

    def __post_init__(self) -> None:
        for name, least in (("faces", 50), ("texture", 16), ("resolution", 8), ("views", 1), ("outline", 16)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"{name} is {value}; the least that makes a mesh is {least}")


def mesh_of(scene: Scene, knobs: Meshing | None = None) -> Mesh:
    """A closed textured mesh that looks like a scene of splats.

    Raises ValueError when the scene is empty or too faint, when the level has no surface, and when the scene has no
    splats to take a density from.
    """
    knobs = knobs or Meshing()
    if not isinstance(scene, Gaussians):
        raise ValueError(f"a mesh is made from splats; a {type(scene).__name__} has none")
    grid = density(scene, knobs.resolution)
    level = knobs.level
    if level is None:
        level = best_level(grid, silhouettes(scene, knobs.views, knobs.outline))
    surface = simplified(smoothed(surface_at(grid, level)), knobs.faces)
    return painted(surface, scene, knobs.texture, knobs.pictures)


@dataclass(frozen=True)
class Silhouettes:
    """Where a scene is seen."""

    cameras: Cameras
    inside: Bool[Tensor, "B H W"]


@torch.no_grad()
def silhouettes(scene: Scene, views: int, size: int) -> Silhouettes:
    """Pixels with alpha > 0.5, from all around. Raises ValueError when there are none."""
    cameras = around(views, size)
    alpha = torch.cat([scene.render(cameras[i : i + 1], torch.zeros(1, 3)).alpha[..., 0] for i in range(views)])
    inside = alpha > 0.5
    if not inside.any():
        raise ValueError(
            f"the scene is too faint for a mesh: its most opaque pixel has alpha {float(alpha.max()):.2g}, "
            "and a surface needs more than 0.5"
        )
    return Silhouettes(cameras, inside.cpu())


def best_level(grid: Grid, wanted: Silhouettes) -> float:
    """The level of density whose surface has the silhouettes most like those of the scene.

    Coarse levels enclose volumes in a geometric row; then a golden-section search around the best one.
    """
    positive = np.sort(grid.values[grid.values > 0])[::-1]
    if len(positive) == 0:
        raise ValueError("the scene is empty: its density is zero everywhere")
    ranks = np.unique(np.geomspace(max(1, len(positive) // 500), len(positive) - 1, COARSE).astype(int))
    levels = np.log(positive[ranks])[::-1]
    known: dict[float, float] = {}

    def score(level: float) -> float:
        if level not in known:
            known[level] = _fit(grid, float(np.exp(level)), wanted)
        return known[level]

    best = int(np.argmax([score(level) for level in levels]))
    low, high = levels[max(best - 1, 0)], levels[min(best + 1, len(levels) - 1)]
    for _ in range(REFINEMENTS // 2):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        low, high = (low, right) if score(left) >= score(right) else (left, high)
    return float(np.exp(max(known, key=lambda level: known[level])))


def _fit(grid: Grid, level: float, wanted: Silhouettes) -> float:
    """Mean silhouette IoU of the surface at `level`; 0 where there is no surface."""
    try:
        surface = surface_at(grid, level)
    except ValueError:
        return 0.0
    return iou(torch.from_numpy(look(surface, wanted.cameras).seen), wanted.inside)


def surface_at(grid: Grid, level: float) -> Surface:
    """One closed shell per piece of the set where the density is above `level`, cavities filled, floaters dropped.

    Raises ValueError where nothing is above the level.
    """
    from skimage.measure import marching_cubes

    densest = float(grid.values.max())
    if not 0 < level < densest:
        raise ValueError(
            f"no surface at density {level:.3g}: the level must be above 0 and below {densest:.3g}, "
            "the density at the scene's densest point"
        )
    values = np.pad(grid.values, 1)
    # -1..1 with 0 at the level; a Gaussian's flank is nearly straight in it, so linear interpolation places it well.
    field = (values - level) / (values + level)
    solid, gone = _solid(field > 0)
    field[solid & (field <= 0)] = 1.0
    field[gone] = -1.0
    vertices, faces, _, _ = marching_cubes(field, 0.0, allow_degenerate=False)
    return outward(Surface(grid.origin + grid.spacing * (vertices.astype(np.float64) - 1), faces.astype(np.int32)))


def _solid(inside: ndarray) -> tuple[ndarray, ndarray]:
    """(the kept pieces with their cavities filled, what was dropped), both [X Y Z] bool."""
    from scipy import ndimage

    labels, _ = ndimage.label(inside, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept = (sizes >= FLOATER * sizes.max()) & (sizes > 0)
    solid = kept[labels]
    filled: ndarray = ndimage.binary_fill_holes(solid)
    return filled, inside & ~filled


def outward(surface: Surface) -> Surface:
    """The same surface with its triangles facing outward."""
    return surface if surface.volume >= 0 else replace(surface, faces=surface.faces[:, ::-1].copy())


def smoothed(surface: Surface, rounds: int = 10) -> Surface:
    """Taubin's two-step smoothing: irons out the grid's steps and keeps the volume (Taubin 1995, lambda and mu)."""
    from scipy import sparse

    count = len(surface.vertices)
    pairs = surface.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    ones = np.ones(len(pairs), np.float64)
    joined = sparse.coo_matrix((ones, (pairs[:, 0], pairs[:, 1])), (count, count))
    joined = ((joined + joined.T) > 0).astype(np.float64)
    average = sparse.diags(1 / np.maximum(joined.sum(1).A1, 1)) @ joined
    vertices = surface.vertices.astype(np.float64)
    for _ in range(rounds):
        for step in (0.5, -0.53):
            vertices = vertices + step * (average @ vertices - vertices)
    return replace(surface, vertices=vertices)


def simplified(surface: Surface, faces: int) -> Surface:
    """At most about `faces` triangles, by quadric error; degenerate ones and unused vertices are dropped."""
    vertices, triangles = surface.vertices, surface.faces
    if len(triangles) > faces:
        import fast_simplification

        vertices, triangles = fast_simplification.simplify(
            vertices.astype(np.float32), triangles.astype(np.int32), target_count=faces
        )
    return outward(_clean(np.asarray(vertices, np.float64), np.asarray(triangles)))


def _clean(vertices: Float[ndarray, "V 3"], faces: ndarray) -> Surface:
    """Without triangles of no area, and without vertices that none uses."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    longest = np.maximum.reduce([((p - q) ** 2).sum(-1) for p, q in ((a, b), (b, c), (c, a))])
    flat = np.linalg.norm(np.cross(b - a, c - a), axis=-1) <= 1e-6 * longest
    used, index = np.unique(faces[~flat], return_inverse=True)
    return Surface(vertices[used].astype(np.float32), index.reshape(-1, 3).astype(np.int32))
