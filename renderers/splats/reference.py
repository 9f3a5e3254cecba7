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
from torch.utils.checkpoint import checkpoint

from renderers.splats.gaussians import (
    CameraMatrices,
    Gaussians,
    RasterizationInfo,
    RasterizationOptions,
    accumulate_grad,
    normals,
    rotations,
)

__all__ = ["draw", "project", "rotations", "weights"]

EPS2D = 0.3
"""Added to both variances in the picture, pixels^2."""
NEAR, FAR = 0.01, 1e10
"""Distances along the camera's axis between which splats are drawn."""
MIN_ALPHA = 1.0 / 255.0
"""An alpha below this is not drawn."""
MAX_ALPHA = 0.999
"""An alpha is never above this."""
MIN_TRANSMITTANCE = 1e-4
"""A splat after which a pixel would let no more than this through is not drawn there, nor is any behind it."""
MAX_RADIUS = 1e37
"""A splat whose covariance in the picture has a greater determinant, pixels^4, is not drawn."""
MAX_EXTENT = 3.33
"""Standard deviations that are drawn at most."""
PAIRS_AT_ONCE = 4_000_000
"""Splats times pixels that are looked at together."""
_PLAIN = RasterizationOptions()


@dataclass(frozen=True)
class Projected:
    """Splats as ellipses in B pictures."""

    means2d: Float[Tensor, "B N 2"]
    """Centres in pixels; the first pixel's centre is (0.5, 0.5)."""
    conics: Float[Tensor, "B N 3"]
    """xx, xy and yy entries of the inverse covariance, per pixel^2."""
    depths: Float[Tensor, "B N"]
    opacities: Float[Tensor, "B N"]
    radii: Int32[Tensor, "B N"]

    @property
    def visible(self) -> Bool[Tensor, "B N"]:
        return self.radii > 0


def draw(
    gaussians: Gaussians, lenses: CameraMatrices, options: RasterizationOptions = _PLAIN
) -> tuple[Float[Tensor, "B H W C"], Float[Tensor, "B H W 1"], RasterizationInfo]:
    """Colour, depth and, if wished, normal, all times alpha, and alpha, over nothing. C is 4 or 7."""
    projected = project(gaussians, lenses, options.antialiased)
    gradient = accumulate_grad(projected.means2d)
    absolute = torch.zeros_like(gradient) if options.absgrad else None
    columns = [projected.depths[..., None], torch.ones_like(projected.depths[..., None])]
    columns[1:1] = [normals(gaussians, lenses)] if options.return_normals else []
    features = torch.cat([gaussians.colors.expand(len(projected.radii), -1, -1), *columns], -1)
    pictures = []
    for view in range(len(projected.radii)):
        sizes = None if absolute is None else absolute[view]
        pictures.append(_blend(projected, features[view], view, lenses, sizes))
    layers = torch.stack(pictures).unflatten(1, (lenses.height, lenses.width))
    return layers[..., :-1], layers[..., -1:], RasterizationInfo(projected.radii, gradient, absolute)


def project(gaussians: Gaussians, lenses: CameraMatrices, antialiased: bool = False) -> Projected:
    """Where splats land and how wide (Zwicker et al. 2001, equation 31, with the clamps of gsplat).

    `antialiased`: opacities shrink by the root of the ratio of the determinants before and after the blur.
    """
    k, height, width = lenses.Ks, lenses.height, lenses.width
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
    a, b, c = covariance[..., 0, 0], covariance[..., 0, 1], covariance[..., 1, 1]
    sharp = a * c - b * b
    a, c = a + EPS2D, c + EPS2D
    determinant = a * c - b * b
    sane = (determinant > 0) & (determinant <= MAX_RADIUS)
    determinant = torch.where(sane, determinant, 1.0)
    opacities = gaussians.opacities.expand_as(z)
    if antialiased:
        flat = sharp <= 0
        opacities = opacities * torch.where(flat, 0.0, (torch.where(flat, 1.0, sharp) / determinant).sqrt())
    within = within & sane & (opacities >= MIN_ALPHA)
    means2d = torch.stack([fx * x / z + cx, fy * y / z + cy], -1)
    conics = torch.stack([c, -b, a], -1) / determinant[..., None]
    with torch.no_grad():
        extent = (2 * (opacities / MIN_ALPHA).clamp_min(1).log()).sqrt().clamp_max(MAX_EXTENT)
        boxes = (extent[..., None] * torch.stack([a, c], -1).sqrt()).ceil()
        size = torch.tensor([width, height], dtype=boxes.dtype, device=boxes.device)
        inside = ((means2d + boxes > 0) & (means2d - boxes < size)).all(-1) & (boxes > 0).any(-1)
        radii = torch.where(within & inside, boxes.amax(-1).clamp_max(1e9), 0).to(torch.int32)
    return Projected(means2d, conics, z, opacities, radii)


def _clamped(value: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(value, low), high)


def _blend(
    projected: Projected, features: Float[Tensor, "N F"], view: int, lenses: CameraMatrices, absolute: Tensor | None
) -> Float[Tensor, "P F"]:
    """The features, times what splats add to them, of every pixel of one picture.

    Gradients of the centres add their sizes to `absolute`.
    """
    rows = projected.visible[view].nonzero()[:, 0]
    rows = rows[projected.depths[view, rows].argsort(stable=True)]
    kind, device = features.dtype, features.device
    across = torch.arange(lenses.width, dtype=kind, device=device) + 0.5
    down = torch.arange(lenses.height, dtype=kind, device=device) + 0.5
    chunks = torch.cartesian_prod(down, across).flip(-1).split(max(1, PAIRS_AT_ONCE // max(1, len(rows))))
    means2d, conics = projected.means2d[view, rows], projected.conics[view, rows]
    opacities, features = projected.opacities[view, rows], features[rows]

    def note(gradient: Tensor | None) -> None:
        if absolute is not None and gradient is not None:
            absolute.index_add_(0, rows, gradient.abs().sum(0))

    def shown(*splats: Tensor) -> Tensor:
        means2d, conics, opacities, features, pixels = splats
        offsets = means2d - pixels[:, None]
        if absolute is not None and offsets.requires_grad:
            offsets.register_hook(note)
        return weights(_exponents(offsets, conics), opacities) @ features

    # Weights are worked out again on the way back: to keep those of all pixels would take gigabytes.
    drawn = [checkpoint(shown, means2d, conics, opacities, features, chunk, use_reentrant=False) for chunk in chunks]
    return torch.cat(drawn)


def _exponents(offsets: Float[Tensor, "P V 2"], conics: Float[Tensor, "V 3"]) -> Float[Tensor, "P V"]:
    """Half the squared distances of splats in pixels that lie `offsets` from them, in standard deviations."""
    dx, dy = offsets.unbind(-1)
    xx, xy, yy = conics.unbind(-1)
    return 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy


def weights(exponents: Float[Tensor, "P V"], opacities: Float[Tensor, " V"]) -> Float[Tensor, "P V"]:
    """What splats, nearest first, add to pixels: alpha = opacity * e^-exponent times what those before let through.

    Kerbl et al. 2023, equation 3.
    """
    alpha = (opacities * torch.exp(-exponents)).clamp_max(MAX_ALPHA)
    alpha = torch.where((exponents >= 0) & (alpha >= MIN_ALPHA), alpha, 0.0)
    through = (1 - alpha).cumprod(-1)
    before = torch.cat([torch.ones_like(through[:, :1]), through[:, :-1]], -1)
    return torch.where(through > MIN_TRANSMITTANCE, alpha * before, 0.0)
