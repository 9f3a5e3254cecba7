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

from guidance.objectives.base import View, Wanted, guided
from guidance.priors.base import Denoiser, per_view


def ddim(
    prior: Denoiser,
    x_t: Float[Tensor, "B C h w"],
    noise: Float[Tensor, "B C h w"],
    now: Float[Tensor, " B"] | None,
    then: Float[Tensor, " B"],
) -> Float[Tensor, "B C h w"]:
    """One deterministic step, up or down, from time `now` to `then` (Song et al. 2021, eq. 12 without added noise).

    Args:
        noise: The noise taken to be in `x_t`, and in what is returned.
        now: None where `x_t` is clean; the step is then the usual noising.
    """
    alpha, sigma = prior.levels(then)
    if now is None:
        return per_view(alpha) * x_t + per_view(sigma) * noise
    alpha_now, sigma_now = prior.levels(now)
    ratio = alpha / alpha_now
    return per_view(ratio) * x_t + per_view(sigma - ratio * sigma_now) * noise


@dataclass(frozen=True)
class Inversion:
    """How a chain of steps from time 0 goes."""

    stride: float
    """Time between grid points; the chain goes 0, stride, 2 * stride and so on, and the last step is cut to end at the
    wanted time."""
    scale: float = 0.0
    """Classifier-free guidance of the answers that are followed: 0 asks for the empty condition alone."""
    eta: float = 0.0
    """Share of the random part of an ancestral step that is added after each step; 0 is deterministic."""

    def __post_init__(self) -> None:
        if not 0 < self.stride <= 1:
            raise ValueError(f"stride is {self.stride}; expected above 0 and at most 1, a part of the schedule")
        if not math.isfinite(self.scale):
            raise ValueError(f"inversion scale is {self.scale}; expected a finite number, such as -7.5")
        if not 0 <= self.eta < math.inf:
            raise ValueError(f"eta is {self.eta}; expected a number from 0, such as 0.3")

    def steps(self, t: Float[Tensor, " B"]) -> Int[Tensor, " B"]:
        """Steps of each chain: the time in strides, rounded up; none for time 0."""
        return (t / self.stride - 1e-4).ceil().long()

    def answer(
        self, prior: Denoiser, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], wanted: Wanted
    ) -> Float[Tensor, "B C h w"]:
        """The noise to follow at `x_t`: one answer of the prior at scale 0 or 1, else two."""
        if self.scale in (0, 1):
            condition = wanted.text if self.scale else wanted.empty
            return prior.predict(x_t, t, [condition])[0]
        empty, text = prior.predict(x_t, t, [wanted.empty, wanted.text])
        return guided(empty, text, self.scale)

    def __call__(
        self,
        prior: Denoiser,
        x_0: Float[Tensor, "B C h w"],
        t: Float[Tensor, " B"],
        wanted: Wanted,
        noise: Float[Tensor, "B C h w"] | None = None,
        landing: Float[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B C h w"]:
        """The latents at `t` that the latents `x_0` at time 0 lead to.

        Args:
            noise: What `eta` adds.
            landing: Where the last step of each chain ends instead of at `t`.
        """
        count = self.steps(t)
        x_t = x_0.clone()
        for place in range(max(count.tolist(), default=0)):
            rows = (count > place).nonzero()[:, 0]
            now = torch.full_like(t[rows], place * self.stride)
            end = (t if landing is None else landing)[rows]
            then = torch.where(count[rows] == place + 1, end, now + self.stride)
            answer = self.answer(prior, x_t[rows], now, wanted.rows(rows))
            x_t[rows] = ddim(prior, x_t[rows], answer, now, then)
            if self.eta > 0 and noise is not None:
                spread = self.eta * ancestral(prior, now, then)
                x_t[rows] += per_view(spread) * again(noise[rows], place)
        return x_t


def ancestral(prior: Denoiser, low: Float[Tensor, " B"], high: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Standard deviation of the latent at time `low`, given the one at `high` and the clean one.

    Ho et al. 2020, eq. 7, for any (alpha, sigma).
    """
    (alpha_low, sigma_low), (alpha_high, sigma_high) = prior.levels(low), prior.levels(high)
    added = sigma_high.square() - (alpha_high / alpha_low * sigma_low).square()
    return added.clamp_min(0).sqrt() * sigma_low / sigma_high


def again(noise: Float[Tensor, "B C h w"], place: int) -> Float[Tensor, "B C h w"]:
    """The same draw with its numbers moved far within each view: other noise at every element, without a new draw."""
    flat = noise.flatten(1)
    return flat.roll(int(place * 0.618034 * flat.shape[1]), 1).view_as(noise)


@dataclass(frozen=True)
class Approach:
    """The point from which interval methods take their last step up to `View.t`."""

    t: Float[Tensor, " B"]
    x_t: Float[Tensor, "B C h w"]
    answer: Float[Tensor, "B C h w"]
    """The prior's noise under the empty condition there."""

    def step(self, prior: Denoiser, then: Float[Tensor, " B"]) -> Float[Tensor, "B C h w"]:
        """The latents at `then`, one step away."""
        return ddim(prior, self.x_t, self.answer, self.t, then)


def approached(prior: Denoiser, view: View, delta: float, stride: float) -> Approach:
    """The unconditional inversion of a view up to `delta` before its time, and the prior's answer there.

    It starts at time 0 with the little noise of that level, drawn (LucidDreamer's code). Takes an answer of the prior
    per started stride and one more.
    """
    before = (view.t - delta).clamp_min(0)
    x_0 = ddim(prior, view.x, view.noise, None, torch.zeros_like(view.t))
    x_t = Inversion(stride)(prior, x_0, before, view.wanted)
    return Approach(before, x_t, prior.predict(x_t, before, [view.wanted.empty])[0])


def check_interval(scale: float, delta: float, stride: float) -> None:
    """Raises ValueError for values that the interval methods have no meaning for."""
    if not math.isfinite(scale):
        raise ValueError(f"scale is {scale}; expected a finite number, such as 7.5")
    if not 0 < delta <= 1:
        raise ValueError(f"delta is {delta}; expected above 0 and at most 1, a part of the schedule such as 0.08")
    Inversion(stride)
