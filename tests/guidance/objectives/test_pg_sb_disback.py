"""Random guidance and the way back of the prior, against closed forms."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch

from guidance.objectives.variational.disback import DisBack
from guidance.objectives.variational.pg_sb import PGSB
from guidance.objectives.variational.vsd import VSD
from guidance.priors.base import add_noise, expand_like_latents, make_rng
from tests.support.guidance.particle_ensembles import (
    DOUBLE,
    SCHEDULE,
    AnalyticDenoiser,
    by_condition,
    expected_grad,
    gaussian_noise_fn,
    hermite_nodes,
    scalar_views,
    stationary_moments,
)

# --- PG-SB ---


def test_pg_sb_grad_vanishes_at_the_data() -> None:
    """At any scale, where VSD still pulls by guidance."""
    prior = AnalyticDenoiser(by_condition(gaussian_noise_fn(1.0, 0.6), gaussian_noise_fn(0.0, 1.0)))
    x, t = torch.linspace(-2, 2, 7, dtype=DOUBLE), torch.linspace(0.1, 0.9, 7, dtype=DOUBLE)
    view = scalar_views(x, torch.randn(7, generator=make_rng(1), dtype=DOUBLE), t)
    assert bool((PGSB(-3, 40)(prior, prior, view).grad == 0).all())
    assert bool((VSD(3)(prior, prior, view).grad != 0).all())


def test_pg_sb_uses_one_guidance_scale_per_view() -> None:
    prior = AnalyticDenoiser(by_condition(gaussian_noise_fn(1.0, 0.6), gaussian_noise_fn(0.0, 1.0)))
    critic = AnalyticDenoiser(by_condition(gaussian_noise_fn(-0.5, 0.9), gaussian_noise_fn(0.3, 1.2)))
    x = torch.tensor([-1.0, 0.5, 2.0], dtype=DOUBLE)
    view = scalar_views(x, torch.zeros(3, dtype=DOUBLE), torch.full((3,), 0.4, dtype=DOUBLE))
    view = replace(view, u=torch.tensor([0.0, 0.5, 1.0], dtype=DOUBLE))
    found = PGSB(2, 5)(prior, critic, view).grad
    for place, scale in enumerate((2.0, 3.5, 5.0)):
        at_scale = PGSB(scale, scale)(prior, critic, view).grad
        torch.testing.assert_close(found[place], at_scale[place])
        alpha, sigma = SCHEDULE.alpha_sigma(view.t)
        x_t = add_noise(view.latents, view.noise, alpha, sigma)
        noise_preds = [
            d.predict_noise(x_t, view.t, [view.conditions.uncond, view.conditions.text]) for d in (prior, critic)
        ]
        (e, y), (f, z) = noise_preds
        by_hand = expand_like_latents(sigma**2) * (e + scale * (y - e) - f - scale * (z - f))
        torch.testing.assert_close(at_scale, by_hand)


def test_pg_sb_particles_converge_to_the_unguided_data() -> None:
    uncond = gaussian_noise_fn(0.0, 1.0)
    prior = AnalyticDenoiser(by_condition(gaussian_noise_fn(1.0, 0.6), uncond))
    found = stationary_moments(
        PGSB(2, 5), prior, lambda m, s: AnalyticDenoiser(by_condition(gaussian_noise_fn(m, s), uncond)), [0.2, 0.5], 600
    )
    assert found == pytest.approx((1.0, 0.6), abs=1e-3)


# --- DisBack ---


@dataclass(frozen=True)
class StagedTestPrior(AnalyticDenoiser):
    """A prior with known stages on the way to it."""

    stages: tuple[AnalyticDenoiser, ...] = ()


def test_disback_stage_schedule() -> None:
    objective = DisBack(stages_end=0.6)
    due = [objective.stage(4, place / 20) for place in range(20)]
    assert due == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 8
    assert [objective.stage(1, progress) for progress in (0.0, 0.3, 1.0)] == [0, 0, 0]
    assert DisBack(stages_end=0.0).stage(4, 0.0) == 3
    assert [DisBack(stages_end=1.0).stage(3, progress) for progress in (0.0, 0.49, 0.5, 0.99, 1.0)] == [0, 0, 1, 1, 2]


def test_disback_particles_follow_the_stages_to_the_data() -> None:
    means, stds = [4.0, 3.0, 2.0, 1.0], [1.4, 1.1, 0.8, 0.6]
    stages = tuple(AnalyticDenoiser(gaussian_noise_fn(m, s)) for m, s in zip(means, stds, strict=True))
    prior = StagedTestPrior(stages[-1].noise_fn, stages=stages)
    objective, rounds = DisBack(1, stages_end=0.75), 800
    z, weights = hermite_nodes(4)
    x, visited = 5 + z, []
    for number in range(rounds):
        mean = float(x @ weights)
        std = math.sqrt(float((x - mean).square() @ weights))
        if number % (rounds // 4) == 0:
            visited.append((mean, std))
        critic, t = AnalyticDenoiser(gaussian_noise_fn(mean, std)), 0.2 + 0.3 * (number % 2)
        x = x - 3.0 * expected_grad(objective, prior, critic, x, t, number / rounds)
    visited.append((mean, std))
    for found, m, s in zip(visited[1:], means, stds, strict=True):
        assert found == pytest.approx((m, s), abs=0.05)


def test_disback_without_stages_equals_vsd() -> None:
    prior, critic = AnalyticDenoiser(gaussian_noise_fn(1.0, 0.6)), AnalyticDenoiser(gaussian_noise_fn(0.0, 1.0))
    view = scalar_views(torch.zeros(3).double(), torch.ones(3).double(), torch.full((3,), 0.4).double())
    assert torch.equal(DisBack(3)(prior, critic, view).grad, VSD(3)(prior, critic, view).grad)
