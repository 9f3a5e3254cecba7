"""Volumes seen along rays in plain torch: what the kernels are checked against, and what draws where there are none.

Shapes: N rays, S samples of each, P samples in cells where something is.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor

from renderers.volumes.occupancy import OccupancyGrid
from renderers.volumes.rays import MAX_DISTANCE, MIN_TRANSMITTANCE, MarchOptions, Rays, ShadingMode
from renderers.volumes.voxel_field import Field

_SAMPLES_AT_ONCE = 2_000_000


def draw(
    field: Field, occupancy: OccupancyGrid, rays: Rays, march: MarchOptions
) -> tuple[Float[Tensor, "B H W 10"], Int32[Tensor, "B H W"]]:
    """The layers in the order of `VolumeOutput`, and the samples of each ray; in any floating type, on any device."""
    views, height, width = rays.directions.shape[:3]
    per_view = height * width
    flat = Rays(
        rays.origins.repeat_interleave(per_view, 0),
        rays.directions.reshape(-1, 1, 1, 3),
        rays.jitter.reshape(-1, 1, 1),
        rays.shades.repeat_interleave(per_view),
        rays.lights.repeat_interleave(per_view, 0),
    )
    size = max(1, int(_SAMPLES_AT_ONCE * march.step / 2))
    parts = [
        _some(field, occupancy, _rows(flat, slice(at, at + size)), march) for at in range(0, views * per_view, size)
    ]
    layers, taken = (torch.cat(part) for part in zip(*parts, strict=True))
    return layers.view(views, height, width, 10), taken.view(views, height, width)


def _rows(rays: Rays, rows: slice) -> Rays:
    return Rays(rays.origins[rows], rays.directions[rows], rays.jitter[rows], rays.shades[rows], rays.lights[rows])


def _some(
    field: Field, occupancy: OccupancyGrid, rays: Rays, march: MarchOptions
) -> tuple[Float[Tensor, "N 10"], Int32[Tensor, " N"]]:
    distances, inside = lattice(rays, march)
    places = rays.origins[:, None] + distances[..., None] * rays.directions[:, 0, 0, None]
    shape = inside.shape
    inside = inside & occupancy.contains(places.reshape(-1, 3)).view(shape)
    found = field.query(places[inside], march.normals)

    def spread_out(values: Tensor) -> Tensor:
        return values.new_zeros(*shape, *values.shape[1:]).index_put((inside,), values)

    normal = None if found.normal is None else spread_out(found.normal)
    layers = composite(spread_out(found.density), spread_out(found.albedo), normal, distances, rays, march)
    return layers, inside.sum(-1, dtype=torch.int32)


def lattice(rays: Rays, march: MarchOptions) -> tuple[Float[Tensor, "N S"], Bool[Tensor, "N S"]]:
    """Distances of the samples of rays (of pictures of one pixel), and whether they lie in the ball of radius 1."""
    origins, directions, jitter = rays.origins, rays.directions[:, 0, 0], rays.jitter[:, 0, 0]
    start, stop = ball(origins, directions, 1.0)
    first = (start / march.step - jitter).ceil()
    count = torch.where(stop > start, (stop / march.step - jitter).floor() + 1 - first, 0.0)
    most = int(count.max()) if len(count) else 0
    number = torch.arange(most, device=origins.device).to(origins)
    return (first[:, None] + number + jitter[:, None]) * march.step, number < count[:, None]


def ball(
    origins: Float[Tensor, "N 3"], directions: Float[Tensor, "N 3"], radius: float
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Where rays enter and leave a ball around the origin, not before they begin; twice 0 where they miss it."""
    middle = -(origins * directions).sum(-1)
    inside = middle.square() - origins.square().sum(-1) + radius**2
    half = inside.clamp_min(0).sqrt()
    start, stop = (middle - half).clamp_min(0), middle + half
    seen = (inside > 0) & (stop > start) & (start < MAX_DISTANCE)
    return torch.where(seen, start, 0.0), torch.where(seen, stop, 0.0)


def composite(
    density: Float[Tensor, "N S"],
    albedo: Float[Tensor, "N S 3"],
    normal: Float[Tensor, "N S 3"] | None,
    distances: Float[Tensor, "N S"],
    rays: Rays,
    march: MarchOptions,
) -> Float[Tensor, "N 10"]:
    """The layers of rays (of pictures of one pixel) from their samples, those of density 0 being nothing.

    Mildenhall et al. 2020, equation 3, without samples behind which less than EXHAUSTED would be let through.
    """
    passed = torch.cat([torch.zeros_like(density[:, :1]), (density * march.step).cumsum(-1)], -1)
    through = torch.exp(-passed)
    weight = torch.where(through[:, :-1] > MIN_TRANSMITTANCE, through[:, :-1] - through[:, 1:], 0.0)
    nothing = density.new_zeros(len(density))
    colour, facing_away, mean_normal = albedo, nothing, density.new_zeros(len(density), 3)
    if normal is not None:
        directions = rays.directions[:, 0]
        way = rays.lights[:, None] - rays.origins[:, None] - distances[..., None] * directions
        shades = rays.shades.repeat_interleave(density.shape[1])
        flat = lit(albedo.reshape(-1, 3), normal.reshape(-1, 3), way.reshape(-1, 3), shades, march.ambient)
        colour = flat.view_as(albedo)
        facing_away = (weight * (normal * directions).sum(-1).clamp_min(0).square()).sum(-1)
        mean_normal = (weight[..., None] * normal).sum(1)
    spread = distortion(weight, distances, march.step) if march.spread else nothing
    reach = (weight * distances).sum(-1)
    rgb = (weight[..., None] * colour).sum(1)
    scalars = torch.stack([weight.sum(-1), reach], -1)
    return torch.cat([rgb, scalars, mean_normal, facing_away[:, None], spread[:, None]], -1)


def lit(
    albedo: Float[Tensor, "P 3"],
    normal: Float[Tensor, "P 3"],
    way: Float[Tensor, "P 3"],
    shades: Int32[Tensor, " P"],
    ambient: float,
) -> Float[Tensor, "P 3"]:
    """Colours under lights that lie at `way` from the points (Poole et al. 2022, section 3.1)."""
    way = way / (way.square().sum(-1, keepdim=True) + 1e-12).sqrt()
    facing = (normal * way).sum(-1, keepdim=True).clamp_min(0)
    share = ambient + (1 - ambient) * facing
    kinds = shades[:, None]
    return torch.where(
        kinds == ShadingMode.ALBEDO, albedo, torch.where(kinds == ShadingMode.TEXTURELESS, share, albedo * share)
    )


def distortion(weight: Float[Tensor, "N S"], distances: Float[Tensor, "N S"], step: float) -> Float[Tensor, " N"]:
    """How far apart the weights of a ray lie (Barron et al. 2022, equation 15), summed in one pass from the front."""
    far = weight * distances
    before, before_far = weight.cumsum(-1) - weight, far.cumsum(-1) - far
    pairs = 2 * weight * (distances * before - before_far)
    return (pairs + weight.square() * (step / 3)).sum(-1)
