"""The one place that knows gsplat, which draws splats that lie on a CUDA device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from renderers.splats.gaussians import (
    CameraMatrices,
    Gaussians,
    RasterizationInfo,
    RasterizationOptions,
    accumulate_grad,
    normals,
)

_PLAIN = RasterizationOptions()


def draw(
    gaussians: Gaussians, lenses: CameraMatrices, options: RasterizationOptions = _PLAIN
) -> tuple[Float[Tensor, "B H W C"], Float[Tensor, "B H W 1"], RasterizationInfo]:
    """Colour, depth and, if wished, normal, all times alpha, and alpha, over nothing. C is 4 or 7.

    Raises ModuleNotFoundError with the name to install where gsplat is missing.
    """
    if options.surfels:
        return _draw_surfels(gaussians, lenses, options)
    layers, alpha, info = _function("rasterization")(**arguments(gaussians, lenses, options))
    # gsplat draws depth last; here it follows the colour.
    colour = torch.cat([layers[..., :3], layers[..., -1:], layers[..., 3:-1]], -1)
    gradient = accumulate_grad(info["means2d"])
    absolute = _record_absgrad(info["means2d"]) if options.absgrad else None
    radii = info["radii"]
    return colour, alpha, RasterizationInfo(radii.amax(-1) if radii.ndim == 3 else radii, gradient, absolute)


def _draw_surfels(
    gaussians: Gaussians, lenses: CameraMatrices, options: RasterizationOptions
) -> tuple[Float[Tensor, "B H W C"], Float[Tensor, "B H W 1"], RasterizationInfo]:
    """As `draw`. Of the gradients of places, gsplat notes what comes from the discs, and not what from their blurs."""
    found = _function("rasterization_2dgs")(**surfel_arguments(gaussians, lenses, options))
    colour, alpha, normal, _, distortion, _, info = found
    if options.return_normals:
        colour = torch.cat([colour, normal], -1)
    sighting = RasterizationInfo(info["radii"].amax(-1), accumulate_grad(info["gradient_2dgs"]))
    return colour, alpha, replace(sighting, distortion=distortion) if options.distortion else sighting


def _function(name: str) -> Callable[..., Any]:
    """One of gsplat's functions; importing it here keeps it from a machine without CUDA."""
    try:
        import gsplat
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("splats on a CUDA device need gsplat: pip install gsplat") from error
    function: Callable[..., Any] = getattr(gsplat, name)
    return function


def _record_absgrad(means2d: Tensor) -> Tensor:
    """Zeros, to which each `backward` adds what gsplat leaves in `means2d.absgrad` by then."""
    total = torch.zeros_like(means2d, requires_grad=False)

    def add(_: Tensor) -> None:
        # A hook that returns anything replaces the gradient by it.
        total.add_(means2d.absgrad)  # type: ignore[attr-defined]

    if means2d.requires_grad:
        means2d.register_hook(add)
    return total


def arguments(gaussians: Gaussians, lenses: CameraMatrices, options: RasterizationOptions = _PLAIN) -> dict[str, Any]:
    """How `gsplat.rasterization` is called: dense outputs, normals as colours, depth last, times alpha."""
    colours = gaussians.colors
    if options.return_normals:
        axes = normals(gaussians, lenses)
        colours = torch.cat([colours.expand_as(axes), axes], -1)
    return _common(gaussians, lenses) | {
        "colors": colours,
        "rasterize_mode": "antialiased" if options.antialiased else "classic",
        "absgrad": options.absgrad,
    }


def surfel_arguments(gaussians: Gaussians, lenses: CameraMatrices, options: RasterizationOptions) -> dict[str, Any]:
    """How `gsplat.rasterization_2dgs` is called: it puts depths beside colours, so that these are per camera."""
    return _common(gaussians, lenses) | {
        "colors": gaussians.colors.expand(len(lenses.viewmats), -1, -1),
        "distloss": options.distortion,
    }


def _common(gaussians: Gaussians, lenses: CameraMatrices) -> dict[str, Any]:
    return {
        "means": gaussians.means,
        "quats": gaussians.quats,
        "scales": gaussians.scales,
        "opacities": gaussians.opacities,
        "viewmats": lenses.viewmats,
        "Ks": lenses.Ks,
        "width": lenses.width,
        "height": lenses.height,
        "near_plane": 0.01,
        "far_plane": 1e10,
        "eps2d": 0.3,
        "packed": False,
        "render_mode": "RGB+D",
    }
