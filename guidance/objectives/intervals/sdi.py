"""Score Distillation via Inversion (Lukoianov et al. 2024)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from guidance.objectives.base import ObjectiveInfo, ObjectiveOutput, ViewBatch
from guidance.objectives.guided import GuidedObjective
from guidance.objectives.inversion import DDIMInversion, ddim_step
from guidance.priors.base import Denoiser, predict_x0


@dataclass(frozen=True)
class SDI(GuidedObjective):
    """gradient = x - xhat, with xhat the guided clean latent seen in the inversion of x under its text.

    SDS with the weighting `reconstruction`, whose drawn noise is replaced by the noise that inversion finds.
    """

    info: ClassVar[ObjectiveInfo | None] = ObjectiveInfo(
        title="Score Distillation via Inversion",
        reference="Lukoianov et al. 2024; the code in threestudio",
        forward_passes=(10, 24),
        guidance_scale="7.5, and -7.5 in the inversion",
        timestep_range="one time that falls from 0.98 to 0.25",
        summary="detail near that of the prior's own pictures; slow, less so as the time falls",
    )

    guidance_scale: float = 7.5
    """Classifier-free guidance in the standard form (1 is none) of the clean latent."""
    inversion_guidance_scale: float = -7.5
    """The same in the inversion; 0 inverts without the text, in half the passes."""
    stride: float = 0.1
    """Stride of the inversion as a part of the schedule."""
    eta: float = 0.3
    """Share of random noise after each step of the inversion; 0 is deterministic."""
    reproduce_released_timestep: bool = False
    """As in the released code, the last step goes up to a stride too far, but the prior is told the time without."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.guidance_scale):
            raise ValueError(f"guidance_scale is {self.guidance_scale}; expected a finite number, such as 7.5")
        DDIMInversion(self.stride, self.inversion_guidance_scale, self.eta)

    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        inversion = DDIMInversion(self.stride, self.inversion_guidance_scale, self.eta)
        t_zero = torch.zeros_like(batch.t)
        x_0 = ddim_step(
            prior, batch.latents, inversion.noise_pred(prior, batch.latents, t_zero, batch.conditions), None, t_zero
        )
        t_end = (batch.t + batch.u * self.stride).clamp(max=1) if self.reproduce_released_timestep else None
        x_t = inversion(prior, x_0, batch.t, batch.conditions, batch.extra_noise, t_end)
        negative, text = prior.predict_noise(x_t, batch.t, [batch.conditions.negative, batch.conditions.text])
        x0_pred = predict_x0(
            x_t,
            self.guided_noise(prior, x_t, batch.t, negative, text, self.guidance_scale),
            *prior.alpha_sigma(batch.t),
        )
        return ObjectiveOutput(batch.latents - x0_pred, {"t": float(batch.t.mean())})
