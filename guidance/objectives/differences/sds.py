"""Score Distillation Sampling (Poole et al. 2022, DreamFusion, eq. 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, get_args

from guidance.objectives.base import ObjectiveInfo, ObjectiveOutput, ViewBatch
from guidance.objectives.guided import GuidedObjective
from guidance.objectives.weighting import Weighting, check_choice, check_finite, timestep_weight
from guidance.priors.base import Denoiser, add_noise, expand_like_latents


@dataclass(frozen=True)
class SDS(GuidedObjective):
    """gradient = w(t) * (guided noise answer - drawn noise)."""

    info: ClassVar[ObjectiveInfo | None] = ObjectiveInfo(
        title="Score Distillation Sampling",
        reference="Poole et al. 2022 (DreamFusion), eq. 3",
        forward_passes=(2, 2),
        guidance_scale="101, which DreamFusion and threestudio write as 100",
        timestep_range="0.02 to 0.98",
        summary="the baseline: sturdy shapes, at high scales smooth and saturated",
    )

    guidance_scale: float = 7.5
    """Classifier-free guidance in the standard form (1 is none). DreamFusion used 101, with Imagen."""
    weighting: Weighting = "sds"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite("guidance_scale", self.guidance_scale)
        check_choice("weighting", self.weighting, get_args(Weighting))

    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        alpha, sigma = prior.alpha_sigma(batch.t)
        x_t = add_noise(batch.latents, batch.noise, alpha, sigma)
        negative, text = prior.predict_noise(x_t, batch.t, [batch.conditions.negative, batch.conditions.text])
        noise_pred = self.guided_noise(prior, x_t, batch.t, negative, text, self.guidance_scale)
        grad = expand_like_latents(timestep_weight(self.weighting, alpha, sigma)) * (noise_pred - batch.noise)
        return ObjectiveOutput(grad, {"t": float(batch.t.mean())})
