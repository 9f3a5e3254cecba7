"""From a clean latent to the noised one that belongs to it: deterministic diffusion steps, run upwards.

Where sampling goes from noise to a picture, inversion goes back (Song et al. 2021, section 4.3), so the noised latent
follows from the clean one instead of from a draw. Every view has its own time and so its own number of steps; a view
that has arrived takes no further part, and costs no further pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from guidance.conditioning.conditions import ViewConditions
from guidance.objectives.base import ViewBatch
from guidance.priors.base import Denoiser, expand_like_latents
from guidance.priors.cfg import classifier_free_guidance


def ddim_step(
    prior: Denoiser,
    x_t: Float[Tensor, "B C h w"],
    noise: Float[Tensor, "B C h w"],
    t_from: Float[Tensor, " B"] | None,
    t_to: Float[Tensor, " B"],
) -> Float[Tensor, "B C h w"]:
    """One deterministic step, up or down, from time `t_from` to `t_to` (Song et al. 2021, eq. 12 without added noise).

    Args:
        noise: The noise taken to be in `x_t`, and in what is returned.
        t_from: None where `x_t` is clean; the step is then the usual noising.
    """
    alpha, sigma = prior.alpha_sigma(t_to)
    if t_from is None:
        return expand_like_latents(alpha) * x_t + expand_like_latents(sigma) * noise
    alpha_from, sigma_from = prior.alpha_sigma(t_from)
    ratio = alpha / alpha_from
    return expand_like_latents(ratio) * x_t + expand_like_latents(sigma - ratio * sigma_from) * noise


@dataclass(frozen=True)
class DDIMInversion:
    """How a chain of steps from time 0 goes."""

    stride: float
    """Time between grid points; the chain goes 0, stride, 2 * stride and so on, and the last step is cut to end at the
    wanted time."""
    guidance_scale: float = 0.0
    """Classifier-free guidance of the answers that are followed: 0 asks for the empty condition alone."""
    eta: float = 0.0
    """Share of the random part of an ancestral step that is added after each step; 0 is deterministic."""

    def __post_init__(self) -> None:
        if not 0 < self.stride <= 1:
            raise ValueError(f"stride is {self.stride}; expected above 0 and at most 1, a part of the schedule")
        if not math.isfinite(self.guidance_scale):
            raise ValueError(f"guidance_scale is {self.guidance_scale}; expected a finite number, such as -7.5")
        if not 0 <= self.eta < math.inf:
            raise ValueError(f"eta is {self.eta}; expected a number from 0, such as 0.3")

    def steps(self, t: Float[Tensor, " B"]) -> Int[Tensor, " B"]:
        """Steps of each chain: the time in strides, rounded up; none for time 0."""
        return (t / self.stride - 1e-4).ceil().long()

    def noise_pred(
        self, prior: Denoiser, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], conditions: ViewConditions
    ) -> Float[Tensor, "B C h w"]:
        """The noise to follow at `x_t`: one answer of the prior at scale 0 or 1, else two."""
        if self.guidance_scale in (0, 1):
            condition = conditions.text if self.guidance_scale else conditions.uncond
            return prior.predict_noise(x_t, t, [condition])[0]
        uncond, text = prior.predict_noise(x_t, t, [conditions.uncond, conditions.text])
        return classifier_free_guidance(uncond, text, self.guidance_scale)

    def __call__(
        self,
        prior: Denoiser,
        x_0: Float[Tensor, "B C h w"],
        t: Float[Tensor, " B"],
        conditions: ViewConditions,
        noise: Float[Tensor, "B C h w"] | None = None,
        t_end: Float[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B C h w"]:
        """The latents at `t` that the latents `x_0` at time 0 lead to.

        Args:
            noise: What `eta` adds.
            t_end: Where the last step of each chain ends instead of at `t`.
        """
        num_steps = self.steps(t)
        x_t = x_0.clone()
        for step in range(max(num_steps.tolist(), default=0)):
            rows = (num_steps > step).nonzero()[:, 0]
            t_from = torch.full_like(t[rows], step * self.stride)
            end = (t if t_end is None else t_end)[rows]
            t_to = torch.where(num_steps[rows] == step + 1, end, t_from + self.stride)
            noise_pred = self.noise_pred(prior, x_t[rows], t_from, conditions.select(rows))
            x_t[rows] = ddim_step(prior, x_t[rows], noise_pred, t_from, t_to)
            if self.eta > 0 and noise is not None:
                std = self.eta * ancestral_std(prior, t_from, t_to)
                x_t[rows] += expand_like_latents(std) * permute_noise(noise[rows], step)
        return x_t


def ancestral_std(prior: Denoiser, low: Float[Tensor, " B"], high: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Standard deviation of the latent at time `low`, given the one at `high` and the clean one.

    Ho et al. 2020, eq. 7, for any (alpha, sigma).
    """
    (alpha_low, sigma_low), (alpha_high, sigma_high) = prior.alpha_sigma(low), prior.alpha_sigma(high)
    added = sigma_high.square() - (alpha_high / alpha_low * sigma_low).square()
    return added.clamp_min(0).sqrt() * sigma_low / sigma_high


def permute_noise(noise: Float[Tensor, "B C h w"], step: int) -> Float[Tensor, "B C h w"]:
    """The same draw with its numbers moved far within each view: other noise at every element, without a new draw."""
    flat = noise.flatten(1)
    return flat.roll(int(step * 0.618034 * flat.shape[1]), 1).view_as(noise)


@dataclass(frozen=True)
class IntervalStart:
    """The point from which interval methods take their last step up to `View.t`."""

    t: Float[Tensor, " B"]
    x_t: Float[Tensor, "B C h w"]
    noise_pred: Float[Tensor, "B C h w"]
    """The prior's noise under the empty condition there."""

    def step(self, prior: Denoiser, t_to: Float[Tensor, " B"]) -> Float[Tensor, "B C h w"]:
        """The latents at `t_to`, one step away."""
        return ddim_step(prior, self.x_t, self.noise_pred, self.t, t_to)


def invert_to_interval_start(prior: Denoiser, batch: ViewBatch, delta: float, stride: float) -> IntervalStart:
    """The unconditional inversion of a view up to `delta` before its time, and the prior's answer there.

    It starts at time 0 with the little noise of that level, drawn (LucidDreamer's code). Takes an answer of the prior
    per started stride and one more.
    """
    t_start = (batch.t - delta).clamp_min(0)
    x_0 = ddim_step(prior, batch.latents, batch.noise, None, torch.zeros_like(batch.t))
    x_t = DDIMInversion(stride)(prior, x_0, t_start, batch.conditions)
    return IntervalStart(t_start, x_t, prior.predict_noise(x_t, t_start, [batch.conditions.uncond])[0])


def check_interval(delta: float, stride: float) -> None:
    """Raises ValueError for values that the interval methods have no meaning for."""
    if not 0 < delta <= 1:
        raise ValueError(f"delta is {delta}; expected above 0 and at most 1, a part of the schedule such as 0.08")
    DDIMInversion(stride)
