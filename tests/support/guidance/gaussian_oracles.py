"""Exact priors over single numbers, and expected gradients before them by quadrature."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from guidance.objectives.base import Objective, View, Wanted
from guidance.priors.gaussian_mixture import ToyPrior

STEPS = range(20, 981)
"""The common range, 0.02 to 0.98, as steps of a schedule of 1000; step k is the time k / 999."""


def line(means: list[float], deviations: list[float], texts: dict[str, tuple[float, ...]]) -> ToyPrior:
    """A prior over single numbers, in double precision."""
    double = torch.float64
    return ToyPrior(
        torch.tensor(means, dtype=double)[:, None, None, None], torch.tensor(deviations, dtype=double), texts
    )


def look(prior: ToyPrior, x: Tensor, noise: Tensor, t: Tensor) -> View:
    """A view that wants "y", and not "n" where the prior knows it."""
    text, empty = prior.read(["y"] * len(x)), prior.read([""] * len(x))
    negative = prior.read(["n"] * len(x)) if "n" in prior.texts else empty
    view = View.drawn(x, t, Wanted(text, empty, negative, text), torch.Generator().manual_seed(9))
    return replace(view, noise=noise)


def bare(view: View) -> View:
    """The same without a negative prompt."""
    return replace(view, wanted=replace(view.wanted, negative=view.wanted.empty))


def random_look(prior: ToyPrior, seed: int, steps: list[int], dtype: torch.dtype = torch.float64) -> View:
    """One view at each step, of pictures and noise from a seed."""
    chance = torch.Generator().manual_seed(seed)
    shape = (len(steps), *prior.means.shape[1:])
    x, noise = (torch.randn(shape, generator=chance, dtype=dtype) for _ in range(2))
    return look(prior, x, noise, torch.tensor(steps, dtype=dtype) / 999)


def mean_gradient(prior: ToyPrior, objective: Objective, places: list[float], steps: range, nodes: int) -> list[float]:
    """E over t and noise of the gradient at each place; noise by Gauss-Hermite quadrature."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    t = torch.tensor(list(steps), dtype=torch.float64).repeat_interleave(nodes) / 999
    noise = torch.from_numpy(points).repeat(len(steps))[:, None, None, None]
    share = torch.from_numpy(weights / weights.sum()).repeat(len(steps)) / len(steps)
    found = []
    for place in places:
        view = look(prior, torch.full_like(noise, place), noise, t)
        found.append(float(objective(prior, prior, view).gradient[:, 0, 0, 0] @ share))
    return found


def resting(prior: ToyPrior, objective: Objective) -> tuple[float, float]:
    """Where a gradient that is linear in the place and in the noise is zero, and its slope (above 0: it attracts)."""
    at_0, at_1 = mean_gradient(prior, objective, [0.0, 1.0], STEPS, 2)
    return at_0 / (at_0 - at_1), at_1 - at_0
