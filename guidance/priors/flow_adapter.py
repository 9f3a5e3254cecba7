"""A diffusion prior that is asked as a flow-matching one, so that objectives made for those have something to ask.

What a network has to be told is how much noise there is for the signal. Flow matching and variance-preserving
diffusion go through the same ratios, at other times and in other units (Karras et al. 2022, section 2; Lipman et al.
2023, section 4.1). So a latent (1 - tau) x + tau noise, scaled, is one that the diffusion prior knows, and its noise
answer is the flow prior's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from guidance.priors.base import Condition, Denoiser, Prior, per_view
from guidance.priors.schedule import Flow, Schedule

HALVINGS = 40
"""Of the schedule, in the search for a time: to 1e-12 of it."""


@dataclass(frozen=True)
class FlowReading:
    """The `Prior` given, with straight levels: alpha + sigma = 1.

    A ratio beyond those that the prior was trained on, at the two ends, is answered as the nearest it knows.
    """

    prior: Prior
    schedule: Schedule = field(default_factory=Flow)

    @property
    def picture_size(self) -> int:
        return self.prior.picture_size

    @property
    def sees_camera(self) -> bool:
        return self.prior.sees_camera

    def levels(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        return self.schedule.levels(t)

    def predict(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], conditions: list[Condition]
    ) -> Float[Tensor, "K B C h w"]:
        alpha, sigma = self.levels(t.double())
        then = time_of(self.prior, alpha, sigma)
        scale = torch.hypot(*self.prior.levels(then)) / torch.hypot(alpha, sigma)
        return self.prior.predict(x_t * per_view(scale).to(x_t.dtype), then.to(t.dtype), conditions)

    def read(self, texts: list[str]) -> Condition:
        return self.prior.read(texts)

    def check(self, text: str) -> str | None:
        return self.prior.check(text)

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        return self.prior.encode(rgb)

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        return self.prior.decode(latents)


def time_of(prior: Denoiser, alpha: Float[Tensor, " B"], sigma: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """When a prior has these levels' ratio of noise to signal, or the nearest to it that it ever has."""
    low, high = torch.zeros_like(sigma), torch.ones_like(sigma)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        signal, noise = prior.levels(middle)
        later = noise * alpha < sigma * signal
        low, high = torch.where(later, middle, low), torch.where(later, high, middle)
    return (low + high) / 2
