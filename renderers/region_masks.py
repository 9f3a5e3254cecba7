"""Which pixels show which part of a scene, where the parts are balls.

Shapes: K parts, B cameras, H and W pixels, h x w cells of a coarser grid.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from renderers.cameras import Cameras
from renderers.scene import RenderOutput

MIN_ALPHA = 0.5
"""Alpha above which a pixel shows the scene and not the background."""
_MARGIN = 5
"""Cells along a side of the square by which a part's mask grows into the background."""


@torch.no_grad()
def region_masks(
    frame: RenderOutput,
    cameras: Cameras,
    centres: Float[Tensor, "K 3"],
    radii: Float[Tensor, " K"],
    grid: tuple[int, int],
) -> Float[Tensor, "K B h w"]:
    """1 where a cell shows a part, else 0; each solid pixel is of the part whose ball is nearest for its size.

    Cells take the part that most of their solid pixels show. Then every mask grows by two cells into the background, so
    that a part may grow there; grown masks may overlap, masks of solid cells do not (SemanticSDS, its masks).
    """
    apart = (cameras.unproject(frame.depth)[None] - centres[:, None, None, None]).norm(dim=-1) / radii[
        :, None, None, None
    ]
    shown = functional.one_hot(apart.argmin(0), len(centres)) * (frame.alpha > MIN_ALPHA)
    share = functional.adaptive_avg_pool2d(shown.permute(3, 0, 1, 2).to(frame.alpha), grid)
    most = functional.one_hot(share.argmax(0), len(centres)).permute(3, 0, 1, 2).to(share)
    mask = most * (share.amax(0) > 0)
    grown = functional.max_pool2d(mask, _MARGIN, stride=1, padding=_MARGIN // 2)
    return torch.where(mask.amax(0) > 0, mask, grown)
