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
class Times(ABC):
    """A rule for the noise times of a step. Fields are its knobs; subclasses are final."""

    about: ClassVar[str] = ""
    """One line for the help."""

    @abstractmethod
    def draw(self, count: int, progress: float, rng: torch.Generator) -> Float[Tensor, " B"]:
        """`count` times at `progress` 0..1."""

    @abstractmethod
    def lowest(self, progress: float) -> float:
        """The lower end of what `draw` draws from at `progress`; of the whole run where it draws nothing by chance."""


@dataclass(frozen=True)
class Falling(Times):
    """Uniform between two bounds that move in a straight line from the `first` pair to the `last`.

    Equal pairs give DreamFusion's constant range (0.02 to 0.98).
    """

    about: ClassVar[str] = "uniform in a range that moves in a straight line (MVDream, ScaleDreamer)"

    first: tuple[float, float] = (0.5, 0.98)
    """Lowest and highest fraction of the schedule at the start."""
    last: tuple[float, float] = (0.02, 0.4)
    """Lowest and highest fraction at the end."""
    until: float = 1.0
    """Progress, above 0 to 1, at which the end is reached; the range stays there."""

    def __post_init__(self) -> None:
        _check(self.first, self.last)
        if not 0 < self.until <= 1:
            raise ValueError(f"until is {self.until}; expected a progress above 0, up to 1")

    def lowest(self, progress: float) -> float:
        return self._range(progress)[0]

    def draw(self, count: int, progress: float, rng: torch.Generator) -> Float[Tensor, " B"]:
        return _spread(count, *self._range(progress), rng)

    def _range(self, progress: float) -> tuple[float, float]:
        share = min(progress / self.until, 1.0)
        low, high = (a + (b - a) * share for a, b in zip(self.first, self.last, strict=True))
        return low, high


@dataclass(frozen=True)
class Dropping(Times):
    """Uniform between two bounds that change once (ProlificDreamer: after a fifth of its 25000 steps)."""

    about: ClassVar[str] = "uniform in a range that changes once (ProlificDreamer, CSD)"

    first: tuple[float, float] = (0.02, 0.98)
    """Lowest and highest fraction of the schedule before the change."""
    last: tuple[float, float] = (0.02, 0.5)
    """Lowest and highest fraction from then on."""
    at: float = 0.2
    """Progress, 0 to 1, of the change."""

    def __post_init__(self) -> None:
        _check(self.first, self.last)
        if not 0 <= self.at <= 1:
            raise ValueError(f"at is {self.at}; expected a progress from 0 to 1")

    def lowest(self, progress: float) -> float:
        return self._range(progress)[0]

    def draw(self, count: int, progress: float, rng: torch.Generator) -> Float[Tensor, " B"]:
        return _spread(count, *self._range(progress), rng)

    def _range(self, progress: float) -> tuple[float, float]:
        return self.first if progress < self.at else self.last


@dataclass(frozen=True)
class Linear(Times):
    """One time for all views of a step, falling in a straight line (SDI)."""

    about: ClassVar[str] = "no chance: falls in a straight line (SDI)"

    high: float = 0.98
    """Fraction of the schedule at the start."""
    low: float = 0.25
    """Fraction at the end."""

    def __post_init__(self) -> None:
        _check((self.low, self.high))

    def lowest(self, progress: float) -> float:
        return self.low

    def draw(self, count: int, progress: float, rng: torch.Generator) -> Float[Tensor, " B"]:
        return torch.full((count,), self.high + (self.low - self.high) * progress)


@dataclass(frozen=True)
class SquareRoot(Times):
    """One time for all views of a step: low + (high - low) * (1 - sqrt(progress)) (HiFA, section 3.3)."""

    about: ClassVar[str] = "no chance: falls fast at first, then slowly (HiFA)"

    high: float = 0.98
    """Fraction of the schedule at the start."""
    low: float = 0.3
    """Fraction at the end."""

    def __post_init__(self) -> None:
        _check((self.low, self.high))

    def lowest(self, progress: float) -> float:
        return self.low

    def draw(self, count: int, progress: float, rng: torch.Generator) -> Float[Tensor, " B"]:
        return torch.full((count,), self.low + (self.high - self.low) * (1 - math.sqrt(progress)))


@dataclass(frozen=True)
class DreamTime(Times):
    """One time for all views of a step, falling slowly where it matters most (DreamTime, Huang et al. 2023).

    The share of the run spent below a time is the share of a weight W there: 1 on a plateau, falling off as Gaussians
    beside it. W is the paper's prior weight W_p, in the numbers of PGC-3D; a plateau from 0 to 1 makes the fall a
    straight line.
    """

    about: ClassVar[str] = "no chance: falls slowly where shape and content form (DreamTime)"

    high: float = 0.98
    """Fraction of the schedule at the start."""
    low: float = 0.02
    """Fraction at the end."""
    plateau: tuple[float, float] = (0.5, 0.8)
    """Lowest and highest fraction of full weight."""
    below: float = 0.1
    """Deviation of the Gaussian below the plateau."""
    above: float = 0.3
    """Deviation of the Gaussian above it."""

    def __post_init__(self) -> None:
        _check((self.low, self.high), self.plateau)
        for name in ("below", "above"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a positive number")
        if self.low < self.high and not self._weight_to(self.high) > self._weight_to(self.low):
            raise ValueError(f"times {self.low} to {self.high} have no weight; expected them near the plateau")

    def lowest(self, progress: float) -> float:
        return self.low

    def draw(self, count: int, progress: float, rng: torch.Generator) -> Float[Tensor, " B"]:
        return torch.full((count,), self._time(progress))

    def _time(self, progress: float) -> float:
        """Where the weight between there and `high` is the share `progress` of all, by bisection."""
        end = self._weight_to(self.high)
        wanted = end - progress * (end - self._weight_to(self.low))
        low, high = self.low, self.high
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self._weight_to(middle) < wanted else (low, middle)
        return high

    def _weight_to(self, t: float) -> float:
        """The integral of W from the lower end of the plateau to `t`."""
        start, end = self.plateau
        flat = min(max(t, start), end) - start
        return flat + _flank(max(t - end, 0.0), self.above) - _flank(max(start - t, 0.0), self.below)


def _flank(distance: float, deviation: float) -> float:
    """The integral of exp(-d^2 / (2 deviation^2)) over d from 0 to `distance`."""
    return deviation * math.sqrt(math.pi / 2) * math.erf(distance / (deviation * math.sqrt(2)))


def _spread(count: int, low: float, high: float, rng: torch.Generator) -> Float[Tensor, " B"]:
    """`count` times, one in each of as many equal parts of the range, in any order."""
    place = (torch.randperm(count, generator=rng) + torch.rand(count, generator=rng)) / count
    return low + (high - low) * place


def _check(*ranges: tuple[float, float]) -> None:
    for low, high in ranges:
        if not 0 <= low <= high <= 1:
            raise ValueError(f"noise times {low} to {high}: expected 0 <= low <= high <= 1")
