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

from guidance.priors.base import Condition, Denoiser, Prior, expand_like_latents
from guidance.priors.schedule import RectifiedFlowSchedule, Schedule

BISECTION_STEPS = 40
"""Of the schedule, in the search for a time: to 1e-12 of it."""


@dataclass(frozen=True)
class FlowMatchingAdapter:
    """The `Prior` given, with straight levels: alpha + sigma = 1.

    A ratio beyond those that the prior was trained on, at the two ends, is answered as the nearest it knows.
    """

    prior: Prior
    schedule: Schedule = field(default_factory=RectifiedFlowSchedule)

    @property
    def image_size(self) -> int:
        return self.prior.image_size

    @property
    def camera_conditioned(self) -> bool:
        return self.prior.camera_conditioned

    def alpha_sigma(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        return self.schedule.alpha_sigma(t)

    def predict_noise(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], conditions: list[Condition]
    ) -> Float[Tensor, "K B C h w"]:
        alpha, sigma = self.alpha_sigma(t.double())
        t_prior = t_from_snr(self.prior, alpha, sigma)
        scale = torch.hypot(*self.prior.alpha_sigma(t_prior)) / torch.hypot(alpha, sigma)
        return self.prior.predict_noise(x_t * expand_like_latents(scale).to(x_t.dtype), t_prior.to(t.dtype), conditions)

    def encode_prompt(self, texts: list[str]) -> Condition:
        return self.prior.encode_prompt(texts)

    def validate_prompt(self, text: str) -> str | None:
        return self.prior.validate_prompt(text)

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        return self.prior.encode(rgb)

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        return self.prior.decode(latents)


def t_from_snr(prior: Denoiser, alpha: Float[Tensor, " B"], sigma: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """When a prior has these levels' ratio of noise to signal, or the nearest to it that it ever has."""
    low, high = torch.zeros_like(sigma), torch.ones_like(sigma)
    for _ in range(BISECTION_STEPS):
        middle = (low + high) / 2
        signal, noise = prior.alpha_sigma(middle)
        go_later = noise * alpha < sigma * signal
        low, high = torch.where(go_later, middle, low), torch.where(go_later, high, middle)
    return (low + high) / 2
