"""A field and rays to layers: nerfacc on CUDA, the C++ kernels on a CPU, or their plain torch twin.

The one place that knows nerfacc. Touching its compiled part where there is no GPU starts a build of minutes, so it is
imported only for fields on a CUDA device.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor

from renderers import gpu_kernels, kernels
from renderers.volumes import cpu_kernels, reference
from renderers.volumes.occupancy import OccupancyGrid
from renderers.volumes.rays import MIN_TRANSMITTANCE, FieldOutput, MarchOptions, Rays, VolumeOutput, validate_inputs
from renderers.volumes.reference import ball, lit
from renderers.volumes.voxel_field import Field, VoxelField

_MADE = threading.local()
"""Runs of a batch draw in threads of their own."""


def render_rays(field: Field, occupancy: OccupancyGrid, rays: Rays, march: MarchOptions) -> VolumeOutput:
    """What the rays see of a field, differentiable in its parameters.

    CUDA tensors go to nerfacc, unless `gpu_kernels` says otherwise; float32 on a CPU to the compiled kernels, voxels to
    one that does all in one go; all else (float64, no kernels) to the twin, which is some thirty times slower.
    Raises ValueError where shapes, types or devices do not fit together.
    """
    like = next(field.parameters())
    validate_inputs(rays, like)
    if occupancy.empty.device != like.device:
        raise ValueError(f"the occupancy is on {occupancy.empty.device}, the field on {like.device}")
    if like.device.type == "cuda" and gpu_kernels.wanted():
        return VolumeOutput.of(*render_rays_nerfacc(field, occupancy, rays, march))
    if like.device.type != "cpu" or like.dtype != torch.float32 or kernels.library() is None:
        return VolumeOutput.of(*reference.draw(field, occupancy, rays, march))
    if isinstance(field, VoxelField):
        return VolumeOutput.of(*cpu_kernels.draw(field.values, field.scale, occupancy, rays, march))
    along = cpu_kernels.march_rays(occupancy, rays, march)
    found = field.query(along.points, march.normals)
    return VolumeOutput.of(cpu_kernels.composite(found, along, occupancy, rays, march), along.num_samples)


def render_rays_nerfacc(
    field: Field, occupancy: OccupancyGrid, rays: Rays, march: MarchOptions
) -> tuple[Float[Tensor, "B H W 10"], Int32[Tensor, "B H W"]]:
    """The layers in the order of `VolumeOutput`, and the samples of each ray.

    Raises ModuleNotFoundError with the name to install where nerfacc is missing.
    """
    try:
        import nerfacc
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("a NeRF on a CUDA device needs nerfacc: pip install nerfacc") from error
    views, height, width = rays.directions.shape[:3]
    count = views * height * width
    origins = rays.origins.repeat_interleave(height * width, 0)
    directions = rays.directions.reshape(-1, 3)
    jitter = rays.jitter.reshape(-1)
    estimator = _estimator(nerfacc, occupancy, origins.device)
    start, stop = ball(origins, directions, occupancy.radius)
    # Samples are in the middle of intervals: these begin half a step earlier, at the same places for every ray.
    start = ((start / march.step - jitter).ceil() + jitter - 0.5).clamp_min(0) * march.step

    def thickness(starts: Tensor, ends: Tensor, rows: Tensor) -> Tensor:
        middle = 0.5 * (starts + ends)[:, None]
        return field.query(origins[rows] + middle * directions[rows], False).density

    rows, starts, ends = estimator.sampling(
        origins, directions, sigma_fn=thickness, **sampling_arguments(march, start, stop)
    )
    distances = 0.5 * (starts + ends)
    found = field.query(origins[rows] + distances[:, None] * directions[rows], march.normals)
    packed = {"ray_indices": rows, "n_rays": count}
    weight, *_ = nerfacc.render_weight_from_density(starts, ends, found.density, **packed)
    layers = _accumulated(nerfacc, found, weight, distances, rows, rays, march)
    # Not `bincount`, which waits for the device to know how long its answer is.
    taken = torch.zeros(count, dtype=torch.int32, device=rows.device)
    taken.index_add_(0, rows, torch.ones_like(rows, dtype=torch.int32))
    return layers.view(views, height, width, 10), taken.view(views, height, width)


def _estimator(nerfacc: Any, occupancy: OccupancyGrid, device: torch.device) -> Any:
    """nerfacc's grid with these cells. It is made once for each thread, size and device: its tables are uploaded."""
    known: dict[tuple[int, torch.device], Any] = _MADE.__dict__.setdefault("estimators", {})
    key = occupancy.cells, device
    if key not in known:
        known[key] = nerfacc.OccGridEstimator(**grid_arguments(occupancy)).to(device)
    known[key].binaries = (occupancy.empty == 0)[None]
    return known[key]


def grid_arguments(occupancy: OccupancyGrid) -> dict[str, Any]:
    """How `nerfacc.OccGridEstimator` is made: one cube around the content."""
    return {"roi_aabb": [-1.0, -1.0, -1.0, 1.0, 1.0, 1.0], "resolution": occupancy.cells, "levels": 1}


def sampling_arguments(march: MarchOptions, start: Tensor, stop: Tensor) -> dict[str, Any]:
    """How its `sampling` is called besides the rays and the density."""
    return {
        "t_min": start,
        "t_max": stop,
        "render_step_size": march.step,
        "early_stop_eps": MIN_TRANSMITTANCE,
        "alpha_thre": 0.0,
        "stratified": False,
        "cone_angle": 0.0,
    }


def _accumulated(
    nerfacc: Any,
    found: FieldOutput,
    weight: Float[Tensor, " P"],
    distances: Float[Tensor, " P"],
    rows: Int64[Tensor, " P"],
    rays: Rays,
    march: MarchOptions,
) -> Float[Tensor, "R 10"]:
    """Sums along the rays, in the order of the layers; `rows` are the rays of the samples."""
    per_view = rays.height * rays.width
    count = len(rays.origins) * per_view
    directions = rays.directions.reshape(-1, 3)[rows]
    colour, normal = found.albedo, torch.zeros_like(found.albedo)
    away = torch.zeros_like(weight)
    if found.normal is not None:
        normal = found.normal
        away = (normal * directions).sum(-1).clamp_min(0).square()
        views = rows // per_view
        places = rays.origins[views] + distances[:, None] * directions
        colour = lit(colour, normal, rays.lights[views] - places, rays.shades[views], march.ambient)
    spread = torch.zeros_like(weight)
    if march.spread:
        nearer, nearer_far = summed_before(torch.stack([weight, weight * distances], -1), rows).unbind(-1)
        spread = 2 * (distances * nearer - nearer_far) + weight * (march.step / 3)
    scalars = torch.stack([torch.ones_like(weight), distances], -1)
    values = torch.cat([colour, scalars, normal, away[:, None], spread[:, None]], -1)
    summed: Tensor = nerfacc.accumulate_along_rays(weight, values, ray_indices=rows, n_rays=count)
    return summed


def summed_before(values: Float[Tensor, "P C"], rows: Int64[Tensor, " P"]) -> Float[Tensor, "P C"]:
    """For each sample, the sum over those before it on the same ray; `rows`, the rays of the samples, never fall."""
    total = values.double().cumsum(0) - values
    begins = torch.searchsorted(rows, rows)
    return (total - total[begins]).to(values)
