"""Priors and critics known as formulas, and crowds of particles that objectives move among them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from guidance.objectives.base import Objective, View, Wanted
from guidance.priors.base import Condition, Denoiser, generator, per_view
from guidance.priors.schedule import ScaledLinear

DOUBLE = torch.float64
SCHEDULE = ScaledLinear()
Answer = Callable[[Tensor, Tensor, Tensor, Condition], Tensor]


@dataclass(frozen=True)
class Known:
    """A `Denoiser` whose answer is a formula of x_t, alpha, sigma (shaped to multiply latents) and the condition."""

    answer: Answer
    schedule: ScaledLinear = SCHEDULE

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.schedule.levels(t)

    def predict(self, x_t: Tensor, t: Tensor, conditions: list[Condition]) -> Tensor:
        alpha, sigma = map(per_view, self.levels(t))
        return torch.stack([self.answer(x_t, alpha, sigma, condition) for condition in conditions])


def gaussian(mean: float, deviation: float) -> Answer:
    """The noise in x_t where clean data is N(mean, deviation^2)."""
    return lambda x_t, alpha, sigma, _: sigma * (x_t - alpha * mean) / ((alpha * deviation) ** 2 + sigma**2)


def by_text(text: Answer, empty: Answer) -> Answer:
    """One answer to a prompt (a token of 1), another to none (0)."""
    return lambda x_t, alpha, sigma, c: (text if float(c.tokens[0, 0, 0]) else empty)(x_t, alpha, sigma, c)


def look(x: Tensor, noise: Tensor, t: Tensor, seed: int = 0) -> View:
    """A view of single numbers, flat [B], as latents."""
    mask = torch.ones(len(x), 1, dtype=torch.bool)
    empty = Condition(torch.zeros(len(x), 1, 1, dtype=DOUBLE), mask, None)
    text = Condition(torch.ones(len(x), 1, 1, dtype=DOUBLE), mask, None)
    posed = replace(text, camera=torch.zeros(len(x), 2, dtype=DOUBLE))
    view = View.drawn(per_view(x), t, Wanted(text, empty, empty, posed), generator(seed))
    return replace(view, noise=per_view(noise))


def nodes(count: int) -> tuple[Tensor, Tensor]:
    """Points and weights of a standard normal."""
    points, weights = np.polynomial.hermite_e.hermegauss(count)
    return torch.from_numpy(points), torch.from_numpy(weights / weights.sum())


def mean_pull(
    objective: Objective, prior: Denoiser, critic: Denoiser, x: Tensor, t: float, progress: float = 0.0, many: int = 2
) -> Tensor:
    """E over noise of the gradient at each place; two nodes are exact where answers are linear."""
    points, weights = nodes(many)
    view = look(x.repeat_interleave(many), points.repeat(len(x)), torch.full((len(x) * many,), t, dtype=DOUBLE))
    gradient = objective(prior, critic, replace(view, progress=progress)).gradient.flatten()
    return gradient.unflatten(0, (len(x), many)) @ weights


def settled(
    objective: Objective, prior: Denoiser, critic_of: Callable[[float, float], Denoiser], t: list[float], rounds: int
) -> tuple[float, float]:
    """Mean and deviation where a Gaussian crowd of particles comes to rest; the critic is made anew for each step."""
    z, weights = nodes(4)
    x = 0.3 + 1.7 * z
    for number in range(rounds):
        mean = float(x @ weights)
        deviation = math.sqrt(float((x - mean).square() @ weights))
        x = x - 2.0 * mean_pull(objective, prior, critic_of(mean, deviation), x, t[number % len(t)])
    mean = float(x @ weights)
    return mean, math.sqrt(float((x - mean).square() @ weights))


def levels_at(t: float) -> tuple[float, float]:
    alpha, sigma = SCHEDULE.levels(torch.tensor([t], dtype=DOUBLE))
    return float(alpha), float(sigma)


@dataclass(frozen=True)
class Exploding:
    """x_t = x + noise of variance 0.2; the answers and the ratio of two known densities."""

    log_density: Callable[[Tensor], Tensor]
    other: Callable[[Tensor], Tensor] | None = None

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), torch.full_like(t, math.sqrt(0.2))

    def predict(self, x_t: Tensor, t: Tensor, conditions: list[Condition]) -> Tensor:
        with torch.enable_grad():
            place = x_t.detach().requires_grad_()
            (score,) = torch.autograd.grad(self.log_density(place).sum(), place)
        return torch.stack([-math.sqrt(0.2) * score] * len(conditions))

    def ratio(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Of the other density over one's own."""
        assert self.other is not None
        return (self.other(x_t) - self.log_density(x_t)).exp().flatten()


def normal(x: Tensor, mean: float, variance: float) -> Tensor:
    return -0.5 * (x - mean) ** 2 / variance - 0.5 * math.log(2 * math.pi * variance)
