"""Variational Score Distillation (Wang et al. 2023, ProlificDreamer, eq. 9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, get_args

from guidance.objectives.base import ObjectiveInfo, ObjectiveOutput, ViewBatch
from guidance.objectives.guided import GuidedObjective
from guidance.objectives.weighting import Weighting, check_choice, check_finite, timestep_weight
from guidance.priors.base import Denoiser, add_noise, expand_like_latents


@dataclass(frozen=True)
class VSD(GuidedObjective):
    """gradient = w(t) * (guided noise answer - the critic's answer, which is told the camera and is not guided)."""

    info: ClassVar[ObjectiveInfo | None] = ObjectiveInfo(
        title="Variational Score Distillation",
        reference="Wang et al. 2023 (ProlificDreamer), eq. 9",
        forward_passes=(2, 2),
        guidance_scale="7.5",
        timestep_range="0.02 to 0.98, to 0.5 after a fifth of the steps",
        summary="the data's own spread in place of one smooth mode; several particles differ",
        critic_passes=1,
    )
    needs_critic: ClassVar[bool] = True

    guidance_scale: float = 7.5
    """Classifier-free guidance of the prior in the standard form (1 is none)."""
    weighting: Weighting = "sds"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite("guidance_scale", self.guidance_scale)
        check_choice("weighting", self.weighting, get_args(Weighting))

    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        alpha, sigma = prior.alpha_sigma(batch.t)
        x_t = add_noise(batch.latents, batch.noise, alpha, sigma)
        negative, text = prior.predict_noise(x_t, batch.t, [batch.conditions.negative, batch.conditions.text])
        (critic_pred,) = critic.predict_noise(x_t, batch.t, [batch.conditions.text_with_camera])
        w = expand_like_latents(timestep_weight(self.weighting, alpha, sigma))
        difference = self.guided_noise(prior, x_t, batch.t, negative, text, self.guidance_scale) - critic_pred
        return ObjectiveOutput(w * difference, {"critic_apart": float((text - critic_pred).square().mean().sqrt())})
