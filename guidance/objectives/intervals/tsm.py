"""Trajectory Score Matching (Miao et al. 2024, Dreamer XL)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from guidance.objectives.base import About, Update, View
from guidance.objectives.differences.sds import weight
from guidance.objectives.guided import Guided
from guidance.objectives.inversion import approached, check_interval
from guidance.priors.base import Denoiser, per_view


@dataclass(frozen=True)
class TSM(Guided):
    """gradient = sigma / alpha * (guided answer at t - unconditional answer at mu), with mu between s and t.

    mu = s + (t - s) sqrt(1 - gamma^2), and two steps part at s, one to mu and one to t. Where a step is exact, this is
    ISM with the interval t - mu.
    """

    about: ClassVar[About | None] = About(
        title="Trajectory Score Matching",
        source="Miao et al. 2024, Dreamer XL; its released code",
        passes=(4, 9),
        scale="7.5",
        times="0.02 to 0.98 falling to 0.02 to 0.5 over the first 30 %",
        good_for="the interval method with less error of the steps between its two answers",
    )

    scale: float = 7.5
    """Classifier-free guidance in the standard form (1 is none) at t."""
    gamma: float = 0.3
    """0..1: 1 compares with s, which is ISM; 0 with t itself, which leaves the guidance term alone (CSM)."""
    delta: float = 0.08
    """t - s as a part of the schedule. The published runs begin at 0.1 and reach this after 30 % of their steps."""
    stride: float = 0.2
    """Stride of the inversion as a part of the schedule."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self.scale, self.delta, self.stride)
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma is {self.gamma}; expected a number from 0 to 1, such as 0.3")

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        before = approached(prior, view, self.delta, self.stride)
        middle = before.t + (view.t - before.t) * math.sqrt(1 - self.gamma**2)
        x_t = before.step(prior, view.t)
        against, text = prior.predict(x_t, view.t, [view.wanted.negative, view.wanted.text])
        (compared,) = prior.predict(before.step(prior, middle), middle, [view.wanted.empty])
        difference = self.answer(prior, x_t, view.t, against, text, self.scale) - compared
        gradient = per_view(weight("reconstruction", *prior.levels(view.t))) * difference
        return Update(gradient, {"t": float(view.t.mean())})
