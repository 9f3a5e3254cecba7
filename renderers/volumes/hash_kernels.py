"""The C++ kernels of hashed fields (renderers/csrc/hashed.h) as one differentiable function.

Contiguous float32 tensors on the CPU; results do not depend on the number of threads. Shapes: P points, L levels,
T entries of a table, F = 2L features, H neurons.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from renderers.volumes.cpu_kernels import library
from renderers.volumes.voxel_field import Blob

_POINTS_WORTH_THREADS = 4_000
"""Below about this many points one thread is done before others have woken up."""


class _Hashed(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("levels", "neurons", "threads")),
        *((name, ctypes.c_float) for name in ("scale", "edge", "height", "fall")),
        *((name, ctypes.c_int64) for name in ("points", "size")),
        *((name, ctypes.c_void_p) for name in ("resolutions", "shares", "places", "tables", "hidden", "out")),
    ]


def query_hash_field(
    points: Float[Tensor, "P 3"],
    blob: Blob,
    weights: tuple[Float[Tensor, "L T 2"], Float[Tensor, "H F"], Float[Tensor, "4 H"]],
    resolutions: list[int],
    shares: Float[Tensor, " L"],
    scale: float,
) -> tuple[Float[Tensor, " P"], Float[Tensor, "P 3"]]:
    """Density and colour at points of the cube, differentiable in tables, hidden and last layer.

    The blob is added to the raw density; the features of a level are multiplied by its share. T is a power of two, F at
    most 32 and H at most 256, both multiples of 4; ValueError otherwise.
    """
    plain = [_plain(tensor) for tensor in (points, *weights)]
    levels = torch.tensor(resolutions, dtype=torch.int32), _plain(shares.detach())
    density, albedo = _QueryHashField.apply(*plain, levels, (scale, blob.edge, blob.height, 0.5 / blob.width**2))  # type: ignore[no-untyped-call]
    return density, albedo


def _plain(tensor: Tensor) -> Tensor:
    if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
        raise ValueError(f"the kernels take float32 tensors on the CPU, not {tensor.dtype} on {tensor.device}")
    return tensor.contiguous()


def _pointers(*tensors: Tensor | None) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in tensors]


class _QueryHashField(torch.autograd.Function):
    """points, tables, hidden, out -> density, albedo."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        *inputs, levels, shape = arguments
        told = _describe(inputs, levels, shape)
        count, block = told.points, library().sds3d_hashed_block()
        density, albedo = torch.empty(count), torch.empty(count, 3)
        found = rise = None
        if any(ctx.needs_input_grad):
            found, rise = torch.empty(-(-count // block), 2 * told.levels, block), torch.empty(count)
        library().sds3d_hashed(ctypes.byref(told), *_pointers(found, rise, density, albedo))
        if found is not None:
            ctx.save_for_backward(*inputs, *levels, found, rise, albedo)
            ctx.shape = shape
        return density, albedo

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        *inputs, resolutions, shares, found, rise, albedo = ctx.saved_tensors
        told = _describe(inputs, (resolutions, shares), ctx.shape)
        pulls = [gradient.contiguous() for gradient in gradients]
        d_weights = [torch.zeros_like(weight) for weight in inputs[1:]]
        library().sds3d_hashed_back(ctypes.byref(told), *_pointers(found, rise, albedo, *pulls, *d_weights))
        return None, *d_weights, None, None


def _describe(inputs: list[Tensor], levels: tuple[Tensor, Tensor], shape: tuple[float, ...]) -> _Hashed:
    """`shape`: the scale of the density, and edge, height and fall of the blob."""
    points, tables, hidden, out = inputs
    count, neurons = 2 * len(tables), len(hidden)
    if count > 32 or count % 4 or neurons > 256 or neurons % 4:
        raise ValueError(f"{count} features and {neurons} neurons; the kernel takes up to 32 and 256, in fours")
    threads = torch.get_num_threads() if len(points) >= _POINTS_WORTH_THREADS else 1
    pointers = (tensor.data_ptr() for tensor in (*levels, points, tables, hidden, out))
    return _Hashed(len(tables), neurons, threads, *shape, len(points), tables.shape[1], *pointers)
