"""Exact priors, views and flows that tests of inversion share."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from guidance.objectives import inversion
from guidance.objectives.base import Objective, View, Wanted
from guidance.objectives.intervals import sdi
from guidance.priors.base import Condition
from guidance.priors.gaussian_mixture import ToyPrior
from guidance.priors.schedule import ScaledLinear, Schedule

T, S = 400 / 999, 340 / 999


def line(
    means: list[float], deviations: list[float], texts: dict[str, tuple[float, ...]], schedule: Schedule | None = None
) -> ToyPrior:
    """A prior over single numbers, in double precision."""
    places = torch.tensor(means, dtype=torch.float64)[:, None, None, None]
    return ToyPrior(places, torch.tensor(deviations, dtype=torch.float64), texts, schedule or ScaledLinear())


def look(prior: ToyPrior, x: Tensor, t: Tensor, seed: int = 0) -> View:
    """A view of each row; its number stands in place of the azimuth, which the toy prior does not see."""
    place = torch.stack([torch.arange(len(x)), torch.zeros(len(x))], -1)
    text, empty = (replace(prior.read([word] * len(x)), camera=place) for word in ("y", ""))
    return View.drawn(x, t, Wanted(text, empty, empty, text), torch.Generator().manual_seed(seed))


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None, None, None]


@dataclass
class Watching:
    """Passes questions on to a prior, and keeps them."""

    prior: ToyPrior
    asked: list[tuple[Tensor, list[Condition]]]

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.prior.levels(t)

    def predict(self, x_t: Tensor, t: Tensor, conditions: list[Condition]) -> Tensor:
        self.asked.append((t, conditions))
        return self.prior.predict(x_t, t, conditions)

    def passes(self) -> Counter[int]:
        """Answers that each view took."""
        asked = [condition for _, conditions in self.asked for condition in conditions]
        return Counter(int(number) for condition in asked for number in condition.camera[:, 0])


def three_blobs() -> ToyPrior:
    """Three components over 3 x 4 x 4 pictures."""
    means = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    deviations = torch.tensor([0.3, 0.6, 1.0], dtype=torch.float64)
    return ToyPrior(means, deviations, {"": (0.2, 0.3, 0.5), "y": (0.0, 1.0, 0.1)})


def six_views(prior: ToyPrior) -> View:
    x = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return look(prior, x, torch.tensor([0.05, 0.4, 0.28, 0.6, 0.98, 0.02], dtype=torch.float64))


def take_the_exact_flow(monkeypatch: pytest.MonkeyPatch, prior: ToyPrior, text: str = "") -> None:
    """Every step of an inversion goes along the exact flow of `text` instead."""

    def exact(_: object, x_t: Tensor, noise: Tensor, now: Tensor | None, then: Tensor) -> Tensor:
        return prior.flow_map(x_t, now, then, prior.read([text] * len(x_t)), 30)

    for module in (inversion, sdi):
        monkeypatch.setattr(module, "ddim", exact)


def resting(prior: ToyPrior, objective: Objective, t: float = T) -> float:
    """Where the gradient, linear in x, is nothing."""
    view = look(prior, column(0, 1), torch.full((2,), t, dtype=torch.float64))
    at_0, at_1 = objective(prior, prior, view).gradient.flatten().tolist()
    assert at_1 > at_0
    return float(at_0 / (at_0 - at_1))


def two(null: float, wanted: float, std: float) -> ToyPrior:
    return line([null, wanted], [std, std], {"": (1, 0), "y": (0, 1)})


def levels(prior: ToyPrior, t: float) -> tuple[float, float]:
    alpha, sigma = prior.levels(torch.tensor([t], dtype=torch.float64))
    return float(alpha), float(sigma)
