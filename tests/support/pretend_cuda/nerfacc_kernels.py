"""The compiled part of nerfacc, in a few lines of torch; nerfacc's own Python runs as installed around it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tests.support.pretend_cuda.counters import COUNTERS, source_line
from tests.support.pretend_cuda.gsplat_kernels import checked
from tests.support.pretend_cuda.tensor import PretendTensor, on_the_cpu


def install() -> None:
    """Puts the stand-ins where nerfacc looks for its kernels."""
    import nerfacc.cuda
    import nerfacc.estimators.occ_grid as grid

    grid.traverse_grids = traverse_grids
    nerfacc.cuda.exclusive_sum = exclusive_sum
    nerfacc.cuda.inclusive_sum = inclusive_sum
    sys.modules["nerfacc.cuda._backend"] = ModuleType("nerfacc.cuda._backend")
    sys.modules["nerfacc.cuda._backend"]._C = object()  # type: ignore[attr-defined]


def exclusive_sum(starts: Tensor, counts: Tensor, values: Tensor, normalize: bool, backward: bool) -> Tensor:
    def before(x: Tensor) -> Tensor:
        return x.flip(0).cumsum(0).flip(0) - x if backward else x.cumsum(0) - x

    return _by_ray(starts, counts, values, before)


def inclusive_sum(starts: Tensor, counts: Tensor, values: Tensor, normalize: bool, backward: bool) -> Tensor:
    def until(x: Tensor) -> Tensor:
        return x.flip(0).cumsum(0).flip(0) if backward else x.cumsum(0)

    return _by_ray(starts, counts, values, until)


def _by_ray(starts: Tensor, counts: Tensor, values: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
    firsts, sizes, inner = checked("scan", starts, counts, values)
    with on_the_cpu():
        out = torch.empty_like(inner)
        for first, size in zip(firsts.tolist(), sizes.tolist(), strict=True):
            out[first : first + size] = of(inner[first : first + size])
    return PretendTensor(out, values.device)


@torch.no_grad()
def traverse_grids(
    origins: Tensor,
    directions: Tensor,
    binaries: Tensor,
    aabbs: Tensor,
    near_planes: Tensor,
    far_planes: Tensor,
    step_size: float = 1e-3,
    cone_angle: float = 0.0,
    **rest: Any,
) -> tuple[Any, Any, None]:
    """The intervals of one grid of half side 1 whose middles lie in filled cells."""
    assert cone_angle == 0 and not rest
    COUNTERS.syncs[f"{source_line()} nerfacc traverse_grids"] += 2
    given = checked("traverse_grids", origins, directions, near_planes, far_planes, binaries, aabbs)
    with on_the_cpu():
        o, d, near, far, filled = given[:5]
        t = near[:, None] + (torch.arange(int(2 / step_size) + 3) + 0.5) * step_size
        places = o[:, None] + t[..., None] * d[:, None]
        cells = filled.shape[1]
        cell = ((places + 1) * (0.5 * cells)).long().clamp(0, cells - 1)
        inside = (t < far[:, None]) & (far > near)[:, None] & (places.abs() <= 1).all(-1)
        kept = inside & filled[0][cell.unbind(-1)]
        rows, middle, counts = kept.nonzero()[:, 0], t[kept], kept.sum(-1)
        vals = torch.stack([middle - 0.5 * step_size, middle + 0.5 * step_size], -1).flatten()
        left = torch.tensor([True, False]).repeat(len(middle))
        packed = torch.stack([counts.cumsum(0) - counts, counts], -1)

    def wrapped(x: Tensor) -> Tensor:
        return PretendTensor(x, origins.device)

    intervals = SimpleNamespace(vals=wrapped(vals), is_left=wrapped(left), is_right=wrapped(~left))
    return intervals, SimpleNamespace(ray_indices=wrapped(rows), packed_info=wrapped(packed)), None
