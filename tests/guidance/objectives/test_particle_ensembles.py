"""Crowds of particles under SDS, VSD, ESD and f-VSD: where they rest, how wide, and what keeps them from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from guidance.gradient_clipping import clip_elementwise
from guidance.objectives.differences.sds import SDS
from guidance.objectives.differences.sjc import SJC
from guidance.objectives.variational.esd import ESD
from guidance.objectives.variational.f_vsd import FVSD, Divergence
from guidance.objectives.variational.vsd import VSD
from guidance.priors.base import Condition, Denoiser, expand_like_latents, make_rng
from tests.support.guidance.particle_ensembles import (
    DOUBLE,
    AnalyticDenoiser,
    alpha_sigma_at,
    by_condition,
    expected_grad,
    gaussian_noise_fn,
    hermite_nodes,
    scalar_views,
    stationary_moments,
)

# --- SDS ---


@pytest.mark.parametrize("rate", [4.0, 2.0, 1.0])
def test_constant_lr_variance_matches_closed_form(rate: float) -> None:
    """A step is x - rate (H (x - m) - n noise), H = w sigma alpha a and n = w alpha^2 std^2 a, so the variance rests at
    rate n^2 / (2 H - rate H^2): nothing of the data's own width, and half of it at half the rate."""
    mean, std, t, count, rng = 1.0, 0.6, 0.4, 20000, make_rng(2)
    alpha, sigma = alpha_sigma_at(t)
    a = 1 / ((alpha * std) ** 2 + sigma**2)
    pull, noise = sigma**2 * sigma * alpha * a, sigma**2 * (alpha * std) ** 2 * a
    prior, when = AnalyticDenoiser(gaussian_noise_fn(mean, std)), torch.full((count,), t, dtype=DOUBLE)
    x = mean + std * torch.randn(count, generator=rng, dtype=DOUBLE)
    for _ in range(round(12 / (rate * pull))):
        view = scalar_views(x, torch.randn(count, generator=rng, dtype=DOUBLE), when)
        x = x - rate * SDS(1)(prior, prior, view).grad.flatten()
    expected = rate * noise**2 / (2 * pull - rate * pull**2)
    assert float(x.mean()) == pytest.approx(mean, abs=5 * math.sqrt(expected / count))
    assert float(x.var()) == pytest.approx(expected, rel=0.05)


def test_guidance_away_from_a_narrow_prior_diverges() -> None:
    """(1 - s) A_0 + s A_y is below 0: the place where the gradient is nothing repels."""
    prior, t = AnalyticDenoiser(by_condition(gaussian_noise_fn(1.0, 1.0), gaussian_noise_fn(0.0, 0.4))), 0.2
    alpha, sigma = alpha_sigma_at(t)
    narrow, wide = (1 / ((alpha * std) ** 2 + sigma**2) for std in (0.4, 1.0))
    assert (1 - 3) * narrow + 3 * wide < 0
    place = 3 * wide / ((1 - 3) * narrow + 3 * wide)
    below, there, above = expected_grad(SDS(3), prior, prior, place + torch.tensor([-0.5, 0.0, 0.5], dtype=DOUBLE), t)
    assert float(there) == pytest.approx(0, abs=1e-12)
    assert float(below) > 0 > float(above)


@pytest.mark.parametrize("t", [0.03, 0.1, 0.4, 0.9])
def test_noise_subtraction_reduces_variance_only_at_high_noise(t: float) -> None:
    """Of the noise -alpha^2 std^2 a is left with it taken off, sigma^2 a without."""
    std, (alpha, sigma) = 0.6, alpha_sigma_at(t)
    a = 1 / ((alpha * std) ** 2 + sigma**2)
    prior, zero = AnalyticDenoiser(gaussian_noise_fn(1.0, std)), torch.zeros(2, dtype=DOUBLE)
    view = scalar_views(zero, torch.tensor([0.0, 1.0], dtype=DOUBLE), torch.full((2,), t, dtype=DOUBLE))
    off, on = (float(SJC(1, reduced)(prior, prior, view).grad.diff(dim=0)) for reduced in (True, False))
    assert (off, on) == pytest.approx((-((alpha * std) ** 2) * a, sigma**2 * a))
    assert (abs(off) < abs(on)) == (alpha * std < sigma) == (t > 0.2)


@pytest.mark.parametrize("most", [0.01, 0.1, 100.0])
def test_clipped_grads_still_converge_to_the_mean(most: float) -> None:
    prior, (points, weights) = AnalyticDenoiser(gaussian_noise_fn(1.0, 0.6)), hermite_nodes(40)
    x = 1 + torch.tensor([-3.0, -0.5, 0.0, 0.5, 3.0], dtype=DOUBLE)
    for t in (0.1, 0.4, 0.9):
        when = torch.full((len(x) * 40,), t, dtype=DOUBLE)
        grad = SDS(1)(prior, prior, scalar_views(x.repeat_interleave(40), points.repeat(len(x)), when)).grad
        mean = clip_elementwise(grad, most).flatten().unflatten(0, (len(x), 40)) @ weights
        assert float(mean[2]) == pytest.approx(0, abs=1e-12)
        assert bool((mean.diff() >= -1e-12).all()) and float(mean[0]) < 0 < float(mean[-1])


# --- VSD ---


def test_kl_to_the_data_decreases_every_step() -> None:
    prior, (z, weights) = AnalyticDenoiser(gaussian_noise_fn(1.0, 0.6)), hermite_nodes(4)
    x, found = 0.3 + 1.7 * z, []
    for number in range(200):
        mean = float(x @ weights)
        std = math.sqrt(float((x - mean).square() @ weights))
        found.append(math.log(0.6 / std) + (std**2 + (mean - 1) ** 2) / (2 * 0.6**2) - 0.5)
        x = x - 2.0 * expected_grad(
            VSD(1), prior, AnalyticDenoiser(gaussian_noise_fn(mean, std)), x, (0.2, 0.5, 0.8)[number % 3]
        )
    assert found[0] > 2 and found[-1] < 1e-4
    assert all(later < earlier for earlier, later in pairwise(found) if earlier > 1e-9)


def test_too_wide_frozen_critic_collapses_particles() -> None:
    """On a point beyond the mean: (a m - a_k mean_k) / (a - a_k)."""
    alpha, sigma = alpha_sigma_at(0.4)
    own, stopped = (1 / ((alpha * std) ** 2 + sigma**2) for std in (0.6, 1.7))
    mean, deviation = stationary_moments(
        VSD(1),
        AnalyticDenoiser(gaussian_noise_fn(1.0, 0.6)),
        lambda *_: AnalyticDenoiser(gaussian_noise_fn(0.3, 1.7)),
        [0.4],
        200,
    )
    assert mean == pytest.approx((own - stopped * 0.3) / (own - stopped), rel=1e-4)
    assert mean > 1.3 and deviation < 1e-4


def test_too_narrow_frozen_critic_spreads_particles() -> None:
    _, std = stationary_moments(
        VSD(1),
        AnalyticDenoiser(gaussian_noise_fn(1.0, 0.6)),
        lambda *_: AnalyticDenoiser(gaussian_noise_fn(0.9, 0.4)),
        [0.4],
        100,
    )
    assert std > 1.7 * 5


# --- ESD ---


@pytest.mark.parametrize("entropy", [0.0, 0.12, 0.22, 0.6, 1.3])
def test_esd_entropy_thresholds_of_collapse_and_overspread(entropy: float) -> None:
    """variance = E std^2 - (1 - E) sigma^2 / alpha^2, and none where E is below sigma^2 a: at step 150 of 999, 0.17."""
    alpha, sigma = alpha_sigma_at(150 / 999)
    threshold = sigma**2 / (alpha**2 + sigma**2)
    prior, (z, weights), spread = AnalyticDenoiser(gaussian_noise_fn(0.0, 1.0)), hermite_nodes(2), 0.8
    x = spread * z

    def answer(x_t: Tensor, a: Tensor, s: Tensor, condition: Condition) -> Tensor:
        crowd = gaussian_noise_fn(0.0, spread)(x_t, a, s, condition)
        return crowd if condition.camera is None else (x_t - a * expand_like_latents(x.repeat_interleave(2))) / s

    for _ in range(200):
        x = x - 8.0 * expected_grad(ESD(1, entropy), prior, AnalyticDenoiser(answer), x, 150 / 999)
        spread = math.sqrt(float(x.square() @ weights))
    assert spread**2 == pytest.approx(max(0.0, entropy - (1 - entropy) * (sigma / alpha) ** 2), abs=1e-5)
    assert (spread > 1e-3) == (entropy > threshold) and (spread > 1) == (entropy > 1)


# --- f-VSD ---


@dataclass(frozen=True)
class RatioCritic(AnalyticDenoiser):
    """A crowd known as a Gaussian, that tells how much likelier the data is."""

    mine: tuple[float, float] = (0.0, 1.0)
    data: tuple[float, float] = (0.0, 1.0)

    def density_ratio(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        (alpha, sigma), log = self.alpha_sigma(t), []
        for mean, std in (self.data, self.mine):
            variance = (alpha * std).square() + sigma.square()
            log.append(-0.5 * (x_t.flatten() - alpha * mean).square() / variance - 0.5 * variance.log())
        return (log[0] - log[1]).exp()


@pytest.mark.parametrize("kind", ["js", "forward-kl", "hellinger"])
def test_every_divergence_converges_to_the_data(kind: Divergence) -> None:
    def critic(mean: float, deviation: float) -> Denoiser:
        return RatioCritic(gaussian_noise_fn(mean, deviation), mine=(mean, deviation), data=(1.0, 0.6))

    found = stationary_moments(FVSD(1, kind), AnalyticDenoiser(gaussian_noise_fn(1.0, 0.6)), critic, [0.2, 0.5], 250)
    assert found == pytest.approx((1.0, 0.6), abs=1e-2)
