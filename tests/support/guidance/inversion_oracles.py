"""Exact priors, views and flows that tests of inversion share."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from guidance.conditioning.conditions import ViewConditions
from guidance.objectives import inversion
from guidance.objectives.base import Objective, ViewBatch
from guidance.objectives.intervals import sdi
from guidance.priors.base import Condition
from guidance.priors.gaussian_mixture import GaussianMixturePrior
from guidance.priors.schedule import ScaledLinearSchedule, Schedule

T, S = 400 / 999, 340 / 999


def scalar_mixture(
    means: list[float], stds: list[float], texts: dict[str, tuple[float, ...]], schedule: Schedule | None = None
) -> GaussianMixturePrior:
    """A prior over single numbers, in double precision."""
    centers = torch.tensor(means, dtype=torch.float64)[:, None, None, None]
    return GaussianMixturePrior(
        centers, torch.tensor(stds, dtype=torch.float64), texts, schedule or ScaledLinearSchedule()
    )


def numbered_views(prior: GaussianMixturePrior, x: Tensor, t: Tensor, seed: int = 0) -> ViewBatch:
    """A view of each row; its number stands in place of the azimuth, which the toy prior does not see."""
    numbers = torch.stack([torch.arange(len(x)), torch.zeros(len(x))], -1)
    text, uncond = (replace(prior.encode_prompt([word] * len(x)), camera=numbers) for word in ("y", ""))
    return ViewBatch.sample(x, t, ViewConditions(text, uncond, uncond, text), torch.Generator().manual_seed(seed))


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None, None, None]


@dataclass
class RecordingPrior:
    """Passes questions on to a prior, and keeps them."""

    prior: GaussianMixturePrior
    calls: list[tuple[Tensor, list[Condition]]]

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.prior.alpha_sigma(t)

    def predict_noise(self, x_t: Tensor, t: Tensor, conditions: list[Condition]) -> Tensor:
        self.calls.append((t, conditions))
        return self.prior.predict_noise(x_t, t, conditions)

    def passes_per_view(self) -> Counter[int]:
        """Answers that each view took."""
        all_conditions = [condition for _, conditions in self.calls for condition in conditions]
        return Counter(int(number) for condition in all_conditions for number in condition.camera[:, 0])


def three_component_prior() -> GaussianMixturePrior:
    """Three components over 3 x 4 x 4 pictures."""
    means = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    stds = torch.tensor([0.3, 0.6, 1.0], dtype=torch.float64)
    return GaussianMixturePrior(means, stds, {"": (0.2, 0.3, 0.5), "y": (0.0, 1.0, 0.1)})


def six_views(prior: GaussianMixturePrior) -> ViewBatch:
    x = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return numbered_views(prior, x, torch.tensor([0.05, 0.4, 0.28, 0.6, 0.98, 0.02], dtype=torch.float64))


def patch_ddim_with_exact_flow(monkeypatch: pytest.MonkeyPatch, prior: GaussianMixturePrior, text: str = "") -> None:
    """Every step of an inversion goes along the exact flow of `text` instead."""

    def exact(_: object, x_t: Tensor, noise: Tensor, now: Tensor | None, then: Tensor) -> Tensor:
        return prior.flow_map(x_t, now, then, prior.encode_prompt([text] * len(x_t)), 30)

    for module in (inversion, sdi):
        monkeypatch.setattr(module, "ddim_step", exact)


def fixed_point(prior: GaussianMixturePrior, objective: Objective, t: float = T) -> float:
    """Where the gradient, linear in x, is nothing."""
    view = numbered_views(prior, column(0, 1), torch.full((2,), t, dtype=torch.float64))
    at_0, at_1 = objective(prior, prior, view).grad.flatten().tolist()
    assert at_1 > at_0
    return float(at_0 / (at_0 - at_1))


def two_gaussians(uncond_mean: float, text_mean: float, std: float) -> GaussianMixturePrior:
    return scalar_mixture([uncond_mean, text_mean], [std, std], {"": (1, 0), "y": (0, 1)})


def alpha_sigma_at(prior: GaussianMixturePrior, t: float) -> tuple[float, float]:
    alpha, sigma = prior.alpha_sigma(torch.tensor([t], dtype=torch.float64))
    return float(alpha), float(sigma)
