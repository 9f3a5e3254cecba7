"""The one place that knows gsplat, which draws splats that lie on a CUDA device."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from renderers.gaussians import Gaussians, Lenses, Sighting, record_gradient


def draw(gaussians: Gaussians, lenses: Lenses) -> tuple[Float[Tensor, "B H W 4"], Float[Tensor, "B H W 1"], Sighting]:
    """Colour and depth times alpha, and alpha, over nothing.

    Raises ModuleNotFoundError with the name to install where gsplat is missing.
    """
    try:
        from gsplat import rasterization
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("splats on a CUDA device need gsplat: pip install gsplat") from error
    colour, alpha, info = rasterization(**arguments(gaussians, lenses))
    gradient = record_gradient(info["means2d"])
    radii = info["radii"]
    return colour, alpha, Sighting(radii.amax(-1) if radii.ndim == 3 else radii, gradient)


def arguments(gaussians: Gaussians, lenses: Lenses) -> dict[str, Any]:
    """How `gsplat.rasterization` is called: dense outputs, and depth as a fourth channel, times alpha."""
    return {
        "means": gaussians.means,
        "quats": gaussians.quats,
        "scales": gaussians.scales,
        "opacities": gaussians.opacities,
        "colors": gaussians.colours,
        "viewmats": lenses.viewmats,
        "Ks": lenses.intrinsics,
        "width": lenses.width,
        "height": lenses.height,
        "near_plane": 0.01,
        "far_plane": 1e10,
        "eps2d": 0.3,
        "packed": False,
        "render_mode": "RGB+D",
    }
