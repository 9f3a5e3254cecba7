"""What a critic adds to the velocity of a prior in closed form: convolutions, which say nothing until they learn."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class VelocityCorrection(nn.Module):
    """Noised latents, the clean ones that are expected, and the time, to a change of the velocity."""

    target_modules = ("enter", "first", "second", "leave")
    """Names of its convolutions."""

    def __init__(self, channels: int, width: int = 96) -> None:
        super().__init__()
        self.enter = nn.Conv2d(2 * channels, width, 1)
        self.time = nn.Linear(32, width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.leave = nn.Conv2d(width, channels, 1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(
        self, x_t: Float[Tensor, "B C G G"], clean: Float[Tensor, "B C G G"], t: Float[Tensor, " B"]
    ) -> Float[Tensor, "B C G G"]:
        angles = t[:, None] * torch.exp(torch.linspace(0.0, math.log(200.0), 16, device=t.device))
        h = (
            self.enter(torch.cat([x_t, clean], 1))
            + self.time(torch.cat([angles.sin(), angles.cos()], -1))[..., None, None]
        )
        h = h + self.first(F.silu(h))
        h = h + self.second(F.silu(h))
        return self.leave(F.silu(h))  # type: ignore[no-any-return]
