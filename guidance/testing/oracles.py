"""Small exact priors and critics for every role that an objective may ask about, and a count of what it asks.

Shapes: B views of 3 x 4 x 4, K conditions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from guidance.objectives.variational.disback import StagedPrior
from guidance.objectives.variational.f_vsd import DensityRatioCritic
from guidance.priors.base import Condition, Denoiser, make_rng
from guidance.priors.gaussian_mixture import GaussianMixturePrior
from guidance.priors.schedule import RectifiedFlowSchedule, ScaledLinearSchedule

_TEXTS = {
    "": (0.2, 0.3, 0.5),
    "wanted": (0.0, 1.0, 0.1),
    "unwanted": (1.0, 0.2, 0.0),
    "before": (0.1, 0.0, 1.0),
    "left": (1.0, 0.0, 0.3),
    "right": (0.0, 0.5, 0.5),
}


def mixture_oracle(seed: int, dtype: torch.dtype, flow: bool = False) -> GaussianMixturePrior:
    """Three Gaussians over 3 x 4 x 4 pictures; seeds give different ones that know the same texts."""
    means = torch.randn(3, 3, 4, 4, generator=make_rng(seed), dtype=torch.float64).to(dtype)
    stds = torch.tensor([0.3, 0.6, 1.0], dtype=dtype)
    return GaussianMixturePrior(means, stds, _TEXTS, RectifiedFlowSchedule() if flow else ScaledLinearSchedule())


@dataclass(frozen=True)
class CountingDenoiser:
    """A `Denoiser` that notes how many answers it gives for a view."""

    inner: Denoiser
    calls: list[int]

    def alpha_sigma(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        return self.inner.alpha_sigma(t)

    def predict_noise(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], conditions: list[Condition]
    ) -> Float[Tensor, "K B C h w"]:
        self.calls.append(len(conditions))
        return self.inner.predict_noise(x_t, t, conditions)


@dataclass(frozen=True)
class CountingStages(CountingDenoiser):
    """One whose stages are counted as itself."""

    inner: StagedPrior

    @property
    def stages(self) -> list[Denoiser]:
        return [CountingDenoiser(stage, self.calls) for stage in self.inner.stages]


@dataclass(frozen=True)
class CountingRatio(CountingDenoiser):
    """One whose ratios are answers, too."""

    inner: DensityRatioCritic

    def density_ratio(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition
    ) -> Float[Tensor, " B"]:
        self.calls.append(1)
        return self.inner.density_ratio(x_t, t, condition)


def count_calls(inner: Denoiser, calls: list[int]) -> CountingDenoiser:
    """The same, noting in `calls` how many answers it gives."""
    if isinstance(inner, StagedPrior):
        return CountingStages(inner, calls)
    return CountingRatio(inner, calls) if isinstance(inner, DensityRatioCritic) else CountingDenoiser(inner, calls)


@dataclass(frozen=True, kw_only=True)
class StagedOracle(GaussianMixturePrior):
    """A prior at the end of a way that begins with another."""

    first: GaussianMixturePrior

    @property
    def stages(self) -> list[Denoiser]:
        return [self.first, self]


@dataclass(frozen=True, kw_only=True)
class DensityRatioOracle(GaussianMixturePrior):
    """A critic that knows the prior's densities as well as its own."""

    prior: GaussianMixturePrior

    def density_ratio(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition
    ) -> Float[Tensor, " B"]:
        return (self.prior.log_density(x_t, t, condition) - self.log_density(x_t, t, condition)).exp()
