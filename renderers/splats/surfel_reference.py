"""The plain torch twin of the surfel kernels: every surfel meets every ray.

A surfel is a flat disc with a Gaussian on it (Huang et al. 2024). Slow, short, differentiable by autograd, right in
float32 and float64 on any device: the oracle of the tests, and the fallback where nothing was compiled. The
conventions are gsplat 1.5.3's, depth among them, which is that of the centre. Three things are not left to chance here:
a surfel shows in every pixel where it is not too faint, whatever the tiles; nothing behind the camera shows; and of a
disc seen from its edge the blur is left. Shapes: B cameras, N surfels, V of them visible, P pixels.
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
from renderers.splats.reference import FAR, MIN_ALPHA, NEAR, PAIRS_AT_ONCE, weights

MIN_RADIUS = 1e6
"""pixels^-2; a disc thinner than about a thousandth of a pixel shows only by its blur."""
NEVER = 1e10
"""An exponent at which nothing shows."""
MIN_CLEARANCE = 1e-4
"""A disc that comes closer to the plane of the camera, as a share of its depth, may show in the whole picture."""
WHOLE = 1e9
"""Pixels; a reach that no picture exceeds."""


@dataclass(frozen=True)
class ProjectedSurfels:
    """Surfels before B cameras. The point of a disc that is (u, v) standard deviations along its axes from its centre
    lands at `places` + `steps` (u, v) / (1 + `tilts` . (u, v)).
    """

    places: Float[Tensor, "B N 2"]
    """Where the centres land, pixels; the first pixel's centre is (0.5, 0.5)."""
    steps: Float[Tensor, "B N 2 2"]
    """Pixels per standard deviation at the centre, by picture axis and axis of the disc."""
    areas: Float[Tensor, "B N"]
    """Determinants of `steps`."""
    tilts: Float[Tensor, "B N 2"]
    """Growth of the depth per standard deviation, as a share of the centre's."""
    depths: Float[Tensor, "B N"]
    radii: Int32[Tensor, "B N"]

    @property
    def visible(self) -> Bool[Tensor, "B N"]:
        return self.radii > 0


def draw(
    gaussians: Gaussians, lenses: CameraMatrices, options: RasterizationOptions
) -> tuple[Float[Tensor, "B H W C"], Float[Tensor, "B H W 1"], RasterizationInfo]:
    """Colour, depth and, if wished, normal, all times alpha, and alpha, over nothing. C is 4 or 7."""
    placed = project(gaussians, lenses)
    gradient = accumulate_grad(placed.places)
    columns = [placed.depths[..., None], torch.ones_like(placed.depths[..., None])]
    columns[1:1] = [normals(gaussians, lenses, surfels=True)] if options.return_normals else []
    features = torch.cat([gaussians.colors.expand(len(placed.radii), -1, -1), *columns], -1)
    pictures = [_blend(placed, gaussians.opacities, each, view, lenses) for view, each in enumerate(features)]
    layers = torch.stack(pictures).unflatten(1, (lenses.height, lenses.width))
    distortion = layers[..., -1:] if options.distortion else None
    return layers[..., :-2], layers[..., -2:-1], RasterizationInfo(placed.radii, gradient, None, distortion)


def project(gaussians: Gaussians, lenses: CameraMatrices) -> ProjectedSurfels:
    """Where discs land and how they lie there; gradients are those of all but `radii`."""
    k = lenses.Ks
    turn, offset = lenses.viewmats[:, None, :3, :3], lenses.viewmats[:, None, :3, 3]
    centres = torch.einsum("bij,nj->bni", turn[:, 0], gaussians.means) + offset
    within = (centres[..., 2] > NEAR) & (centres[..., 2] < FAR)
    z = torch.where(within, centres[..., 2], 1.0)
    slopes = centres[..., :2] / z[..., None]
    focal, principal = torch.stack([k[:, 0, 0], k[:, 1, 1]], -1)[:, None], k[:, None, :2, 2]
    axes = turn @ rotations(gaussians.quats)
    discs = axes[..., :2] * gaussians.scales[:, None, :2] / z[..., None, None]
    tilts = discs[..., 2, :]
    steps = focal[..., None] * (discs[..., :2, :] - slopes[..., None] * tilts[..., None, :])
    # The determinant from the angle between disc and ray: that of `steps` is lost to rounding near the edge.
    ray = torch.cat([slopes, torch.ones_like(slopes[..., :1])], -1)
    facing = (axes[..., 2] * ray).sum(-1) * gaussians.scales[:, 0] * gaussians.scales[:, 1] / z**2
    areas = focal.prod(-1) * facing
    places = focal * slopes + principal
    with torch.no_grad():
        centre, reach = bounds(places, steps, tilts, gaussians.opacities)
        size = torch.tensor([lenses.width, lenses.height], dtype=reach.dtype, device=reach.device)
        inside = ((centre + reach > 0) & (centre - reach < size)).all(-1)
        sane = (tilts.square().sum(-1) < 1) & steps.isfinite().all(-1).all(-1) & reach.isfinite().all(-1)
        shown = within & sane & inside & (gaussians.opacities >= MIN_ALPHA)
        radii = torch.where(shown, reach.amax(-1).ceil().clamp_max(WHOLE), 0).to(torch.int32)
    return ProjectedSurfels(places, steps, areas, tilts, z, radii)


def bounds(
    places: Float[Tensor, "B N 2"], steps: Float[Tensor, "B N 2 2"], tilts: Float[Tensor, "B N 2"], opacities: Tensor
) -> tuple[Float[Tensor, "B N 2"], Float[Tensor, "B N 2"]]:
    """Centres and half sizes of boxes outside of which the alphas are below `FAINTEST`, in pixels.

    An ellipse is around what shows of the disc; it is widened so that it holds the blur as well.
    """
    squared = 2 * (opacities / MIN_ALPHA).clamp_min(1).log()
    clearance = 1 - squared * tilts.square().sum(-1)
    whole = clearance < MIN_CLEARANCE
    clear = torch.where(whole, 1.0, clearance)
    middle = torch.where(
        whole[..., None], 0.0, -squared[:, None] * (steps @ tilts[..., None])[..., 0] / clear[..., None]
    )
    spread = middle.square() + (squared / clear)[..., None] * steps.square().sum(-1)
    apart = (_middle(steps, tilts) - middle).norm(dim=-1)
    widened = (apart + (0.5 * squared).sqrt()).square()
    return places + middle, torch.where(whole[..., None], WHOLE, (spread + widened[..., None]).sqrt())


def _middle(steps: Float[Tensor, "*rows 2 2"], tilts: Float[Tensor, "*rows 2"]) -> Float[Tensor, "*rows 2"]:
    """From where centres land to the middles of the ellipses of one standard deviation, where the blurs are, pixels."""
    return -(steps @ tilts[..., None])[..., 0] / (1 - tilts.square().sum(-1, keepdim=True))


def _blend(
    placed: ProjectedSurfels,
    opacities: Float[Tensor, " N"],
    features: Float[Tensor, "N F"],
    view: int,
    lenses: CameraMatrices,
) -> Float[Tensor, "P G"]:
    """The features, times what surfels add to them, of every pixel of one picture, and after them the distortion."""
    rows = placed.visible[view].nonzero()[:, 0]
    rows = rows[placed.depths[view, rows].argsort(stable=True)]
    kind, device = features.dtype, features.device
    across = torch.arange(lenses.width, dtype=kind, device=device) + 0.5
    down = torch.arange(lenses.height, dtype=kind, device=device) + 0.5
    chunks = torch.cartesian_prod(down, across).flip(-1).split(max(1, PAIRS_AT_ONCE // max(1, len(rows))))
    shapes = [each[view, rows] for each in (placed.places, placed.steps, placed.areas, placed.tilts)]
    given = (opacities[rows], features[rows], placed.depths[view, rows], *shapes)

    def shown(pixels: Tensor, opacities: Tensor, features: Tensor, depths: Tensor, *shapes: Tensor) -> Tensor:
        weight = weights(exponents(pixels, *shapes), opacities)
        return torch.cat([weight @ features, _distortion(weight, depths)[:, None]], -1)

    # Weights are worked out again on the way back: to keep those of all pixels would take gigabytes.
    drawn = [checkpoint(shown, chunk, *given, use_reentrant=False) for chunk in chunks]
    return torch.cat(drawn)


def exponents(
    pixels: Float[Tensor, "P 2"],
    places: Float[Tensor, "V 2"],
    steps: Float[Tensor, "V 2 2"],
    areas: Float[Tensor, " V"],
    tilts: Float[Tensor, "V 2"],
) -> Float[Tensor, "P V"]:
    """Half the squared distance of what a ray meets from the centre of the disc, in standard deviations; or, where that
    is less, the exponent of the blur, a round Gaussian of variance 1/2 pixel^2.

    The ray of a pixel that lies d from where the centre lands meets the point with `steps` (u, v) = d (1 + `tilts` .
    (u, v)), two linear equations.
    """
    (a, b), (c, d) = (row.unbind(-1) for row in steps.unbind(-2))
    p, q = tilts.unbind(-1)
    dx, dy = (pixels[:, None] - places).unbind(-1)
    u, v = d * dx - b * dy, a * dy - c * dx
    below = areas - p * u - q * v
    thick = steps.square().sum((-2, -1)) <= MIN_RADIUS * areas.square()
    met = thick & (below * areas > 0)
    disc = torch.where(met, 0.5 * (u * u + v * v) / torch.where(met, below, 1.0).square(), NEVER)
    blur = (pixels[:, None] - places - _middle(steps, tilts)).square().sum(-1)
    return torch.minimum(disc, blur)


def _distortion(weight: Float[Tensor, "P V"], depths: Float[Tensor, " V"]) -> Float[Tensor, " P"]:
    """Over all pairs of surfels, nearest first, the sum of weight * weight * distance in depth."""
    moment = weight * depths
    nearer, sooner = weight.cumsum(-1) - weight, moment.cumsum(-1) - moment
    return 2 * (moment * nearer - weight * sooner).sum(-1)
