"""Splats to density: one Gaussian's closed form, sums, rotations, and that the twin agrees."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from renderers import kernels
from renderers.splats import density_grid
from renderers.splats.density_grid import SplatParameters, rotations


def cloud(count: int, seed: int = 0) -> SplatParameters:
    chance = torch.Generator().manual_seed(seed)
    return SplatParameters(
        means=0.3 * torch.randn(count, 3, generator=chance),
        log_scales=math.log(0.06) + 0.4 * torch.randn(count, 3, generator=chance),
        quats=torch.randn(count, 4, generator=chance),
        logit_opacities=torch.randn(count, generator=chance),
        sh=torch.zeros(count, 1, 3),
    )


def one(mean: list[float], scales: list[float], quat: list[float], logit: float) -> SplatParameters:
    rows = [torch.tensor([row]) for row in (mean, np.log(scales).tolist(), quat)]
    return SplatParameters(rows[0], rows[1], rows[2], torch.tensor([logit]), torch.zeros(1, 1, 3))


def test_one_splat_has_its_closed_form() -> None:
    """Sigma = R diag(s^2) R^T by hand: a turn of 90 degrees about z exchanges the x and y axes."""
    turned = one([0.1, -0.2, 0.3], [0.1, 0.2, 0.05], [math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5)], 0.4)
    grid = density_grid.density(turned, 64)
    blur = (density_grid.BLUR * grid.spacing) ** 2
    axes = [grid.origin[d] + grid.spacing * np.arange(n) for d, n in enumerate(grid.values.shape)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    squared = (x - 0.1) ** 2 / (0.2**2 + blur) + (y + 0.2) ** 2 / (0.1**2 + blur) + (z - 0.3) ** 2 / (0.05**2 + blur)
    wanted = np.where(squared <= density_grid.MAX_SIGMA**2, np.exp(-0.5 * squared) / (1 + math.exp(-0.4)), 0.0)
    edge = np.abs(squared - density_grid.MAX_SIGMA**2) < 1e-3
    assert grid.values[~edge] == pytest.approx(wanted[~edge], abs=1e-5)
    assert np.argmax([np.ptp(axis) for axis in axes]) == 0
    assert max(grid.values.shape) == 64


def test_the_length_of_a_quaternion_does_not_matter() -> None:
    quats = np.random.default_rng(0).normal(size=(20, 4))
    turns = rotations(quats)
    assert turns == pytest.approx(rotations(-3 * quats))
    assert turns @ turns.transpose(0, 2, 1) == pytest.approx(np.broadcast_to(np.eye(3), (20, 3, 3)), abs=1e-12)
    assert np.linalg.det(turns) == pytest.approx(np.ones(20))


@pytest.mark.skipif(kernels.library() is None, reason=kernels.why_missing())
def test_the_native_kernel_and_its_twin_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    splats = cloud(400)
    fast = density_grid.density(splats, 48)
    monkeypatch.setattr(density_grid, "library", lambda: None)
    slow = density_grid.density(splats, 48)
    assert fast.values == pytest.approx(slow.values, abs=1e-4)
    assert fast.values.max() > 1


def test_what_lies_outside_of_the_box_is_not_looked_at() -> None:
    grid = density_grid.density(one([2.0, 0.0, 0.0], [0.5, 0.1, 0.1], [1.0, 0.0, 0.0, 0.0], 3.0), 32)
    assert grid.origin[0] + grid.spacing * (grid.values.shape[0] - 1) == pytest.approx(
        density_grid.BOUND, abs=grid.spacing
    )
    with pytest.raises(ValueError, match="empty: no splat lies in the box"):
        density_grid.density(one([3.0, 0.0, 0.0], [0.1, 0.1, 0.1], [1.0, 0.0, 0.0, 0.0], 3.0), 32)


def test_scenes_without_a_visible_splat_are_refused() -> None:
    with pytest.raises(ValueError, match=r"empty: no splat is more opaque than .* \(it has no splats\)"):
        density_grid.density(cloud(0), 32)
    with pytest.raises(ValueError, match=r"their highest opacity is 4\.5e-05"):
        density_grid.density(one([0.0, 0.0, 0.0], [0.1, 0.1, 0.1], [1.0, 0.0, 0.0, 0.0], -10.0), 32)


def test_splats_that_are_not_finite_add_nothing() -> None:
    splats = cloud(50)
    whole = density_grid.density(splats, 32)
    for name in ("means", "log_scales", "quats", "logit_opacities"):
        values = getattr(splats, name)
        spoilt = torch.full_like(values[:1], math.nan)
        broken = {n: torch.cat([getattr(splats, n), spoilt if n == name else getattr(splats, n)[:1]]) for n in NAMES}
        assert (density_grid.density(SplatParameters(**broken), 32).values == whole.values).all()


NAMES = ("means", "log_scales", "quats", "logit_opacities", "sh")
