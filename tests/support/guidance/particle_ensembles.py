"""Priors and critics known as formulas, and crowds of particles that objectives move among them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from guidance.conditioning.conditions import ViewConditions
from guidance.objectives.base import Objective, ViewBatch
from guidance.priors.base import Condition, Denoiser, expand_like_latents, make_rng
from guidance.priors.schedule import ScaledLinearSchedule

DOUBLE = torch.float64
SCHEDULE = ScaledLinearSchedule()
NoiseFn = Callable[[Tensor, Tensor, Tensor, Condition], Tensor]


@dataclass(frozen=True)
class AnalyticDenoiser:
    """A `Denoiser` whose answer is a formula of x_t, alpha, sigma (shaped to multiply latents) and the condition."""

    noise_fn: NoiseFn
    schedule: ScaledLinearSchedule = SCHEDULE

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.schedule.alpha_sigma(t)

    def predict_noise(self, x_t: Tensor, t: Tensor, conditions: list[Condition]) -> Tensor:
        alpha, sigma = map(expand_like_latents, self.alpha_sigma(t))
        return torch.stack([self.noise_fn(x_t, alpha, sigma, condition) for condition in conditions])


def gaussian_noise_fn(mean: float, std: float) -> NoiseFn:
    """The noise in x_t where clean data is N(mean, deviation^2)."""
    return lambda x_t, alpha, sigma, _: sigma * (x_t - alpha * mean) / ((alpha * std) ** 2 + sigma**2)


def by_condition(text: NoiseFn, uncond: NoiseFn) -> NoiseFn:
    """One answer to a prompt (a token of 1), another to none (0)."""
    return lambda x_t, alpha, sigma, c: (text if float(c.text_embeds[0, 0, 0]) else uncond)(x_t, alpha, sigma, c)


def scalar_views(x: Tensor, noise: Tensor, t: Tensor, seed: int = 0) -> ViewBatch:
    """A view of single numbers, flat [B], as latents."""
    mask = torch.ones(len(x), 1, dtype=torch.bool)
    uncond = Condition(torch.zeros(len(x), 1, 1, dtype=DOUBLE), mask, None)
    text = Condition(torch.ones(len(x), 1, 1, dtype=DOUBLE), mask, None)
    text_with_camera = replace(text, camera=torch.zeros(len(x), 2, dtype=DOUBLE))
    view = ViewBatch.sample(
        expand_like_latents(x), t, ViewConditions(text, uncond, uncond, text_with_camera), make_rng(seed)
    )
    return replace(view, noise=expand_like_latents(noise))


def hermite_nodes(count: int) -> tuple[Tensor, Tensor]:
    """Points and weights of a standard normal."""
    points, weights = np.polynomial.hermite_e.hermegauss(count)
    return torch.from_numpy(points), torch.from_numpy(weights / weights.sum())


def expected_grad(
    objective: Objective,
    prior: Denoiser,
    critic: Denoiser,
    x: Tensor,
    t: float,
    progress: float = 0.0,
    num_nodes: int = 2,
) -> Tensor:
    """E over noise of the gradient at each place; two nodes are exact where answers are linear."""
    points, weights = hermite_nodes(num_nodes)
    view = scalar_views(
        x.repeat_interleave(num_nodes), points.repeat(len(x)), torch.full((len(x) * num_nodes,), t, dtype=DOUBLE)
    )
    grad = objective(prior, critic, replace(view, progress=progress)).grad.flatten()
    return grad.unflatten(0, (len(x), num_nodes)) @ weights


def stationary_moments(
    objective: Objective, prior: Denoiser, critic_of: Callable[[float, float], Denoiser], t: list[float], rounds: int
) -> tuple[float, float]:
    """Mean and deviation where a Gaussian crowd of particles comes to rest; the critic is made anew for each step."""
    z, weights = hermite_nodes(4)
    x = 0.3 + 1.7 * z
    for number in range(rounds):
        mean = float(x @ weights)
        std = math.sqrt(float((x - mean).square() @ weights))
        x = x - 2.0 * expected_grad(objective, prior, critic_of(mean, std), x, t[number % len(t)])
    mean = float(x @ weights)
    return mean, math.sqrt(float((x - mean).square() @ weights))


def alpha_sigma_at(t: float) -> tuple[float, float]:
    alpha, sigma = SCHEDULE.alpha_sigma(torch.tensor([t], dtype=DOUBLE))
    return float(alpha), float(sigma)


@dataclass(frozen=True)
class VarianceExplodingOracle:
    """x_t = x + noise of variance 0.2; the answers and the ratio of two known densities."""

    log_density: Callable[[Tensor], Tensor]
    other: Callable[[Tensor], Tensor] | None = None

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), torch.full_like(t, math.sqrt(0.2))

    def predict_noise(self, x_t: Tensor, t: Tensor, conditions: list[Condition]) -> Tensor:
        with torch.enable_grad():
            place = x_t.detach().requires_grad_()
            (score,) = torch.autograd.grad(self.log_density(place).sum(), place)
        return torch.stack([-math.sqrt(0.2) * score] * len(conditions))

    def density_ratio(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Of the other density over one's own."""
        assert self.other is not None
        return (self.other(x_t) - self.log_density(x_t)).exp().flatten()


def normal(x: Tensor, mean: float, variance: float) -> Tensor:
    return -0.5 * (x - mean) ** 2 / variance - 0.5 * math.log(2 * math.pi * variance)
