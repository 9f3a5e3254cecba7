"""PG-SB: distillation under a random guidance scale (Nguyen et al. 2024, SNOOPI, section 4.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, get_args

from guidance.objectives.base import ObjectiveInfo, ObjectiveOutput, ViewBatch
from guidance.objectives.guided import GuidedObjective
from guidance.objectives.weighting import Weighting, check_choice, timestep_weight
from guidance.priors.base import Denoiser, add_noise, expand_like_latents


@dataclass(frozen=True)
class PGSB(GuidedObjective):
    """gradient = w(t) * (guided noise answer - the critic's, guided with the same scale), a new scale for each view.

    Both sides move alike when the scale does: what is approached is what the text describes, not, as in VSD, what
    guidance makes of it.
    """

    info: ClassVar[ObjectiveInfo | None] = ObjectiveInfo(
        title="PG-SB: one random scale for prior and critic",
        reference="Nguyen et al. 2024 (SNOOPI), section 4.1, as others report it",
        forward_passes=(2, 2),
        guidance_scale="2 to 5 with Stable Diffusion 2.1",
        timestep_range="0.02 to 0.98",
        summary="VSD where no one scale is right",
        critic_passes=2,
    )
    needs_critic: ClassVar[bool] = True

    guidance_scale_min: float = 2.0
    """Least classifier-free guidance, of prior and critic, in the standard form (1 is none)."""
    guidance_scale_max: float = 5.0
    """Greatest classifier-free guidance; in between all scales are as likely."""
    weighting: Weighting = "sds"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("weighting", self.weighting, get_args(Weighting))
        if not -math.inf < self.guidance_scale_min <= self.guidance_scale_max < math.inf:
            raise ValueError(
                f"guidance_scale_min is {self.guidance_scale_min} and guidance_scale_max {self.guidance_scale_max}; "
                "expected guidance_scale_min <= guidance_scale_max, both finite"
            )

    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        alpha, sigma = prior.alpha_sigma(batch.t)
        x_t = add_noise(batch.latents, batch.noise, alpha, sigma)
        guidance_scale = self.guidance_scale_min + (self.guidance_scale_max - self.guidance_scale_min) * batch.u
        negative, text = prior.predict_noise(x_t, batch.t, [batch.conditions.negative, batch.conditions.text])
        uncond, critic_pred = critic.predict_noise(
            x_t, batch.t, [batch.conditions.uncond, batch.conditions.text_with_camera]
        )
        k, w = expand_like_latents(guidance_scale), expand_like_latents(timestep_weight(self.weighting, alpha, sigma))
        text_pred = self.guided_noise(prior, x_t, batch.t, negative, text, k)
        difference = text_pred - self.guided_noise(prior, x_t, batch.t, uncond, critic_pred, k)
        return ObjectiveOutput(w * difference, {"scale": float(guidance_scale.mean())})
