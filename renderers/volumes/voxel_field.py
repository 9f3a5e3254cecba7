"""From a point to a density and a colour. The dense grid of voxels; hashed.py has the other kind.

Shapes: P points, R voxel corners and G cells along a side of the cube of half side 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from renderers.volumes.rays import MIN_SLOPE, FieldOutput

MAX_RESOLUTION = 512
"""Corners along a side that a grid may have."""
_FLAT = 1e-4
"""Added to the squared length of differences."""
_PLANES_AT_ONCE = 8


class Field(nn.Module, ABC):
    """Density and colour at every point of the ball of radius 1."""

    @abstractmethod
    def query(self, points: Float[Tensor, "P 3"], normals: bool) -> FieldOutput:
        """What is there; differentiable in the parameters, not in the points. Normals only if asked for."""

    @abstractmethod
    def max_density(self, cells: int) -> Float[Tensor, "G G G"]:
        """For each of the cells of the cube, a density that is not exceeded in it (or only between its samples)."""


@dataclass(frozen=True)
class Blob:
    """Something to begin with: raw density that is highest in the middle.

    Poole et al. 2022, appendix A.2, add a Gaussian to the density; here it is added before the activation.
    """

    edge: float = -8.0
    """Raw density far from the middle."""
    height: float = 7.0
    """How much higher it is in the middle."""
    width: float = 0.35
    """Standard deviation, in units of the ball's radius."""

    def __call__(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, " P"]:
        return self.edge + self.height * torch.exp(-points.square().sum(-1) / (2 * self.width**2))


class VoxelField(Field):
    """Raw values at the corners of a grid, linear between them, activated after that (Sun et al. 2022, DVGO)."""

    values: nn.Parameter
    """[R,R,R,4]: raw density and raw red, green, blue; x slowest."""

    def __init__(self, values: Float[Tensor, "R R R 4"], scale: float) -> None:
        super().__init__()
        self.scale = scale
        """density = scale * softplus(raw density)"""
        self.values = nn.Parameter(values.contiguous())

    @property
    def resolution(self) -> int:
        return self.values.shape[0]

    def query(self, points: Float[Tensor, "P 3"], normals: bool) -> FieldOutput:
        raw, slope = trilinear(self.values, points)
        density = self.scale * functional.softplus(raw[:, 0], threshold=60)
        return FieldOutput(density, raw[:, 1:].sigmoid(), outward(slope) if normals else None)

    @torch.no_grad()
    def max_density(self, cells: int) -> Float[Tensor, "G G G"]:
        """Exact: between corners a linear function is nowhere greater than at them."""
        raw = self.values[..., 0]
        for axis in range(3):
            raw = _max_pool(raw, axis, cells)
        return self.scale * functional.softplus(raw, threshold=60)


def corners(points: Float[Tensor, "P 3"], resolution: int) -> tuple[Int64[Tensor, "P 3"], Float[Tensor, "P 3"]]:
    """Numbers along the axes of the first corners of the voxels that points of the cube lie in, and places in them."""
    place = ((points + 1) * (0.5 * (resolution - 1))).clamp(0, resolution - 1)
    first = place.detach().long().clamp_max(resolution - 2)
    return first, place - first


def trilinear(
    values: Float[Tensor, "R R R 4"], points: Float[Tensor, "P 3"]
) -> tuple[Float[Tensor, "P 4"], Float[Tensor, "P 3"]]:
    """Values of a grid between its corners, and the gradient of the first of them by the point."""
    resolution = values.shape[0]
    (x, y, z), (a, b, c) = (part.unbind(-1) for part in corners(points, resolution))
    number = (x * resolution + y) * resolution + z
    flat = values.reshape(-1, 4)

    def along_z(i: int, j: int) -> tuple[Tensor, Tensor]:
        near = flat[number + (i * resolution + j) * resolution]
        rise = flat[number + (i * resolution + j) * resolution + 1] - near
        return near + c[:, None] * rise, rise[:, 0]

    (m0, r0), (m1, r1), (m2, r2), (m3, r3) = along_z(0, 0), along_z(0, 1), along_z(1, 0), along_z(1, 1)
    left, right = m0 + b[:, None] * (m1 - m0), m2 + b[:, None] * (m3 - m2)
    slope_y = torch.lerp(m1[:, 0] - m0[:, 0], m3[:, 0] - m2[:, 0], a)
    slope_z = torch.lerp(torch.lerp(r0, r1, b), torch.lerp(r2, r3, b), a)
    slope = torch.stack([right[:, 0] - left[:, 0], slope_y, slope_z], -1)
    return left + a[:, None] * (right - left), slope * (0.5 * (resolution - 1))


def outward(slope: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
    """The unit normal where the density falls fastest; shorter where it hardly changes."""
    return -slope / (slope.square().sum(-1, keepdim=True) + MIN_SLOPE).sqrt()


def total_variation(values: Float[Tensor, "R R R C"]) -> Float[Tensor, ""]:
    """Mean length of the gradient of the raw density, by differences to the next corners (Rudin et al. 1992).

    Per unit of length, so that it stays as it is when the grid becomes finer.
    """
    mean: Tensor = _Variation.apply(values)  # type: ignore[no-untyped-call]
    return mean


class _Variation(torch.autograd.Function):
    """Works out its gradient on the way, some planes at a time: four times faster than to record each difference."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        raw = values[..., 0].contiguous()
        last = len(raw) - 1
        slopes, lengths = torch.zeros_like(raw), []
        for x in range(0, last, _PLANES_AT_ONCE):
            planes = slice(x, min(x + _PLANES_AT_ONCE, last))
            after = slice(planes.start + 1, planes.stop + 1)
            here = raw[planes, :-1, :-1]
            dx, dy, dz = raw[after, :-1, :-1] - here, raw[planes, 1:, :-1] - here, raw[planes, :-1, 1:] - here
            length = (dx * dx).addcmul_(dy, dy).addcmul_(dz, dz).add_(_FLAT).sqrt_()
            lengths.append(length.sum())
            for d in (dx, dy, dz):
                d /= length
            slopes[after, :-1, :-1] += dx
            slopes[planes, 1:, :-1] += dy
            slopes[planes, :-1, 1:] += dz
            slopes[planes, :-1, :-1] -= dx.add_(dy).add_(dz)
        ctx.factor = 0.5 * last / last**3
        ctx.channels = values.shape[-1]
        ctx.save_for_backward(slopes)
        mean: Tensor = torch.stack(lengths).sum() * ctx.factor
        return mean

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensor:
        (slopes,) = ctx.saved_tensors
        pull: Tensor = slopes.new_zeros(*slopes.shape, ctx.channels)
        pull[..., 0] = slopes * (gradients[0] * ctx.factor)
        return pull


def upsample(values: Float[Tensor, "R R R C"], resolution: int) -> Float[Tensor, "S S S C"]:
    """The grid with another number of corners along each side; linear in between."""
    size = (resolution, resolution, resolution)
    moved = functional.interpolate(values.movedim(-1, 0)[None], size, mode="trilinear", align_corners=True)
    return moved[0].movedim(0, -1).contiguous()


def upsample_parameter(optimizer: Optimizer, old: nn.Parameter, resolution: int) -> nn.Parameter:
    """A grid of more corners that takes the place of `old` in the optimiser, and goes on with Adam's state of it.

    The pull on a corner shrinks with the volume around it, and the state is scaled as the pull will be.
    Raises ValueError if the optimiser does not hold `old`.
    """
    new = nn.Parameter(upsample(old.detach(), resolution))
    for group in optimizer.param_groups:
        for place, parameter in enumerate(group["params"]):
            if parameter is old:
                group["params"][place] = new
                share = (old.shape[0] / resolution) ** 3
                powers = {"exp_avg": share, "exp_avg_sq": share**2}
                memory = optimizer.state.pop(old, None) or {}
                for name, value in memory.items():
                    optimizer.state[new][name] = upsample(value, resolution) * powers[name] if name in powers else value
                return new
    raise ValueError("the optimiser does not hold this grid; make it from groups() of the scene it settles")


def lattice_points(count: int, like: Tensor) -> Float[Tensor, "P 3"]:
    """The corners of a grid of `count` along each side of the cube, z fastest."""
    axis = torch.linspace(-1, 1, count, dtype=like.dtype, device=like.device)
    return torch.cartesian_prod(axis, axis, axis)


def _max_pool(values: Tensor, axis: int, cells: int) -> Tensor:
    """Greatest of the corners that each cell along an axis reaches."""
    last = values.shape[axis] - 1
    edges = torch.arange(cells + 1, device=values.device)
    low, high = edges[:-1] * last // cells, (edges[1:] * last + cells - 1) // cells
    greatest = values.index_select(axis, low)
    for offset in range(1, int((high - low).max()) + 1):
        greatest = torch.maximum(greatest, values.index_select(axis, torch.minimum(low + offset, high)))
    return greatest
