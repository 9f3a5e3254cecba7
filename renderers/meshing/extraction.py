"""From splats or a volume to a mesh: density, the level whose silhouettes fit best, cleaning, simplification, texture.

Every number that decides the shape is found from the scene itself; the fixed ones say how finely to look.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from renderers.cameras import Cameras
from renderers.meshes.mesh import Mesh, Surface, fibonacci_cameras, iou, rasterize_surface
from renderers.meshing.interior import fill_interior
from renderers.meshing.isosurface import marching_surface, simplify, smooth_taubin
from renderers.meshing.texturing import bake_texture
from renderers.scene import Scene
from renderers.splats.density_grid import ScalarGrid, density
from renderers.splats.scene import SplatScene
from renderers.splats.surfel_thickness import inflate_surfels
from renderers.volumes.scene import NerfScene

BLURS = (2.0, 4.0)
"""Standard deviations of the blurs of the density that are tried, in spacings of its grid."""
WORTH = 0.01
"""Silhouette IoU that a stronger blur must gain to be taken."""
COARSE = 12
"""Levels tried first."""
EXTREMES = (0.02, 0.998)
"""Shares of the grid's points with any density that lie below the lowest and the highest of these levels."""
REFINEMENTS = 6
"""Steps of the search around the best of them."""
GOLDEN = (5**0.5 - 1) / 2
_RANGES = {
    "faces": (50, 1_000_000),
    "texture_size": (16, 8192),
    "resolution": (8, 512),
    "views": (1, 200),
    "silhouette_size": (16, 1024),
    "texture_render_size": (16, 2048),
}


@dataclass(frozen=True)
class MeshExtractionConfig:
    """How a scene of splats or a volume becomes a mesh."""

    faces: int = 20_000
    """Most triangles of the mesh; unfolding takes 2 s for 20,000 and about a minute for 50,000."""
    texture_size: int = 1024
    """Texels along a side of the texture."""
    resolution: int = 112
    """Points of the density grid along the longest side of the scene."""
    iso_level: float | None = None
    """Density at which the surface lies; None looks for the one whose silhouettes fit best."""
    views: int = 12
    """Silhouettes that are compared in that search."""
    silhouette_size: int = 96
    """Pixels along a side of each of them."""
    texture_render_size: int = 384
    """Pixels along a side of the pictures that the texture is painted from."""

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise ValueError(f"{name} is {value}; it lies between {least} and {most}")


def extract_mesh(scene: Scene, config: MeshExtractionConfig | None = None) -> Mesh:
    """A closed textured mesh that looks like a scene of splats or a volume. Raises as `extract_surface`."""
    config = config or MeshExtractionConfig()
    return mesh_from(extract_surface(scene, config), scene, config)


def mesh_from(fine: Surface, scene: Scene, config: MeshExtractionConfig) -> Mesh:
    """A surface of many triangles as a mesh of as few as the knobs say, painted from the scene's pictures."""
    return bake_texture(simplify(fine, config.faces), scene, config.texture_size, config.texture_render_size)


def extract_surface(scene: Scene, config: MeshExtractionConfig) -> Surface:
    """The surface of a scene, as fine as the grid of its density.

    Raises ValueError when the scene is empty or too faint, when the level has no surface, and when the scene has no
    density.
    """
    if isinstance(scene, SplatScene):
        grid = density(inflate_surfels(scene), config.resolution)
    elif isinstance(scene, NerfScene):
        grid = scene.grid(config.resolution)
    else:
        raise ValueError(f"a mesh is made from splats or from a volume; a {type(scene).__name__} has none")
    level = config.iso_level
    if level is None:
        grid, level = fit_iso_level(grid, silhouettes(scene, config.views, config.silhouette_size))
    if isinstance(scene, SplatScene) and scene.wish.surfels:
        grid = fill_interior(grid, level, scene)
    return smooth_taubin(marching_surface(grid, level))


@dataclass(frozen=True)
class Silhouettes:
    """Where a scene is seen."""

    cameras: Cameras
    inside: Bool[Tensor, "B H W"]


@torch.no_grad()
def silhouettes(scene: Scene, views: int, size: int) -> Silhouettes:
    """Pixels with alpha > 0.5, from all around. Raises ValueError when there are none."""
    cameras = fibonacci_cameras(views, size)
    alpha = scene.render(cameras, torch.zeros(views, 3)).alpha[..., 0].cpu()
    inside = alpha > 0.5
    if not inside.any():
        raise ValueError(
            f"the scene is too faint for a mesh: its most opaque pixel has alpha {float(alpha.max()):.2g}, "
            "and a surface needs more than 0.5"
        )
    return Silhouettes(cameras, inside)


def fit_iso_level(grid: ScalarGrid, target: Silhouettes) -> tuple[ScalarGrid, float]:
    """The density and the level of it whose surface has the silhouettes most like those of the scene.

    A cloud of faint splats is full of holes that its pictures, summed along the rays, do not show; blurring closes
    them. A stronger blur is taken only where it clearly helps, so a solid scene keeps its edges.
    """
    chosen = _search_level(grid, target)
    for blur in BLURS:
        other = _search_level(blurred(grid, blur), target)
        if other.score < chosen.score + WORTH:
            break
        chosen = other
    return chosen.grid, chosen.level


@dataclass(frozen=True)
class _Found:
    """The best level of one grid."""

    grid: ScalarGrid
    level: float
    score: float
    """Mean IoU of the silhouettes."""


def blurred(grid: ScalarGrid, spacings: float) -> ScalarGrid:
    """The same numbers after a Gaussian blur of that standard deviation, in spacings of the grid."""
    from scipy.ndimage import gaussian_filter

    return replace(grid, values=gaussian_filter(grid.values, spacings, mode="constant"))


def _search_level(grid: ScalarGrid, target: Silhouettes) -> _Found:
    """Tries levels in a geometric row, then searches between the neighbours of the best one by golden section.

    The row reaches from where nearly all that is not empty is inside to where hardly any is.
    """
    positive = grid.values[grid.values > 0]
    if len(positive) == 0:
        raise ValueError("the scene is empty: its density is zero everywhere")
    known: dict[float, float] = {}

    def score(logarithm: float) -> float:
        if logarithm not in known:
            known[logarithm] = _fit(grid, math.exp(logarithm), target)
        return known[logarithm]

    first, last = np.log(np.quantile(positive, EXTREMES))
    row = np.linspace(first, last, COARSE).tolist()
    best = max(range(COARSE), key=lambda index: score(row[index]))
    low, high = row[max(best - 1, 0)], row[min(best + 1, COARSE - 1)]
    for _ in range(REFINEMENTS):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        low, high = (low, right) if score(left) >= score(right) else (left, high)
    winner = max(known, key=lambda logarithm: known[logarithm])
    return _Found(grid, math.exp(winner), known[winner])


def _fit(grid: ScalarGrid, level: float, target: Silhouettes) -> float:
    """Mean silhouette IoU of the surface at `level`; 0 where there is no surface."""
    try:
        surface = marching_surface(grid, level)
    except ValueError:
        return 0.0
    return iou(torch.from_numpy(rasterize_surface(surface, target.cameras).seen), target.inside)
