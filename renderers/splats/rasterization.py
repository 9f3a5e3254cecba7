"""Gaussians and cameras to a Frame: gsplat on CUDA, the C++ kernels on a CPU, or their plain torch twin."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from renderers import gpu_kernels, kernels
from renderers.cameras import Cameras
from renderers.scene import RenderOutput
from renderers.splats import cpu_kernels, gsplat_backend, reference, surfel_reference
from renderers.splats.gaussians import CameraMatrices, Gaussians, RasterizationOptions, validate_inputs

_PLAIN = RasterizationOptions()


def rasterize(
    gaussians: Gaussians, cameras: Cameras, background: Float[Tensor, "B 3"], options: RasterizationOptions = _PLAIN
) -> RenderOutput:
    """What the cameras see of the splats over a solid background each, with a `RasterizationInfo` as statistics.

    Differentiable in the splats and the background. CUDA tensors go to gsplat, unless `gpu_kernels` says otherwise;
    float32 on a CPU goes to the compiled kernels; all else (float64, other devices, no kernels) to the twin, whose cost
    is splats times pixels.
    Colours are not clamped: keep them in 0..1 to get an image in 0..1. `options` decides whether there are normals.
    Raises ValueError where shapes, types or devices do not fit together.
    """
    validate_inputs(gaussians, cameras, background)
    lenses = CameraMatrices.from_cameras(cameras, gaussians.means)
    device = gaussians.means.device.type
    if device == "cuda" and gaussians.means.dtype == torch.float32 and gpu_kernels.wanted():
        colour, alpha, sighting = gsplat_backend.draw(gaussians, lenses, options)
    elif device == "cpu" and gaussians.means.dtype == torch.float32 and kernels.library() is not None:
        colour, alpha, sighting = cpu_kernels.draw(gaussians, lenses, options)
    else:
        twin = surfel_reference if options.surfels else reference
        colour, alpha, sighting = twin.draw(gaussians, lenses, options)
    rgb = colour[..., :3] + (1 - alpha) * background[:, None, None]
    depth = colour[..., 3:4] / alpha.clamp_min(1e-10)
    return RenderOutput(rgb, alpha, depth, sighting, colour[..., 4:] if options.return_normals else None)
