"""Distillation of flow-matching priors, and its form with corrected noise (Yang et al. 2024, RFDS and RFDS-Rev)."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from jaxtyping import Float
from torch import Tensor

from guidance.objectives.base import ObjectiveInfo, ObjectiveOutput, ViewBatch
from guidance.objectives.guided import GuidedObjective
from guidance.priors.base import Denoiser, add_noise, expand_like_latents

Correction = Literal["scaled", "full"]
"""How much of the answer's error in velocity the noise takes on: 1 - t (the code for SD3) or 1 (for 2-rectified flow,
InstaFlow)."""


@dataclass(frozen=True)
class RFDS(GuidedObjective):
    """gradient = guided velocity - (noise - x) = (guided noise answer - noise) / alpha, with alpha = 1 - sigma.

    So it is SDS with the weight 1 / alpha, which grows towards the noisy end.
    """

    info: ClassVar[ObjectiveInfo | None] = ObjectiveInfo(
        title="Rectified Flow Distillation Sampling",
        reference="Yang et al. 2024; its released code",
        forward_passes=(2, 2),
        guidance_scale="100 (SD3), 50 (InstaFlow)",
        timestep_range="0.02 to 0.7 (SD3, shift 3); 0.02 to 0.98, later 0.3 to 0.98 (InstaFlow)",
        summary="the baseline for flow-matching priors",
    )
    needs_flow_prior: ClassVar[bool] = True

    guidance_scale: float = 50.0
    """Classifier-free guidance in the standard form (1 is none)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.guidance_scale):
            raise ValueError(f"guidance_scale is {self.guidance_scale}; expected a finite number, such as 50")

    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        return ObjectiveOutput(_velocity_residual(self, prior, batch, batch.noise), {"t": float(batch.t.mean())})


@dataclass(frozen=True)
class RFDSRev(GuidedObjective):
    """RFDS, whose noise is first moved towards the noise that the prior sees.

    noise + step * (velocity under the text - (noise - x)). With the correction `scaled` the result is the prior's own
    answer under the text.
    """

    info: ClassVar[ObjectiveInfo | None] = ObjectiveInfo(
        title="Rectified Flow Distillation Sampling, reversed noise",
        reference="Yang et al. 2024; its released code",
        forward_passes=(3, 3),
        guidance_scale="100 (SD3), 50 (InstaFlow)",
        timestep_range="0.02 to 0.7 (SD3, shift 3); 0.02 to 0.98, later 0.3 to 0.98 (InstaFlow)",
        summary="flow-matching priors, with updates of less noise and more detail",
    )
    needs_flow_prior: ClassVar[bool] = True

    guidance_scale: float = 50.0
    """Classifier-free guidance in the standard form (1 is none)."""
    noise_correction: Correction = "scaled"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.guidance_scale):
            raise ValueError(f"guidance_scale is {self.guidance_scale}; expected a finite number, such as 50")
        if self.noise_correction not in get_args(Correction):
            known = get_args(Correction)
            near = difflib.get_close_matches(self.noise_correction, known, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ValueError(f"unknown noise_correction {self.noise_correction!r}; {hint}(known: {', '.join(known)})")

    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        alpha, sigma = prior.alpha_sigma(batch.t)
        (text,) = prior.predict_noise(
            add_noise(batch.latents, batch.noise, alpha, sigma), batch.t, [batch.conditions.text]
        )
        error = text - batch.noise
        noise = (
            text
            if self.noise_correction == "scaled"
            else batch.noise + error / expand_like_latents(alpha.clamp_min(_MIN_ALPHA))
        )
        return ObjectiveOutput(_velocity_residual(self, prior, batch, noise), {"t": float(batch.t.mean())})


_MIN_ALPHA = 1e-3
"""The smallest alpha that is divided by: at pure noise the clean latent has no part in the velocity's error."""


def _velocity_residual(
    objective: RFDS | RFDSRev, prior: Denoiser, batch: ViewBatch, noise: Float[Tensor, "B C h w"]
) -> Float[Tensor, "B C h w"]:
    """How far the guided velocity is from `noise` - x."""
    alpha, sigma = prior.alpha_sigma(batch.t)
    x_t = add_noise(batch.latents, noise, alpha, sigma)
    negative, text = prior.predict_noise(x_t, batch.t, [batch.conditions.negative, batch.conditions.text])
    return (
        objective.guided_noise(prior, x_t, batch.t, negative, text, objective.guidance_scale) - noise
    ) / expand_like_latents(alpha.clamp_min(_MIN_ALPHA))
