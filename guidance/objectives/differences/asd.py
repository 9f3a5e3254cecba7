"""Asynchronous Score Distillation (Ma et al. 2024, ScaleDreamer)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, get_args

from jaxtyping import Float
from torch import Tensor

from guidance.objectives.base import ObjectiveInfo, ObjectiveOutput, ViewBatch
from guidance.objectives.guided import GuidedObjective
from guidance.objectives.weighting import Weighting, check_choice, check_finite, timestep_weight
from guidance.priors.base import Denoiser, add_noise, expand_like_latents


@dataclass(frozen=True)
class ASD(GuidedObjective):
    """gradient = w(t) * (guided answer at t - answer with the text at t', a little noisier, to the same noise).

    The second answer stands in for the critic of VSD, which needs no training here. Without a shift only
    (scale - 1) * (text - empty) is left: Classifier Score Distillation.
    """

    info: ClassVar[ObjectiveInfo | None] = ObjectiveInfo(
        title="Asynchronous Score Distillation",
        reference="Ma et al. 2024 (ScaleDreamer); stable_diffusion_asd_guidance.py of the authors",
        forward_passes=(3, 3),
        guidance_scale="7.5",
        timestep_range="0.5 to 0.98, falling to 0.02 to 0.5",
        summary="the looks of VSD without training a critic, one prompt or a hundred thousand",
    )

    guidance_scale: float = 7.5
    """Classifier-free guidance in the standard form (1 is none)."""
    weighting: Weighting = "sds"
    """w is that of t, not of the later time."""
    plus_ratio: float = 0.1
    """How much later the second answer's time can be, as a share of the way from the lowest time to t."""
    plus_random: bool = True
    """Whether the shift is drawn between nothing and that; otherwise it is always that."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite("guidance_scale", self.guidance_scale)
        check_choice("weighting", self.weighting, get_args(Weighting))
        if not 0 <= self.plus_ratio <= 1:
            raise ValueError(f"plus_ratio is {self.plus_ratio}; expected a share from 0 to 1")

    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        alpha, sigma = prior.alpha_sigma(batch.t)
        x_t = add_noise(batch.latents, batch.noise, alpha, sigma)
        negative, text = prior.predict_noise(x_t, batch.t, [batch.conditions.negative, batch.conditions.text])
        t_shifted = self.shifted_timestep(batch)
        text_only = replace(batch.conditions.text, perp_negatives=())
        (shifted_pred,) = prior.predict_noise(
            add_noise(batch.latents, batch.noise, *prior.alpha_sigma(t_shifted)), t_shifted, [text_only]
        )
        if self.guidance_rescale:
            difference = self.guided_noise(prior, x_t, batch.t, negative, text, self.guidance_scale) - shifted_pred
        else:  # the same in two differences that are exactly zero where nothing differs
            difference = (self.guidance_scale - 1) * (text - negative) + (text - shifted_pred)
        grad = expand_like_latents(timestep_weight(self.weighting, alpha, sigma)) * difference
        return ObjectiveOutput(grad, {"t": float(batch.t.mean()), "shift": float((t_shifted - batch.t).mean())})

    def shifted_timestep(self, batch: ViewBatch) -> Float[Tensor, " B"]:
        """The time of the second answer, from `view.t` to 1."""
        max_shift = (self.plus_ratio * (batch.t - batch.t_min)).clamp_min(0).minimum(1 - batch.t)
        return batch.t + (batch.u * max_shift if self.plus_random else max_shift)
