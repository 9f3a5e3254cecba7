"""A field whose features lie in hash tables at several resolutions (Mueller et al. 2022, Instant-NGP).

Takes less memory than voxels for the same detail, and more time. Shapes: P points, L levels, T entries of a table, of
2 numbers each.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from renderers import native
from renderers.field import Blob, Field, lattice_points, outward
from renderers.rays import Samples

PRIMES = (1, 2654435761, 805459861)
"""Factors of the hash (Mueller et al. 2022, equation 4)."""
_POINTS_AT_ONCE = 1 << 18
_POINTS_WORTH_THREADS = 4_000


class HashField(Field):
    """Hash tables, and a network of one hidden layer that reads them."""

    tables: nn.Parameter
    """[L,T,2]"""
    hidden: nn.Parameter
    """[H,2L]"""
    out: nn.Parameter
    """[4,H]: to raw density and raw red, green, blue"""

    def __init__(
        self,
        generator: torch.Generator,
        levels: int = 8,
        log2_size: int = 15,
        finest: int = 128,
        width: int = 32,
        scale: float = 20.0,
        blob: Blob | None = None,
    ) -> None:
        super().__init__()
        if not (1 <= levels <= 16 and 4 <= log2_size <= 24 and 2 <= finest <= 4096 and 1 <= width <= 256):
            found = f"{levels} levels, tables of 2^{log2_size}, {finest} voxels, {width} neurons"
            raise ValueError(f"{found}; expected 1..16, 2^4..2^24, 2..4096 and 1..256")
        self.scale = scale
        self.blob = blob or Blob()
        coarsest = min(16, finest)
        growth = (finest / coarsest) ** (1 / max(levels - 1, 1))
        self.resolutions = [round(coarsest * growth**level) for level in range(levels)]
        """Voxels along a side of the cube, level by level."""

        def uniform(*shape: int) -> Tensor:
            return 2 * torch.rand(*shape, generator=generator, device=generator.device) - 1

        self.tables = nn.Parameter(1e-2 * uniform(levels, 1 << log2_size, 2))
        self.hidden = nn.Parameter(uniform(width, 2 * levels) * (3 / levels) ** 0.5)
        self.out = nn.Parameter(uniform(4, width) * (3 / width) ** 0.5)

    def raw(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P 4"]:
        """Density and colour before their activations."""
        features = encode(points, self.tables, self.resolutions)
        raw = functional.linear(functional.linear(features, self.hidden).relu(), self.out)
        return raw + functional.pad(self.blob(points)[:, None], (0, 3))

    def sample(self, points: Float[Tensor, "P 3"], normals: bool) -> Samples:
        """Normals are of differences over one finest voxel, which costs three times more points."""
        if not normals:
            raw = self.raw(points)
            return Samples(self._density(raw), raw[:, 1:].sigmoid(), None)
        reach = 2 / self.resolutions[-1]
        aside = points + reach * torch.eye(3, dtype=points.dtype, device=points.device)[:, None]
        both = self.raw(torch.cat([points, aside.reshape(-1, 3)]))
        raw, beside = both[: len(points)], both[len(points) :, 0].view(3, -1)
        normal = outward(((beside - raw[:, 0]) / reach).T)
        return Samples(self._density(raw), raw[:, 1:].sigmoid(), normal)

    @torch.no_grad()
    def densest(self, cells: int) -> Float[Tensor, "G G G"]:
        """Greatest at the corners and the middle of each cell and its faces and edges: what lies between may be more."""
        count = 2 * cells + 1
        points = lattice_points(count, self.hidden).split(_POINTS_AT_ONCE)
        density = torch.cat([self._density(self.raw(some)) for some in points]).view(1, 1, count, count, count)
        return functional.max_pool3d(density, 3, 2)[0, 0]

    def _density(self, raw: Float[Tensor, "P 4"]) -> Float[Tensor, " P"]:
        return self.scale * functional.softplus(raw[:, 0], threshold=60)


def encode(
    points: Float[Tensor, "P 3"], tables: Float[Tensor, "L T 2"], resolutions: list[int]
) -> Float[Tensor, "P F"]:
    """Features of points of the cube, 2 of each level; differentiable in the tables.

    Compiled for float32 on a CPU. T is a power of two.
    """
    if tables.device.type == "cpu" and tables.dtype == torch.float32 and native.library() is not None:
        features: Tensor = _Encode.apply(points.contiguous(), tables.contiguous(), resolutions)  # type: ignore[no-untyped-call]
        return features
    return encode_slowly(points, tables, resolutions)


def encode_slowly(
    points: Float[Tensor, "P 3"], tables: Float[Tensor, "L T 2"], resolutions: list[int]
) -> Float[Tensor, "P F"]:
    """The twin of the kernel, on any device."""
    features = []
    for table, resolution in zip(tables, resolutions, strict=True):
        place = ((points + 1) * (0.5 * resolution)).clamp(0, resolution)
        first = place.long().clamp_max(resolution - 1)
        share = place - first
        found = torch.zeros(len(points), 2, dtype=table.dtype, device=table.device)
        for corner in range(8):
            step = torch.tensor([corner & 1, corner >> 1 & 1, corner >> 2], device=points.device)
            weight = torch.where(step == 1, share, 1 - share).prod(-1)
            found = found + weight[:, None] * table[entries(first + step, resolution, len(table))]
        features.append(found)
    return torch.cat(features, -1)


def entries(corners: Int64[Tensor, "P 3"], resolution: int, size: int) -> Int64[Tensor, " P"]:
    """Where in a table of `size` entries the corners of a grid of `resolution` voxels along a side have theirs."""
    x, y, z = corners.unbind(-1)
    side = resolution + 1
    if side**3 <= size:
        return x + side * (y + side * z)
    return (x * PRIMES[0] ^ y * PRIMES[1] ^ z * PRIMES[2]) & (size - 1)


class _Encode(torch.autograd.Function):
    """points, tables -> features."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        points, tables, resolutions = arguments
        if points.dtype != torch.float32 or points.device != tables.device:
            found = f"points are {points.dtype} on {points.device}"
            raise ValueError(f"{found}; the kernel takes {tables.dtype} on {tables.device}, as the tables are")
        levels = torch.tensor(resolutions, dtype=torch.int32)
        features = torch.empty(len(points), 2 * len(tables))
        _call("sds3d_hash_encode", points, tables, tables, levels, features)
        ctx.save_for_backward(points, tables, levels)
        return features

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        points, tables, levels = ctx.saved_tensors
        d_tables = torch.zeros_like(tables)
        _call("sds3d_hash_encode_back", points, gradients[0].contiguous(), tables, levels, d_tables)
        return None, d_tables, None


def _call(name: str, points: Tensor, read: Tensor, tables: Tensor, levels: Tensor, written: Tensor) -> None:
    library = native.library()
    if library is None:
        raise OSError(native.why_missing())
    threads = torch.get_num_threads() if len(points) >= _POINTS_WORTH_THREADS else 1
    getattr(library, name)(
        ctypes.c_void_p(points.data_ptr()), ctypes.c_int64(len(points)), ctypes.c_void_p(read.data_ptr()),
        ctypes.c_int32(tables.shape[0]), ctypes.c_int64(tables.shape[1]), ctypes.c_void_p(levels.data_ptr()),
        ctypes.c_int32(threads), ctypes.c_void_p(written.data_ptr()),
    )  # fmt: skip
