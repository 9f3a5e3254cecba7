"""Gaussians and cameras to a Frame: gsplat on CUDA, the C++ kernels on a CPU, or their plain torch twin."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from renderers import kernels
from renderers.cameras import Cameras
from renderers.scene import Frame
from renderers.splats import cpu_kernels, gsplat_backend, reference, surfel_reference
from renderers.splats.gaussians import Gaussians, Lenses, Wish, check

_PLAIN = Wish()


def rasterise(gaussians: Gaussians, cameras: Cameras, background: Float[Tensor, "B 3"], wish: Wish = _PLAIN) -> Frame:
    """What the cameras see of the splats over a solid background each, with a `Sighting` as statistics.

    Differentiable in the splats and the background. CUDA tensors go to gsplat; float32 on a CPU goes to the compiled
    kernels; all else (float64, other devices, no kernels) to the twin, whose cost is splats times pixels.
    Colours are taken as they are: keep them in 0..1 to get a picture in 0..1. The frame has normals if `wish` says so.
    Raises ValueError where shapes, types or devices do not fit together.
    """
    check(gaussians, cameras, background)
    lenses = Lenses.of(cameras, gaussians.means)
    device = gaussians.means.device.type
    if device == "cuda" and gaussians.means.dtype == torch.float32:
        colour, alpha, sighting = gsplat_backend.draw(gaussians, lenses, wish)
    elif device == "cpu" and gaussians.means.dtype == torch.float32 and kernels.library() is not None:
        colour, alpha, sighting = cpu_kernels.draw(gaussians, lenses, wish)
    else:
        twin = surfel_reference if wish.surfels else reference
        colour, alpha, sighting = twin.draw(gaussians, lenses, wish)
    rgb = colour[..., :3] + (1 - alpha) * background[:, None, None]
    depth = colour[..., 3:4] / alpha.clamp_min(1e-10)
    return Frame(rgb, alpha, depth, sighting, colour[..., 4:] if wish.normals else None)
