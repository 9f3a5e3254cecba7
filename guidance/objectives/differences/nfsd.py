"""Noise-Free Score Distillation (Katzir et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, get_args

from guidance.objectives.base import Objective, ObjectiveInfo, ObjectiveOutput, ViewBatch
from guidance.objectives.weighting import Weighting, check_choice, check_finite, timestep_weight
from guidance.priors.base import Denoiser, add_noise, expand_like_latents


@dataclass(frozen=True)
class NFSD(Objective):
    """gradient = w(t) * (domain + scale * (text - empty)), where nothing of the drawn noise is meant to be left.

    domain, the pull to what pictures look like, is the answer to no prompt below the time `t_switch`, and from there on
    empty - negative, in which the noise both answers see cancels. It wants a negative prompt, such as "unrealistic,
    blurry, low quality, out of focus, ugly, low contrast, dull, dark, low-resolution, gloomy"; without one, domain is
    zero from `t_switch` on, and the gradient there is that of Classifier Score Distillation.
    """

    info: ClassVar[ObjectiveInfo | None] = ObjectiveInfo(
        title="Noise-Free Score Distillation",
        reference="Katzir et al. 2023, eq. 6, as read in compute_grad_anpg of HumanGaussian",
        forward_passes=(2, 3),
        guidance_scale="7.5",
        timestep_range="0.02 to 0.98",
        summary="clean detail at an ordinary scale; wants a negative prompt",
    )
    needs_undistilled_prior: ClassVar[bool] = True

    guidance_scale: float = 7.5
    """Weight of the text."""
    weighting: Weighting = "sds"
    t_switch: float = 0.2
    """Time, 0..1, from which on the negative prompt's answer is what the domain is told apart from."""

    def __post_init__(self) -> None:
        check_finite("guidance_scale", self.guidance_scale)
        check_choice("weighting", self.weighting, get_args(Weighting))
        if not 0 <= self.t_switch <= 1:
            raise ValueError(f"t_switch is {self.t_switch}; expected a time from 0 to 1")

    @property
    def uses_negative_prompt(self) -> bool:
        return True

    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        alpha, sigma = prior.alpha_sigma(batch.t)
        x_t = add_noise(batch.latents, batch.noise, alpha, sigma)
        noisy = batch.t >= self.t_switch
        conditions = batch.conditions
        extra = [conditions.negative] if noisy.any() and conditions.negative is not conditions.uncond else []
        uncond, text, *negative = prior.predict_noise(x_t, batch.t, [conditions.uncond, conditions.text, *extra])
        domain = (uncond - (negative[0] if negative else uncond)).where(noisy[:, None, None, None], uncond)
        grad = expand_like_latents(timestep_weight(self.weighting, alpha, sigma)) * (
            domain + self.guidance_scale * (text - uncond)
        )
        return ObjectiveOutput(grad, {"t": float(batch.t.mean())})
