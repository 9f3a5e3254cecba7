"""The noise schedule against its published table, and the algebra of noise, velocity and clean latents."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guidance.priors.base import add_noise, expand_like_latents, noise_from_velocity, predict_x0
from guidance.priors.schedule import ScaledLinearSchedule

SCHEDULE = ScaledLinearSchedule()
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
def test_alphas_cumprod_match_stable_diffusion(step: int, square: float) -> None:
    assert float(SCHEDULE.alphas_cumprod()[step]) == pytest.approx(square, abs=5e-6)


def test_integer_steps_are_exact() -> None:
    steps = torch.arange(1000)
    alpha, _ = SCHEDULE.alpha_sigma(steps.double() / 999)
    torch.testing.assert_close(alpha.square(), SCHEDULE.alphas_cumprod(), rtol=1e-9, atol=0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_schedule_is_variance_preserving(times: list[float]) -> None:
    alpha, sigma = SCHEDULE.alpha_sigma(torch.tensor(times, dtype=torch.float64))
    torch.testing.assert_close(alpha.square() + sigma.square(), torch.ones_like(alpha), rtol=0, atol=1e-12)


def test_sigma_is_monotonic_and_continuous() -> None:
    alpha, sigma = SCHEDULE.alpha_sigma(torch.linspace(0, 1, 20_001, dtype=torch.float64))
    assert bool((alpha.diff() < 0).all()) and bool((sigma.diff() > 0).all())
    assert float(alpha.diff().abs().max()) < 1e-4


def test_t_is_clamped_to_the_schedule() -> None:
    t = torch.tensor([-0.5, 0.0, 1.0, 1.5])
    alpha, sigma = SCHEDULE.alpha_sigma(t)
    assert alpha.dtype == t.dtype
    assert alpha[0] == alpha[1] and sigma[2] == sigma[3]


@pytest.fixture(scope="module")
def drawn() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(5, 3, 4, 4, generator=rng, dtype=torch.float64) for _ in range(2))
    return x, noise, *SCHEDULE.alpha_sigma(torch.linspace(0.02, 0.98, 5, dtype=torch.float64))


Drawn = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def test_predict_x0_inverts_add_noise(drawn: Drawn) -> None:
    x, noise, alpha, sigma = drawn
    torch.testing.assert_close(predict_x0(add_noise(x, noise, alpha, sigma), noise, alpha, sigma), x)


def test_noise_from_velocity(drawn: Drawn) -> None:
    x, noise, alpha, sigma = drawn
    x_t, v = add_noise(x, noise, alpha, sigma), expand_like_latents(alpha) * noise - expand_like_latents(sigma) * x
    torch.testing.assert_close(noise_from_velocity(x_t, v, alpha, sigma), noise)
    torch.testing.assert_close(expand_like_latents(alpha) * x_t - expand_like_latents(sigma) * v, x)
