"""What no picture sees is inside: scenes that show only a skin as solid ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from renderers.cameras import Cameras
from renderers.meshes.mesh import fibonacci_cameras
from renderers.region_masks import MIN_ALPHA
from renderers.scene import Scene
from renderers.splats.density_grid import ScalarGrid

VIEWS, SIZE = 40, 128
"""Pictures from all around, and pixels along a side of each."""
SURFACE_MARGIN = 1.0
"""Spacings of the grid behind what a picture shows as far as it is believed to see."""


@torch.no_grad()
def fill_interior(grid: ScalarGrid, level: float, scene: Scene) -> ScalarGrid:
    """The grid with more than `level` at all points that lie behind what is solid in every picture of the scene."""
    cameras = fibonacci_cameras(VIEWS, SIZE)
    frame = scene.render(cameras, torch.zeros(VIEWS, 3))
    walls = torch.where(frame.alpha > MIN_ALPHA, frame.depth, torch.inf).cpu()
    # Beside an edge one may see as far as what lies there.
    walls = functional.max_pool2d(walls.permute(0, 3, 1, 2), 3, stride=1, padding=1)
    axes = [torch.from_numpy(grid.origin[d] + grid.spacing * np.arange(n)) for d, n in enumerate(grid.values.shape)]
    points = torch.cartesian_prod(*axes).float()
    behind = torch.ones(len(points), dtype=torch.bool)
    for view in range(VIEWS):
        rows = behind.nonzero()[:, 0]
        behind[rows] = _behind(points[rows], walls[view], cameras[view : view + 1], SURFACE_MARGIN * grid.spacing)
    solid = behind.view(grid.values.shape).numpy()
    return replace(grid, values=np.where(solid, np.maximum(grid.values, 2 * level), grid.values))


def _behind(
    points: Float[Tensor, "P 3"], walls: Float[Tensor, "1 H W"], camera: Cameras, skin: float
) -> Bool[Tensor, " P"]:
    """Whether points lie deeper than what one picture shows where they are; never outside of it."""
    pose = camera.viewmats()[0]
    before = points @ pose[:3, :3].T + pose[:3, 3]
    place = before @ camera.intrinsics()[0].T
    column, row = (place[:, k] / place[:, 2] for k in (0, 1))
    inside = (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
    at = row.clamp(0, camera.height - 1).long() * camera.width + column.clamp(0, camera.width - 1).long()
    return inside & (before[:, 2] > walls.flatten()[at] + skin)
