"""A field whose features lie in hash tables at several resolutions (Mueller et al. 2022, Instant-NGP).

Takes less memory than voxels for the same detail, and more time. Coarse to fine: its levels can come in one after the
other. Shapes: P points, L levels, T entries of a table, of 2 numbers each.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from renderers import kernels
from renderers.volumes.hash_kernels import query_hash_field
from renderers.volumes.rays import FieldOutput
from renderers.volumes.voxel_field import Blob, Field, lattice_points, outward

PRIMES = (1, 2654435761, 805459861)
"""Factors of the hash (Mueller et al. 2022, equation 4)."""
_POINTS_AT_ONCE = 1 << 18


class HashGridField(Field):
    """Hash tables, and a network of one hidden layer that reads them."""

    tables: nn.Parameter
    """[L,T,2]"""
    hidden: nn.Parameter
    """[H,2L]"""
    out: nn.Parameter
    """[4,H]: to raw density and raw red, green, blue"""
    level_weights: Tensor
    """[L]: what the features of a level are multiplied by, 0..1"""
    sides: Tensor
    """[L]: `resolutions`, beside the tables"""

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
        if not (
            levels in range(2, 17, 2) and 4 <= log2_size <= 24 and 2 <= finest <= 4096 and width in range(4, 257, 4)
        ):
            found = f"{levels} levels, tables of 2^{log2_size}, {finest} voxels, {width} neurons"
            raise ValueError(f"{found}; expected 2..16 (even), 2^4..2^24, 2..4096 and 4..256 (in fours)")
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
        self.register_buffer("level_weights", torch.ones(levels), persistent=False)
        self.register_buffer("sides", torch.tensor(self.resolutions), persistent=False)

    def set_active_levels(self, count: float) -> None:
        """Lets so many levels in, the coarsest first; each comes in along half a cosine (Lin et al. 2021, BARF,
        equation 14, for frequencies instead of levels)."""
        late = (count - torch.arange(len(self.level_weights), device=self.level_weights.device)).clamp(0, 1)
        self.level_weights = (0.5 - 0.5 * torch.cos(math.pi * late)).to(self.level_weights)

    def query(self, points: Float[Tensor, "P 3"], normals: bool) -> FieldOutput:
        """Normals are of differences over one voxel of the finest level that is in, which costs three times more
        points."""
        if not normals:
            return FieldOutput(*self._activated(points), None)
        reach = 2 / self.resolutions[max(int(self.level_weights.count_nonzero()), 1) - 1]
        aside = points + reach * torch.eye(3, dtype=points.dtype, device=points.device)[:, None]
        density, albedo = self._activated(torch.cat([points, aside.reshape(-1, 3)]))
        count = len(points)
        slope = (density[count:].view(3, -1) - density[:count]) / reach
        return FieldOutput(density[:count], albedo[:count], outward(slope.T))

    def _activated(self, points: Float[Tensor, "P 3"]) -> tuple[Float[Tensor, " P"], Float[Tensor, "P 3"]]:
        """Density and colour. Compiled for float32 on a CPU."""
        if points.device.type == "cpu" and points.dtype == torch.float32 and kernels.library() is not None:
            weights = self.tables, self.hidden, self.out
            return query_hash_field(points, self.blob, weights, self.resolutions, self.level_weights, self.scale)
        if points.device.type == "cuda":
            return self._in_chunks(points)
        features = encode_reference(points, self.tables, self.resolutions, self.level_weights)
        return decode_reference(features, self.hidden, self.out, self.blob(points), self.scale)

    def _in_chunks(self, points: Float[Tensor, "P 3"]) -> tuple[Float[Tensor, " P"], Float[Tensor, "P 3"]]:
        """All levels and corners at once, a chunk of points after the other. What lies between is worked out again on
        the way back: to keep it for all the samples of a large picture would take tens of gigabytes."""

        def one(some: Tensor, tables: Tensor, hidden: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
            features = encode(some, tables, self.sides, self.resolutions, self.level_weights)
            return decode_reference(features, hidden, out, self.blob(some), self.scale)

        found = [
            checkpoint(one, some, self.tables, self.hidden, self.out, use_reentrant=False, preserve_rng_state=False)
            for some in points.split(_POINTS_AT_ONCE)
        ]
        density, albedo = zip(*found, strict=True)
        return torch.cat(density), torch.cat(albedo)

    @torch.no_grad()
    def max_density(self, cells: int) -> Float[Tensor, "G G G"]:
        """Greatest of 27 points of each cell, its corners among them: what lies between may be more."""
        count = 2 * cells + 1
        points = lattice_points(count, self.hidden).split(_POINTS_AT_ONCE)
        density = torch.cat([self._activated(some)[0] for some in points]).view(1, 1, count, count, count)
        return functional.max_pool3d(density, 3, 2)[0, 0]


def encode_reference(
    points: Float[Tensor, "P 3"], tables: Float[Tensor, "L T 2"], resolutions: list[int], shares: Float[Tensor, " L"]
) -> Float[Tensor, "F P"]:
    """Features of points of the cube, 2 of each level, times its share; on any device, in any floating type."""
    features = []
    for table, resolution, share_of_level in zip(tables, resolutions, shares, strict=True):
        place = ((points + 1) * (0.5 * resolution)).clamp(0, resolution)
        first = place.long().clamp_max(resolution - 1)
        share = place - first
        found = torch.zeros(len(points), 2, dtype=table.dtype, device=table.device)
        for corner in range(8):
            step = torch.tensor([corner & 1, corner >> 1 & 1, corner >> 2], device=points.device)
            weight = torch.where(step == 1, share, 1 - share).prod(-1)
            found = found + weight[:, None] * table[hash_indices(first + step, resolution, len(table))]
        features.append(share_of_level * found)
    return torch.cat(features, -1).T


def encode(
    points: Float[Tensor, "P 3"],
    tables: Float[Tensor, "L T 2"],
    sides: Int64[Tensor, " L"],
    resolutions: list[int],
    shares: Float[Tensor, " L"],
) -> Float[Tensor, "F P"]:
    """As `encode_slowly`, all levels and corners at once, and without a gradient for the points.

    `sides` are the resolutions on the device of the points.
    """
    levels, size, _ = tables.shape
    count = len(points)
    place = torch.minimum(((points[:, None] + 1) * (0.5 * sides)[:, None]).clamp_min(0), sides[:, None].to(points))
    first = torch.minimum(place.detach().long(), sides[:, None] - 1)
    share = place.detach() - first
    corner = torch.arange(8, device=points.device)
    step = torch.stack([corner & 1, corner >> 1 & 1, corner >> 2], -1)
    weight = torch.where(step == 1, share[:, :, None], 1 - share[:, :, None]).prod(-1)
    x, y, z = (first[:, :, None] + step).unbind(-1)
    # The coarser levels have an entry for every corner, the finer ones share theirs.
    dense = sum((side + 1) ** 3 <= size for side in resolutions)
    side = sides[:dense, None] + 1
    own = x[:, :dense] + side * (y[:, :dense] + side * z[:, :dense])
    x, y, z = (axis[:, dense:] * prime for axis, prime in zip((x, y, z), PRIMES, strict=True))
    rows = torch.cat([own, (x ^ y ^ z) & (size - 1)], 1) + size * torch.arange(levels, device=points.device)[:, None]
    found = functional.embedding_bag(
        rows.flatten(0, 1), tables.flatten(0, 1), per_sample_weights=weight.flatten(0, 1), mode="sum"
    )
    return (found.view(count, levels, 2) * shares[:, None]).flatten(1).T


def hash_indices(corners: Int64[Tensor, "P 3"], resolution: int, size: int) -> Int64[Tensor, " P"]:
    """Where in a table of `size` entries the corners of a grid of `resolution` voxels along a side have theirs."""
    x, y, z = corners.unbind(-1)
    side = resolution + 1
    if side**3 <= size:
        return x + side * (y + side * z)
    return (x * PRIMES[0] ^ y * PRIMES[1] ^ z * PRIMES[2]) & (size - 1)


def decode_reference(
    features: Float[Tensor, "F P"],
    hidden: Float[Tensor, "H F"],
    out: Float[Tensor, "4 H"],
    offset: Float[Tensor, " P"],
    scale: float,
) -> tuple[Float[Tensor, " P"], Float[Tensor, "P 3"]]:
    """Density and colour from features; `offset` is added to the raw density."""
    raw = out @ (hidden @ features).relu()
    return scale * functional.softplus(raw[0] + offset, threshold=60), raw[1:].sigmoid().T
