"""Splats in plain torch as fast as we could make it: a list of the (splat, pixel) pairs that matter, and running sums.

The yardstick of `splats.py`. The projection is that of the oracle; then, without gradients, every splat is
spread over the pixels of its box, faint pairs are dropped, the rest are sorted by pixel, and what lies behind an opaque
pixel is dropped too. Only the pairs that are left are drawn with gradients. Shapes: P pairs.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from renderers.splats import surfel_reference
from renderers.splats.gaussians import CameraMatrices, Gaussians
from renderers.splats.reference import MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE, Projected, project


def draw(gaussians: Gaussians, lenses: CameraMatrices) -> tuple[Float[Tensor, "H W 4"], Float[Tensor, "H W 1"]]:
    """Colour and depth times alpha, and alpha, over nothing, of the first camera."""
    projected = project(gaussians, lenses)
    splat, pixel = live_pairs(gaussians.opacities, projected, lenses)
    alpha = alphas(gaussians.opacities, projected, splat, pixel, lenses.width)
    before, _ = let_through(alpha, pixel)
    features = torch.cat([gaussians.colors, projected.depths[0, :, None], torch.ones_like(gaussians.means[:, :1])], -1)
    shown = (alpha * before)[:, None] * features.index_select(0, splat)
    layers = shown.new_zeros(lenses.height * lenses.width, 5).index_add(0, pixel, shown)
    layers = layers.view(lenses.height, lenses.width, 5)
    return layers[..., :4], layers[..., 4:]


@torch.no_grad()
def live_pairs(
    opacities: Float[Tensor, " N"], projected: Projected, lenses: CameraMatrices
) -> tuple[Int64[Tensor, " P"], Int64[Tensor, " P"]]:
    """Splats and pixels of the pairs that show, pixel by pixel, nearest first."""
    splats = projected.visible[0].nonzero()[:, 0]
    splats = splats[projected.depths[0, splats].argsort(stable=True)]
    xx, xy, yy = projected.conics[0, splats].unbind(-1)
    squared = 2 * (opacities[splats] / MIN_ALPHA).clamp_min(1).log() / (xx * yy - xy * xy)
    reach = torch.stack([squared * yy, squared * xx], -1).sqrt()
    owner, pixel = spread(projected.means2d[0, splats], reach, lenses)
    splat = splats[owner]
    alpha = alphas(opacities, projected, splat, pixel, lenses.width)
    kept = (alpha > 0).nonzero()[:, 0]
    return before_opaque(splat[kept], pixel[kept], alpha[kept])


def spread(centres: Float[Tensor, "N 2"], reach: Float[Tensor, "N 2"], lenses: CameraMatrices) -> tuple[Tensor, Tensor]:
    """Every pixel in the box around each centre: the number of the box, and the pixel."""
    last = torch.tensor([lenses.width - 1, lenses.height - 1])
    first = (centres - reach - 0.5).ceil().clamp_min(0).long()
    across, down = ((centres + reach - 0.5).floor().minimum(last).long() - first + 1).clamp_min(0).unbind(-1)
    areas = across * down
    owner = torch.arange(len(centres)).repeat_interleave(areas)
    place = torch.arange(len(owner)) - (areas.cumsum(0) - areas)[owner]
    row = place.div(across[owner], rounding_mode="floor")
    left, top = first.T.contiguous()
    return owner, (top[owner] + row) * lenses.width + left[owner] + place - row * across[owner]


def before_opaque(splat: Tensor, pixel: Tensor, alpha: Float[Tensor, " P"]) -> tuple[Tensor, Tensor]:
    """Of pairs of splats, nearest first, and pixels, pixel by pixel those that do not lie behind an opaque one."""
    pixel, order = pixel.to(torch.int32).sort(stable=True)
    splat, alpha, pixel = splat[order], alpha[order], pixel.long()
    _, after = let_through(alpha, pixel)
    kept = (after > MIN_TRANSMITTANCE).nonzero()[:, 0]
    return splat[kept], pixel[kept]


@torch.no_grad()
def live_surfels(gaussians: Gaussians, lenses: CameraMatrices) -> int:
    """How many pairs of a surfel and a pixel show."""
    placed = surfel_reference.project(gaussians, lenses)
    order = placed.visible[0].nonzero()[:, 0]
    order = order[placed.depths[0, order].argsort(stable=True)]
    given = [each[0, order] for each in (placed.places, placed.steps, placed.areas, placed.tilts)]
    centres, reach = surfel_reference.bounds(given[0], given[1], given[3], gaussians.opacities[order])
    found = []
    for rows in torch.arange(len(order)).split(1000):
        owner, pixel = spread(centres[rows], reach[rows], lenses)
        owner = owner + rows[0]
        row = pixel.div(lenses.width, rounding_mode="floor")
        places = torch.stack([pixel - row * lenses.width, row], -1) + 0.5
        s = surfel_reference.exponents(places, *(each[owner][:, None] for each in given))[:, 0]
        alpha = (gaussians.opacities[order[owner]] * torch.exp(-s)).clamp_max(MAX_ALPHA)
        kept = alpha >= MIN_ALPHA
        found.append((owner[kept], pixel[kept], alpha[kept]))
    return len(before_opaque(*(torch.cat(each) for each in zip(*found, strict=True)))[0])


def alphas(opacities: Tensor, projected: Projected, splat: Tensor, pixel: Tensor, width: int) -> Float[Tensor, " P"]:
    """Alpha of pairs; 0 where it is too faint to be drawn."""
    row = pixel.div(width, rounding_mode="floor")
    places = torch.stack([pixel - row * width, row], -1).to(opacities.dtype) + 0.5
    splats = torch.cat([projected.means2d[0], projected.conics[0], opacities[:, None]], -1).index_select(0, splat)
    dx, dy = (splats[:, :2] - places).unbind(-1)
    xx, xy, yy, opacity = splats[:, 2:].unbind(-1)
    s = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
    alpha = (opacity * torch.exp(-s)).clamp_max(MAX_ALPHA)
    return torch.where((s >= 0) & (alpha >= MIN_ALPHA), alpha, 0.0)


def let_through(alpha: Float[Tensor, " P"], pixel: Int64[Tensor, " P"]) -> tuple[Tensor, Tensor]:
    """What reaches each pair of its pixel's list, and what leaves it. Sums run through all lists, hence float64."""
    logs = torch.log1p(-alpha.double())
    after = logs.cumsum(0)
    before = after - logs
    first = torch.ones_like(pixel, dtype=torch.bool)
    first[1:] = pixel[1:] != pixel[:-1]
    starts = before[first.nonzero()[:, 0]]
    begun = starts[first.cumsum(0) - 1]
    return (before - begun).exp().to(alpha.dtype), (after - begun).exp().to(alpha.dtype)
