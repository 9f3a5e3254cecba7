"""The plain torch twin of the splat kernels: every splat meets every pixel.

Slow, short, differentiable by autograd, right in float32 and float64 on any device: the oracle of the tests, and
the fallback where nothing was compiled. The conventions are gsplat 1.5.3's. Shapes: B cameras, N splats, V of them
visible, P pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from renderers.gaussians import Gaussians, Lenses, Sighting, record_gradient

BLUR = 0.3
"""Added to both variances in the picture, pixels^2."""
NEAR, FAR = 0.01, 1e10
"""Distances along the camera's axis between which splats are drawn."""
FAINTEST = 1.0 / 255.0
"""An alpha below this is not drawn."""
OPAQUE = 0.999
"""An alpha is never above this."""
FINISHED = 1e-4
"""A splat after which a pixel would let no more than this through is not drawn there, nor is any behind it."""
WIDEST = 3.33
"""Standard deviations that are drawn at most."""
_PAIRS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Projected:
    """Splats as ellipses in B pictures."""

    means2d: Float[Tensor, "B N 2"]
    """Centres in pixels; the first pixel's centre is (0.5, 0.5)."""
    conics: Float[Tensor, "B N 3"]
    """xx, xy and yy entries of the inverse covariance, per pixel^2."""
    depths: Float[Tensor, "B N"]
    radii: Int32[Tensor, "B N"]

    @property
    def visible(self) -> Bool[Tensor, "B N"]:
        return self.radii > 0


def draw(gaussians: Gaussians, lenses: Lenses) -> tuple[Float[Tensor, "B H W 4"], Float[Tensor, "B H W 1"], Sighting]:
    """Colour and depth times alpha, and alpha, over nothing."""
    projected = project(gaussians, lenses)
    gradient = record_gradient(projected.means2d)
    pictures = [_blend(gaussians, projected, view, lenses) for view in range(len(projected.radii))]
    layers = torch.stack(pictures).unflatten(1, (lenses.height, lenses.width))
    return layers[..., :4], layers[..., 4:], Sighting(projected.radii, gradient)


def rotations(quats: Float[Tensor, "N 4"]) -> Float[Tensor, "N 3 3"]:
    """Rotation matrices of quaternions w, x, y, z of any length."""
    w, x, y, z = functional.normalize(quats, dim=-1).unbind(-1)
    entries = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(entries, -1).view(-1, 3, 3)


def project(gaussians: Gaussians, lenses: Lenses) -> Projected:
    """Where splats land and how wide (Zwicker et al. 2001, equation 31, with the clamps of gsplat)."""
    k, height, width = lenses.intrinsics, lenses.height, lenses.width
    turn = lenses.viewmats[:, None, :3, :3]
    x, y, z = (torch.einsum("bij,nj->bni", turn[:, 0], gaussians.means) + lenses.viewmats[:, None, :3, 3]).unbind(-1)
    within = (z >= NEAR) & (z <= FAR)
    z = torch.where(within, z, 1.0)
    fx, fy, cx, cy = k[:, 0, 0, None], k[:, 1, 1, None], k[:, 0, 2, None], k[:, 1, 2, None]
    tx = z * _clamped(x / z, -(cx + 0.15 * width) / fx, (1.15 * width - cx) / fx)
    ty = z * _clamped(y / z, -(cy + 0.15 * height) / fy, (1.15 * height - cy) / fy)
    nil = torch.zeros_like(z)
    jacobian = torch.stack([fx / z, nil, -fx * tx / z**2, nil, fy / z, -fy * ty / z**2], -1).unflatten(-1, (2, 3))
    shape = jacobian @ turn @ (rotations(gaussians.quats) * gaussians.scales[:, None])
    covariance = shape @ shape.mT
    a, b, c = covariance[..., 0, 0] + BLUR, covariance[..., 0, 1], covariance[..., 1, 1] + BLUR
    determinant = a * c - b * b
    within = within & (determinant > 0) & (gaussians.opacities >= FAINTEST)
    determinant = torch.where(determinant > 0, determinant, 1.0)
    means2d = torch.stack([fx * x / z + cx, fy * y / z + cy], -1)
    conics = torch.stack([c, -b, a], -1) / determinant[..., None]
    with torch.no_grad():
        extent = (2 * (gaussians.opacities / FAINTEST).clamp_min(1).log()).sqrt().clamp_max(WIDEST)
        boxes = (extent[:, None] * torch.stack([a, c], -1).sqrt()).ceil()
        size = torch.tensor([width, height], dtype=boxes.dtype, device=boxes.device)
        inside = ((means2d + boxes > 0) & (means2d - boxes < size)).all(-1) & (boxes > 0).any(-1)
        radii = torch.where(within & inside, boxes.amax(-1).clamp_max(1e9), 0).to(torch.int32)
    return Projected(means2d, conics, z, radii)


def _clamped(value: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(value, low), high)


def _blend(gaussians: Gaussians, projected: Projected, view: int, lenses: Lenses) -> Float[Tensor, "P 5"]:
    """Red, green, blue and depth times alpha, and alpha, of every pixel of one picture."""
    rows = projected.visible[view].nonzero()[:, 0]
    rows = rows[projected.depths[view, rows].argsort(stable=True)]
    colours = gaussians.colours if gaussians.colours.ndim == 2 else gaussians.colours[view]
    depths = projected.depths[view, rows, None]
    features = torch.cat([colours[rows], depths, torch.ones_like(depths)], -1)
    means2d, conics, opacities = projected.means2d[view, rows], projected.conics[view, rows], gaussians.opacities[rows]
    across = torch.arange(lenses.width, dtype=features.dtype, device=features.device) + 0.5
    down = torch.arange(lenses.height, dtype=features.dtype, device=features.device) + 0.5
    pixels = torch.cartesian_prod(down, across).flip(-1)
    chunks = pixels.split(max(1, _PAIRS_AT_ONCE // max(1, len(rows))))
    # Weights are worked out again on the way back: to keep those of all pixels would take gigabytes.
    drawn = [checkpoint(_shown, means2d, conics, opacities, chunk, features, use_reentrant=False) for chunk in chunks]
    return torch.cat(drawn)


def _shown(means2d: Tensor, conics: Tensor, opacities: Tensor, pixels: Tensor, features: Tensor) -> Tensor:
    return _weights(means2d, conics, opacities, pixels) @ features


def _weights(
    means2d: Float[Tensor, "V 2"],
    conics: Float[Tensor, "V 3"],
    opacities: Float[Tensor, " V"],
    pixels: Float[Tensor, "P 2"],
) -> Float[Tensor, "P V"]:
    """What splats, nearest first, add to pixels: alpha times what those before let through.

    Kerbl et al. 2023, equation 3.
    """
    dx, dy = (means2d - pixels[:, None]).unbind(-1)
    xx, xy, yy = conics.unbind(-1)
    s = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
    alpha = (opacities * torch.exp(-s)).clamp_max(OPAQUE)
    alpha = torch.where((s >= 0) & (alpha >= FAINTEST), alpha, 0.0)
    through = (1 - alpha).cumprod(-1)
    before = torch.cat([torch.ones_like(through[:, :1]), through[:, :-1]], -1)
    return torch.where(through > FINISHED, alpha * before, 0.0)
