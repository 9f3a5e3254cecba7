"""How noise times are drawn.

Times are fractions of the noise schedule, 0 clean to 1 noise; progress is of the run, 0 to 1. Early steps at high
times settle the shape, late ones at low times the detail.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class TimestepSampler(ABC):
    """A rule for the noise times of a step. Fields are its knobs; subclasses are final."""

    summary: ClassVar[str] = ""
    """One line for the help."""

    @abstractmethod
    def sample(self, count: int, progress: float, rng: torch.Generator) -> Float[Tensor, " B"]:
        """`count` times at `progress` 0..1."""

    @abstractmethod
    def lower_bound(self, progress: float) -> float:
        """The lower end of what `draw` draws from at `progress`; of the whole run where it draws nothing by chance."""


@dataclass(frozen=True)
class AnnealedUniform(TimestepSampler):
    """Uniform between two bounds that move in a straight line from the `first` pair to the `last`.

    Equal pairs give DreamFusion's constant range (0.02 to 0.98).
    """

    summary: ClassVar[str] = "uniform in a range that moves in a straight line (MVDream, ScaleDreamer)"

    start_range: tuple[float, float] = (0.5, 0.98)
    """Lowest and highest fraction of the schedule at the start."""
    end_range: tuple[float, float] = (0.02, 0.4)
    """Lowest and highest fraction at the end."""
    anneal_until: float = 1.0
    """Progress, above 0 to 1, at which the end is reached; the range stays there."""

    def __post_init__(self) -> None:
        _validate_ranges(self.start_range, self.end_range)
        if not 0 < self.anneal_until <= 1:
            raise ValueError(f"anneal_until is {self.anneal_until}; expected a progress above 0, up to 1")

    def lower_bound(self, progress: float) -> float:
        return self._range(progress)[0]

    def sample(self, count: int, progress: float, rng: torch.Generator) -> Float[Tensor, " B"]:
        return _stratified(count, *self._range(progress), rng)

    def _range(self, progress: float) -> tuple[float, float]:
        fraction = min(progress / self.anneal_until, 1.0)
        low, high = (a + (b - a) * fraction for a, b in zip(self.start_range, self.end_range, strict=True))
        return low, high


@dataclass(frozen=True)
class TwoStageUniform(TimestepSampler):
    """Uniform between two bounds that change once (ProlificDreamer: after a fifth of its 25000 steps)."""

    summary: ClassVar[str] = "uniform in a range that changes once (ProlificDreamer, CSD)"

    start_range: tuple[float, float] = (0.02, 0.98)
    """Lowest and highest fraction of the schedule before the change."""
    end_range: tuple[float, float] = (0.02, 0.5)
    """Lowest and highest fraction from then on."""
    switch_at: float = 0.2
    """Progress, 0 to 1, of the change."""

    def __post_init__(self) -> None:
        _validate_ranges(self.start_range, self.end_range)
        if not 0 <= self.switch_at <= 1:
            raise ValueError(f"switch_at is {self.switch_at}; expected a progress from 0 to 1")

    def lower_bound(self, progress: float) -> float:
        return self._range(progress)[0]

    def sample(self, count: int, progress: float, rng: torch.Generator) -> Float[Tensor, " B"]:
        return _stratified(count, *self._range(progress), rng)

    def _range(self, progress: float) -> tuple[float, float]:
        return self.start_range if progress < self.switch_at else self.end_range


@dataclass(frozen=True)
class LinearAnneal(TimestepSampler):
    """One time for all views of a step, falling in a straight line (SDI)."""

    summary: ClassVar[str] = "no chance: falls in a straight line (SDI)"

    t_max: float = 0.98
    """Fraction of the schedule at the start."""
    t_min: float = 0.25
    """Fraction at the end."""

    def __post_init__(self) -> None:
        _validate_ranges((self.t_min, self.t_max))

    def lower_bound(self, progress: float) -> float:
        return self.t_min

    def sample(self, count: int, progress: float, rng: torch.Generator) -> Float[Tensor, " B"]:
        return torch.full((count,), self.t_max + (self.t_min - self.t_max) * progress)


@dataclass(frozen=True)
class SqrtAnneal(TimestepSampler):
    """One time for all views of a step: low + (high - low) * (1 - sqrt(progress)) (HiFA, section 3.3)."""

    summary: ClassVar[str] = "no chance: falls fast at first, then slowly (HiFA)"

    t_max: float = 0.98
    """Fraction of the schedule at the start."""
    t_min: float = 0.3
    """Fraction at the end."""

    def __post_init__(self) -> None:
        _validate_ranges((self.t_min, self.t_max))

    def lower_bound(self, progress: float) -> float:
        return self.t_min

    def sample(self, count: int, progress: float, rng: torch.Generator) -> Float[Tensor, " B"]:
        return torch.full((count,), self.t_min + (self.t_max - self.t_min) * (1 - math.sqrt(progress)))


@dataclass(frozen=True)
class DreamTime(TimestepSampler):
    """One time for all views of a step, falling slowly where it matters most (DreamTime, Huang et al. 2023).

    The share of the run spent below a time is the share of a weight W there: 1 on a plateau, falling off as Gaussians
    beside it. W is the paper's prior weight W_p, in the numbers of PGC-3D; a plateau from 0 to 1 makes the fall a
    straight line.
    """

    summary: ClassVar[str] = "no chance: falls slowly where shape and content form (DreamTime)"

    t_max: float = 0.98
    """Fraction of the schedule at the start."""
    t_min: float = 0.02
    """Fraction at the end."""
    plateau: tuple[float, float] = (0.5, 0.8)
    """Lowest and highest fraction of full weight."""
    std_below: float = 0.1
    """Deviation of the Gaussian below the plateau."""
    std_above: float = 0.3
    """Deviation of the Gaussian above it."""

    def __post_init__(self) -> None:
        _validate_ranges((self.t_min, self.t_max), self.plateau)
        for name in ("std_below", "std_above"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a positive number")
        if self.t_min < self.t_max and not self._cumulative_weight(self.t_max) > self._cumulative_weight(self.t_min):
            raise ValueError(f"times {self.t_min} to {self.t_max} have no weight; expected them near the plateau")

    def lower_bound(self, progress: float) -> float:
        return self.t_min

    def sample(self, count: int, progress: float, rng: torch.Generator) -> Float[Tensor, " B"]:
        return torch.full((count,), self._t_at(progress))

    def _t_at(self, progress: float) -> float:
        """Where the weight between there and `high` is the share `progress` of all, by bisection."""
        end = self._cumulative_weight(self.t_max)
        target = end - progress * (end - self._cumulative_weight(self.t_min))
        low, high = self.t_min, self.t_max
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self._cumulative_weight(middle) < target else (low, middle)
        return high

    def _cumulative_weight(self, t: float) -> float:
        """The integral of W from the lower end of the plateau to `t`."""
        start, end = self.plateau
        on_plateau = min(max(t, start), end) - start
        return (
            on_plateau
            + _gaussian_integral(max(t - end, 0.0), self.std_above)
            - _gaussian_integral(max(start - t, 0.0), self.std_below)
        )


def _gaussian_integral(distance: float, std: float) -> float:
    """The integral of exp(-d^2 / (2 deviation^2)) over d from 0 to `distance`."""
    return std * math.sqrt(math.pi / 2) * math.erf(distance / (std * math.sqrt(2)))


def _stratified(count: int, low: float, high: float, rng: torch.Generator) -> Float[Tensor, " B"]:
    """`count` times, one in each of as many equal parts of the range, in any order."""
    positions = (torch.randperm(count, generator=rng) + torch.rand(count, generator=rng)) / count
    return low + (high - low) * positions


def _validate_ranges(*ranges: tuple[float, float]) -> None:
    for low, high in ranges:
        if not 0 <= low <= high <= 1:
            raise ValueError(f"noise times {low} to {high}: expected 0 <= low <= high <= 1")
