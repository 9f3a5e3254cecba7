"""Small exact priors and critics for every role that an objective may ask about, and a count of what it asks.

Shapes: B views of 3 x 4 x 4, K conditions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from guidance.objectives.variational.disback import Staged
from guidance.objectives.variational.f_vsd import Weighing
from guidance.priors.base import Condition, Denoiser, generator
from guidance.priors.gaussian_mixture import ToyPrior
from guidance.priors.schedule import Flow, ScaledLinear

_TEXTS = {
    "": (0.2, 0.3, 0.5),
    "wanted": (0.0, 1.0, 0.1),
    "unwanted": (1.0, 0.2, 0.0),
    "before": (0.1, 0.0, 1.0),
    "left": (1.0, 0.0, 0.3),
    "right": (0.0, 0.5, 0.5),
}


def toy(seed: int, dtype: torch.dtype, flow: bool = False) -> ToyPrior:
    """Three Gaussians over 3 x 4 x 4 pictures; seeds give different ones that know the same texts."""
    means = torch.randn(3, 3, 4, 4, generator=generator(seed), dtype=torch.float64).to(dtype)
    deviations = torch.tensor([0.3, 0.6, 1.0], dtype=dtype)
    return ToyPrior(means, deviations, _TEXTS, Flow() if flow else ScaledLinear())


@dataclass(frozen=True)
class Counted:
    """A `Denoiser` that notes how many answers it gives for a view."""

    inner: Denoiser
    asked: list[int]

    def levels(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        return self.inner.levels(t)

    def predict(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], conditions: list[Condition]
    ) -> Float[Tensor, "K B C h w"]:
        self.asked.append(len(conditions))
        return self.inner.predict(x_t, t, conditions)


@dataclass(frozen=True)
class CountedStages(Counted):
    """One whose stages are counted as itself."""

    inner: Staged

    @property
    def stages(self) -> list[Denoiser]:
        return [Counted(stage, self.asked) for stage in self.inner.stages]


@dataclass(frozen=True)
class CountedRatio(Counted):
    """One whose ratios are answers, too."""

    inner: Weighing

    def ratio(self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition) -> Float[Tensor, " B"]:
        self.asked.append(1)
        return self.inner.ratio(x_t, t, condition)


def counted(inner: Denoiser, asked: list[int]) -> Counted:
    """The same, noting in `asked` how many answers it gives."""
    if isinstance(inner, Staged):
        return CountedStages(inner, asked)
    return CountedRatio(inner, asked) if isinstance(inner, Weighing) else Counted(inner, asked)


@dataclass(frozen=True, kw_only=True)
class ExactStages(ToyPrior):
    """A prior at the end of a way that begins with another."""

    first: ToyPrior

    @property
    def stages(self) -> list[Denoiser]:
        return [self.first, self]


@dataclass(frozen=True, kw_only=True)
class ExactRatio(ToyPrior):
    """A critic that knows the prior's densities as well as its own."""

    prior: ToyPrior

    def ratio(self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition) -> Float[Tensor, " B"]:
        return (self.prior.log_density(x_t, t, condition) - self.log_density(x_t, t, condition)).exp()
