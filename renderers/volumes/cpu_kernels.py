"""The C++ volume kernels (renderers/csrc/volume.h) as differentiable functions of CPU float32 tensors.

Memory is allocated here and owned by torch; the kernels keep nothing. Results do not depend on the number of threads:
rays share nothing, and gradients are summed in the order of the samples.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor
from torch.nn import functional

from renderers import kernels as renderers_kernels
from renderers.volumes.occupancy import OccupancyGrid
from renderers.volumes.rays import FieldOutput, MarchOptions, Rays

_LAYERS = 10
_PATCH = 8
_GRAD_WORDS = 12
_MAX_SAMPLES = 2.5
"""No ray is in the ball for longer."""
_MAX_LANES = 8
_RAYS_WORTH_THREADS = 2_000
"""Below about this many rays one thread is done before others have woken up."""


def _pointers(*names: str) -> list[tuple[str, Any]]:
    return [(name, ctypes.c_void_p) for name in names]


class _Volume(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("views", "height", "width", "threads")),
        *((name, ctypes.c_int32) for name in ("resolution", "cells", "normals", "spread")),
        *((name, ctypes.c_float) for name in ("step", "scale", "ambient", "radius")),
        *_pointers("origins", "directions", "jitter", "empty", "shades", "lights"),
    ]


class _Layers(ctypes.Structure):
    _fields_ = _pointers("layers", "taken", "first", "d_layers")


class _Marks(ctypes.Structure):
    _fields_ = [("words", ctypes.c_int32), *_pointers("first", "bits")]


def draw(
    values: Float[Tensor, "R R R 4"], scale: float, occupancy: OccupancyGrid, rays: Rays, march: MarchOptions
) -> tuple[Float[Tensor, "B H W 10"], Int32[Tensor, "B H W"]]:
    """The layers of a grid of voxels in the order of `VolumeOutput`, and the samples of each ray.

    Takes float32 tensors on the CPU. Raises OSError where the kernels are missing.
    """
    layers, taken = _Draw.apply(values.contiguous(), scale, occupancy, rays, march)  # type: ignore[no-untyped-call]
    return layers, taken


def library() -> ctypes.CDLL:
    """The kernels. Raises OSError where they are missing."""
    found = renderers_kernels.library()
    if found is None:
        raise OSError(renderers_kernels.why_missing())
    return found


def threads_for(rays: Rays) -> int:
    count = rays.directions.shape[0] * rays.height * rays.width
    return torch.get_num_threads() if count >= _RAYS_WORTH_THREADS else 1


def volume(resolution: int, scale: float, occupancy: OccupancyGrid, rays: Rays, march: MarchOptions) -> _Volume:
    """What the kernels are told of a drawing; its tensors have to outlive it. Raises ValueError for wrong tensors."""
    kinds = {"shades": torch.int32}
    tensors = {field.name: getattr(rays, field.name) for field in fields(rays)} | {"empty": occupancy.empty}
    for name, tensor in tensors.items():
        wanted = torch.uint8 if name == "empty" else kinds.get(name, torch.float32)
        if tensor.dtype != wanted or tensor.device.type != "cpu" or not tensor.is_contiguous():
            found = f"{name} is {tensor.dtype} on {tensor.device}"
            raise ValueError(f"{found}; the kernels take contiguous {wanted} on the CPU")
    views, height, width = rays.directions.shape[:3]
    sizes = resolution, occupancy.cells, int(march.normals), int(march.spread)
    return _Volume(
        views, height, width, threads_for(rays), *sizes, march.step, scale, march.ambient, occupancy.radius,
        *(tensors[name].data_ptr() for name in ("origins", "directions", "jitter", "empty", "shades", "lights")),
    )  # fmt: skip


class _Draw(torch.autograd.Function):
    """values -> layers and samples taken."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        values, scale, occupancy, rays, march = arguments
        shape = rays.directions.shape[:3]
        layers, (taken, first) = torch.empty(*shape, _LAYERS), torch.empty(2, *shape, dtype=torch.int32)
        told = volume(values.shape[0], scale, occupancy, rays, march)
        seen = _Layers(layers.data_ptr(), taken.data_ptr(), first.data_ptr())
        library().sds3d_voxels_draw(ctypes.byref(told), ctypes.c_void_p(values.data_ptr()), ctypes.byref(seen))
        ctx.save_for_backward(values, layers, taken, first)
        ctx.asked = scale, occupancy, rays, march
        ctx.mark_non_differentiable(taken)
        return layers, taken

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        values, layers, taken, first = ctx.saved_tensors
        told = volume(values.shape[0], *ctx.asked)
        d_layers, d_values = gradients[0].contiguous(), torch.zeros_like(values)
        alone = told.threads == 1
        patches = told.views * -(-told.height // _PATCH) * -(-told.width // _PATCH)
        pulls = torch.empty(0 if alone else int(taken.sum()), _GRAD_WORDS)
        starts = torch.empty(patches + 1, dtype=torch.int64)
        seen = _Layers(*(tensor.data_ptr() for tensor in (layers, taken, first, d_layers)))
        pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (pulls, starts, d_values))
        library().sds3d_voxels_draw_back(
            ctypes.byref(told), ctypes.c_void_p(values.data_ptr()), ctypes.byref(seen), *pointers
        )
        return d_values, None, None, None, None


@dataclass(frozen=True)
class RaySamples:
    """Where the samples of all rays are, ray after ray."""

    points: Float[Tensor, "P 3"]
    distances: Float[Tensor, " P"]
    starts: Int64[Tensor, " R"]
    """Where the samples of each ray begin; the last one is P."""
    num_samples: Int32[Tensor, "B H W"]


def march_rays(occupancy: OccupancyGrid, rays: Rays, march: MarchOptions) -> RaySamples:
    """The samples of all rays in cells where something is."""
    told = volume(2, 1.0, occupancy, rays, march)
    taken, first = torch.empty(2, *rays.jitter.shape, dtype=torch.int32)
    words = (math.ceil(_MAX_SAMPLES / march.step) + _MAX_LANES + 2) // 64 + 1
    bits = torch.zeros(*taken.shape, words, dtype=torch.int64)
    marks = _Marks(words, first.data_ptr(), bits.data_ptr())
    kernels = library()
    kernels.sds3d_volume_mark(ctypes.byref(told), ctypes.byref(marks), ctypes.c_void_p(taken.data_ptr()))
    starts = functional.pad(taken.flatten().cumsum(0), (1, 0))
    count = int(starts[-1])
    found = RaySamples(torch.empty(count, 3), torch.empty(count), starts, taken)
    pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (found.starts, found.points, found.distances))
    kernels.sds3d_volume_walk(ctypes.byref(told), ctypes.byref(marks), *pointers)
    return found


def composite(
    found: FieldOutput, along: RaySamples, occupancy: OccupancyGrid, rays: Rays, march: MarchOptions
) -> Float[Tensor, "B H W 10"]:
    """The layers, in the order of `VolumeOutput`, of what a field said of the samples of a walk.

    Raises ValueError where the march is one with normals and the samples have none.
    """
    if march.normals and found.normal is None:
        raise ValueError("a march with normals needs samples that have them")
    normal = found.albedo.new_empty(0, 3) if found.normal is None else found.normal
    inputs = (found.density.contiguous(), found.albedo.contiguous(), normal.contiguous())
    layers: Tensor = _Composite.apply(*inputs, along, occupancy, rays, march)  # type: ignore[no-untyped-call]
    return layers


class _Composite(torch.autograd.Function):
    """density, albedo, normal -> layers."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        *inputs, along, occupancy, rays, march = arguments
        told = volume(2, 1.0, occupancy, rays, march)
        layers = torch.empty(*rays.jitter.shape, _LAYERS)
        tensors = (along.starts, *inputs, along.distances, layers)
        pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors)
        library().sds3d_volume_composite(ctypes.byref(told), *pointers)
        ctx.save_for_backward(*inputs, layers)
        ctx.asked = along, occupancy, rays, march
        return layers

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        *inputs, layers = ctx.saved_tensors
        along, *asked = ctx.asked
        told = volume(2, 1.0, *asked)
        d_inputs = [torch.zeros_like(tensor) for tensor in inputs]
        tensors = (along.starts, *inputs, along.distances, layers, gradients[0].contiguous(), *d_inputs)
        pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors)
        library().sds3d_volume_composite_back(ctypes.byref(told), *pointers)
        return *d_inputs, None, None, None, None
