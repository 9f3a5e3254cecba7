"""Exact priors over single numbers, and expected gradients before them by quadrature."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from guidance.conditioning.conditions import ViewConditions
from guidance.objectives.base import Objective, ViewBatch
from guidance.priors.gaussian_mixture import GaussianMixturePrior

STEPS = range(20, 981)
"""The common range, 0.02 to 0.98, as steps of a schedule of 1000; step k is the time k / 999."""


def scalar_mixture(means: list[float], stds: list[float], texts: dict[str, tuple[float, ...]]) -> GaussianMixturePrior:
    """A prior over single numbers, in double precision."""
    double = torch.float64
    return GaussianMixturePrior(
        torch.tensor(means, dtype=double)[:, None, None, None], torch.tensor(stds, dtype=double), texts
    )


def scalar_views(prior: GaussianMixturePrior, x: Tensor, noise: Tensor, t: Tensor) -> ViewBatch:
    """A view that wants "y", and not "n" where the prior knows it."""
    text, uncond = prior.encode_prompt(["y"] * len(x)), prior.encode_prompt([""] * len(x))
    negative = prior.encode_prompt(["n"] * len(x)) if "n" in prior.text_weights else uncond
    view = ViewBatch.sample(x, t, ViewConditions(text, uncond, negative, text), torch.Generator().manual_seed(9))
    return replace(view, noise=noise)


def without_negative(view: ViewBatch) -> ViewBatch:
    """The same without a negative prompt."""
    return replace(view, conditions=replace(view.conditions, negative=view.conditions.uncond))


def random_views(
    prior: GaussianMixturePrior, seed: int, steps: list[int], dtype: torch.dtype = torch.float64
) -> ViewBatch:
    """One view at each step, of pictures and noise from a seed."""
    rng = torch.Generator().manual_seed(seed)
    shape = (len(steps), *prior.means.shape[1:])
    x, noise = (torch.randn(shape, generator=rng, dtype=dtype) for _ in range(2))
    return scalar_views(prior, x, noise, torch.tensor(steps, dtype=dtype) / 999)


def expected_grad(
    prior: GaussianMixturePrior, objective: Objective, positions: list[float], steps: range, nodes: int
) -> list[float]:
    """E over t and noise of the gradient at each place; noise by Gauss-Hermite quadrature."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    t = torch.tensor(list(steps), dtype=torch.float64).repeat_interleave(nodes) / 999
    noise = torch.from_numpy(points).repeat(len(steps))[:, None, None, None]
    node_weights = torch.from_numpy(weights / weights.sum()).repeat(len(steps)) / len(steps)
    grads = []
    for position in positions:
        view = scalar_views(prior, torch.full_like(noise, position), noise, t)
        grads.append(float(objective(prior, prior, view).grad[:, 0, 0, 0] @ node_weights))
    return grads


def fixed_point(prior: GaussianMixturePrior, objective: Objective) -> tuple[float, float]:
    """Where a gradient that is linear in the place and in the noise is zero, and its slope (above 0: it attracts)."""
    at_0, at_1 = expected_grad(prior, objective, [0.0, 1.0], STEPS, 2)
    return at_0 / (at_0 - at_1), at_1 - at_0
