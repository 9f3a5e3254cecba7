"""The noise schedule that Stable Diffusion made common, at any fraction of its steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class ScaledLinear:
    """Betas that are linear in their square root (Rombach et al. 2022); x_t = alpha * x + sigma * noise."""

    steps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012

    def alphas_cumprod(self) -> Float[Tensor, " T"]:
        """alpha squared at each step, float64."""
        betas = torch.linspace(self.beta_start**0.5, self.beta_end**0.5, self.steps, dtype=torch.float64).square()
        return torch.cumprod(1 - betas, 0)

    def levels(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """(alpha, sigma) at fraction `t` in 0..1, interpolated between steps in the logarithm of alpha squared."""
        table = self.alphas_cumprod().log().to(t.device)
        place = t.double().clamp(0, 1) * (self.steps - 1)
        low = place.floor().long().clamp(max=self.steps - 2)
        square = torch.lerp(table[low], table[low + 1], place - low).exp()
        return square.sqrt().to(t.dtype), (1 - square).sqrt().to(t.dtype)
