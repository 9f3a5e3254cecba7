"""The noise schedule against its published table, and the algebra of noise, velocity and clean latents."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guidance.priors.base import cleaned, noise_from_velocity, noised, per_view
from guidance.priors.schedule import ScaledLinear

SCHEDULE = ScaledLinear()
TABLE = {
    20: 0.98131,
    100: 0.89422,
    200: 0.75369,
    400: 0.42448,
    500: 0.27633,
    600: 0.16078,
    800: 0.03687,
    980: 0.00584,
    999: 0.00466,
}
"""Squares of alpha at steps of Stable Diffusion's schedule."""


@pytest.mark.parametrize(("step", "square"), TABLE.items())
def test_the_table_is_stable_diffusions(step: int, square: float) -> None:
    assert float(SCHEDULE.alphas_cumprod()[step]) == pytest.approx(square, abs=5e-6)


def test_fractions_of_whole_steps_hit_the_table() -> None:
    steps = torch.arange(1000)
    alpha, _ = SCHEDULE.levels(steps.double() / 999)
    torch.testing.assert_close(alpha.square(), SCHEDULE.alphas_cumprod(), rtol=1e-9, atol=0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_signal_and_noise_share_the_variance(times: list[float]) -> None:
    alpha, sigma = SCHEDULE.levels(torch.tensor(times, dtype=torch.float64))
    torch.testing.assert_close(alpha.square() + sigma.square(), torch.ones_like(alpha), rtol=0, atol=1e-12)


def test_noise_grows_without_a_jump() -> None:
    alpha, sigma = SCHEDULE.levels(torch.linspace(0, 1, 20_001, dtype=torch.float64))
    assert bool((alpha.diff() < 0).all()) and bool((sigma.diff() > 0).all())
    assert float(alpha.diff().abs().max()) < 1e-4


def test_times_beyond_the_schedule_are_its_ends() -> None:
    t = torch.tensor([-0.5, 0.0, 1.0, 1.5])
    alpha, sigma = SCHEDULE.levels(t)
    assert alpha.dtype == t.dtype
    assert alpha[0] == alpha[1] and sigma[2] == sigma[3]


@pytest.fixture(scope="module")
def drawn() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    chance = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(5, 3, 4, 4, generator=chance, dtype=torch.float64) for _ in range(2))
    return x, noise, *SCHEDULE.levels(torch.linspace(0.02, 0.98, 5, dtype=torch.float64))


Drawn = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def test_what_is_noised_can_be_cleaned(drawn: Drawn) -> None:
    x, noise, alpha, sigma = drawn
    torch.testing.assert_close(cleaned(noised(x, noise, alpha, sigma), noise, alpha, sigma), x)


def test_velocity_holds_both_noise_and_picture(drawn: Drawn) -> None:
    x, noise, alpha, sigma = drawn
    x_t, v = noised(x, noise, alpha, sigma), per_view(alpha) * noise - per_view(sigma) * x
    torch.testing.assert_close(noise_from_velocity(x_t, v, alpha, sigma), noise)
    torch.testing.assert_close(per_view(alpha) * x_t - per_view(sigma) * v, x)
