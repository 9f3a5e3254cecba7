"""How far what a scene says of its normals is from the surface that its depths draw.

Shapes: B cameras, H x W pixels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from renderers.cameras import Cameras
from renderers.region_masks import MIN_ALPHA
from renderers.scene import RenderOutput


def normal_consistency(frame: RenderOutput, cameras: Cameras) -> Float[Tensor, "B H W 1"]:
    """Of every pixel, the sum over splats of weight * (1 - cosine of their normal and that of the depths around).

    Huang et al. 2024, equation 14. Pixels have it whose four neighbours are solid, so not those of the border; others
    have 0. `frame` needs normals; differentiable in its normals, alphas and depths.
    """
    if frame.normal is None:
        raise ValueError("the frame has no normals; wish for them where it is drawn")
    surface = functional.pad(depth_normals(frame.depth, cameras), (0, 0, 1, 1, 1, 1))
    solid = functional.pad((frame.alpha > MIN_ALPHA).to(frame.alpha)[..., 0], (1, 1, 1, 1))
    among = solid[:, 1:-1, 2:] * solid[:, 1:-1, :-2] * solid[:, 2:, 1:-1] * solid[:, :-2, 1:-1]
    return among[..., None] * (frame.alpha - (frame.normal * surface).sum(-1, keepdim=True))


def depth_normals(depth: Float[Tensor, "B H W 1"], cameras: Cameras) -> Float[Tensor, "B H-2 W-2 3"]:
    """Unit normals, turned to the cameras, of the surface through all points at these depths; not of the border."""
    points = cameras.to(depth.device).unproject(depth)
    across = points[:, 1:-1, 2:] - points[:, 1:-1, :-2]
    down = points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
    return functional.normalize(torch.linalg.cross(down, across), dim=-1)
