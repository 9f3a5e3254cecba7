"""Delta Denoising Score (Hertz et al. 2023)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from guidance.objectives.base import ObjectiveInfo, ObjectiveOutput, ViewBatch, require_source
from guidance.objectives.guided import GuidedObjective
from guidance.priors.base import Denoiser, add_noise


@dataclass(frozen=True)
class DDS(GuidedObjective):
    """gradient = guided answer for the edit - guided answer for the source, with the same noise and time."""

    info: ClassVar[ObjectiveInfo | None] = ObjectiveInfo(
        title="Delta Denoising Score",
        reference="Hertz et al. 2023; the notebook released with it",
        forward_passes=(4, 4),
        guidance_scale="7.5",
        timestep_range="0.05 to 0.95",
        summary="editing: what source and target share cancels, the noise above all",
    )
    needs_source: ClassVar[bool] = True

    guidance_scale: float = 7.5
    """Classifier-free guidance in the standard form (1 is none), for both."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.guidance_scale):
            raise ValueError(f"guidance_scale is {self.guidance_scale}; expected a finite number, such as 7.5")

    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        source = require_source(batch)
        alpha, sigma = prior.alpha_sigma(batch.t)
        noise_preds = []
        for x, condition in ((batch.latents, batch.conditions.text), (source.latents, source.text)):
            x_t = add_noise(x, batch.noise, alpha, sigma)
            negative, text = prior.predict_noise(x_t, batch.t, [batch.conditions.negative, condition])
            noise_preds.append(self.guided_noise(prior, x_t, batch.t, negative, text, self.guidance_scale))
        return ObjectiveOutput(noise_preds[0] - noise_preds[1], {"t": float(batch.t.mean())})
