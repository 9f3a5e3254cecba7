"""How much signal and noise there is at any fraction of a schedule: Stable Diffusion's, and flow matching's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Schedule(Protocol):
    """Levels of signal and noise: x_t = alpha * x + sigma * noise."""

    def alpha_sigma(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """(alpha, sigma) at fraction `t` in 0..1, 0 clean and 1 noise; times beyond are the ends."""
        ...


@dataclass(frozen=True)
class ScaledLinearSchedule:
    """Betas that are linear in their square root (Rombach et al. 2022); x_t = alpha * x + sigma * noise."""

    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012

    def alphas_cumprod(self) -> Float[Tensor, " T"]:
        """alpha squared at each step, float64."""
        betas = torch.linspace(
            self.beta_start**0.5, self.beta_end**0.5, self.num_train_timesteps, dtype=torch.float64
        ).square()
        return torch.cumprod(1 - betas, 0)

    def alpha_sigma(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """(alpha, sigma) at fraction `t` in 0..1, interpolated between steps in the logarithm of alpha squared."""
        table = self.alphas_cumprod().log().to(t.device)
        position = t.double().clamp(0, 1) * (self.num_train_timesteps - 1)
        index = position.floor().long().clamp(max=self.num_train_timesteps - 2)
        square = torch.lerp(table[index], table[index + 1], position - index).exp()
        return square.sqrt().to(t.dtype), (1 - square).sqrt().to(t.dtype)


@dataclass(frozen=True)
class RectifiedFlowSchedule:
    """The straight line of flow matching: alpha = 1 - tau, sigma = tau (Lipman et al. 2023; Liu et al. 2023)."""

    shift: float = 1.0
    """tau = shift * t / (1 + (shift - 1) * t); above 1 there is more noise at the same fraction, as larger pictures
    need (Esser et al. 2024, eq. 23). Stable Diffusion 3 has 3."""

    def __post_init__(self) -> None:
        if not 0 < self.shift < math.inf:
            raise ValueError(f"shift is {self.shift}; expected a number above 0, such as 3")

    def alpha_sigma(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """(alpha, sigma) at fraction `t` in 0..1."""
        clamped = t.clamp(0, 1)
        tau = self.shift * clamped / (1 + (self.shift - 1) * clamped)
        return 1 - tau, tau
