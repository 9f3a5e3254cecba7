"""The C++ kernels of hashed fields (renderers/native/hashgrid.cpp, network.cpp) as differentiable functions.

Contiguous float32 tensors on the CPU; results do not depend on the number of threads. Shapes: P points, L levels,
T entries of a table, F = 2L features, H neurons.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from renderers.volume_kernels import library

_POINTS_WORTH_THREADS = 4_000
"""Below about this many points one thread is done before others have woken up."""
_STRETCH = 4096


class _Network(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("features", "neurons", "threads")),
        ("scale", ctypes.c_float),
        ("points", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("inputs", "hidden", "out", "offset")),
    ]


def encode(
    points: Float[Tensor, "P 3"], tables: Float[Tensor, "L T 2"], resolutions: list[int]
) -> Float[Tensor, "F P"]:
    """Features of points of the cube, 2 of each level; differentiable in the tables. T is a power of two."""
    features: Tensor = _Encode.apply(_plain(points), _plain(tables), resolutions)  # type: ignore[no-untyped-call]
    return features


def decode(
    features: Float[Tensor, "F P"],
    hidden: Float[Tensor, "H F"],
    out: Float[Tensor, "4 H"],
    offset: Float[Tensor, " P"],
    scale: float,
) -> tuple[Float[Tensor, " P"], Float[Tensor, "P 3"]]:
    """Density and colour from features; `offset` is added to the raw density. Differentiable in all but the offset.

    F is at most 32 and H at most 256, both multiples of 4.
    """
    inputs = [_plain(tensor) for tensor in (features, hidden, out, offset.detach())]
    density, albedo = _Decode.apply(*inputs, scale)  # type: ignore[no-untyped-call]
    return density, albedo


def _plain(tensor: Tensor) -> Tensor:
    if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
        raise ValueError(f"the kernels take float32 tensors on the CPU, not {tensor.dtype} on {tensor.device}")
    return tensor.contiguous()


def _threads(points: int) -> int:
    return torch.get_num_threads() if points >= _POINTS_WORTH_THREADS else 1


def _pointers(*tensors: Tensor) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]


class _Encode(torch.autograd.Function):
    """points, tables -> features."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        points, tables, resolutions = arguments
        levels = torch.tensor(resolutions, dtype=torch.int32)
        features = torch.empty(2 * len(tables), len(points))
        _call(library().sds3d_hash_encode, points, tables, tables, levels, features)
        ctx.save_for_backward(points, tables, levels)
        return features

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        points, tables, levels = ctx.saved_tensors
        d_tables = torch.zeros_like(tables)
        _call(library().sds3d_hash_encode_back, points, gradients[0].contiguous(), tables, levels, d_tables)
        return None, d_tables, None


def _call(kernel: Any, points: Tensor, read: Tensor, tables: Tensor, levels: Tensor, written: Tensor) -> None:
    count, size = ctypes.c_int64(len(points)), ctypes.c_int64(tables.shape[1])
    places, reads, resolutions, writes = _pointers(points, read, levels, written)
    threads = ctypes.c_int32(_threads(len(points)))
    kernel(places, count, reads, ctypes.c_int32(len(tables)), size, resolutions, threads, writes)


class _Decode(torch.autograd.Function):
    """features, hidden, out, offset -> density, albedo."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        *inputs, scale = arguments
        count = inputs[0].shape[1]
        density, albedo = torch.empty(count), torch.empty(count, 3)
        library().sds3d_network(ctypes.byref(_network(inputs, scale)), *_pointers(density, albedo))
        ctx.save_for_backward(*inputs)
        ctx.scale = scale
        return density, albedo

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        inputs = list(ctx.saved_tensors)
        features, hidden, out, _ = inputs
        d_features, d_hidden, d_out = torch.empty_like(features), torch.zeros_like(hidden), torch.zeros_like(out)
        partial = torch.zeros(-(-features.shape[1] // _STRETCH), hidden.numel() + out.numel())
        d_density, d_albedo = (gradient.contiguous() for gradient in gradients)
        told = _network(inputs, ctx.scale)
        pointers = _pointers(d_density, d_albedo, partial, d_features, d_hidden, d_out)
        library().sds3d_network_back(ctypes.byref(told), *pointers)
        return d_features, d_hidden, d_out, None, None


def _network(inputs: list[Tensor], scale: float) -> _Network:
    features, hidden = inputs[0].shape, inputs[1].shape
    if features[0] > 32 or features[0] % 4 or hidden[0] > 256 or hidden[0] % 4:
        found = f"{features[0]} features and {hidden[0]} neurons"
        raise ValueError(f"{found}; the kernel takes up to 32 and 256, in fours")
    pointers = (tensor.data_ptr() for tensor in inputs)
    return _Network(features[0], hidden[0], _threads(features[1]), scale, features[1], *pointers)
