"""Score Distillation Sampling (Poole et al. 2022, DreamFusion, eq. 3)."""

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

Weighting = Literal["sds", "uniform", "fantasia3d", "reconstruction"]
"""w(t): sigma^2 (DreamFusion), 1 (equal to SJC), alpha * sigma^2 (Fantasia3D), or sigma / alpha, which makes the
gradient x - xhat, the difference to the clean picture the prior sees in the noise (MVDream, section 3.3)."""


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


MAX_MAGNITUDE = 1e6
"""Largest magnitude of a hyper-parameter."""


def check_finite(name: str, value: float) -> None:
    """Raises ValueError for a hyper-parameter that is no number, or too large for the arithmetic of float32."""
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}; expected a finite number, such as 7.5")
    if abs(value) > MAX_MAGNITUDE:
        raise ValueError(f"{name} is {value:g}; expected a number from {-MAX_MAGNITUDE:g} to {MAX_MAGNITUDE:g}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises ValueError for a choice that does not exist; it names the nearest."""
    if value not in choices:
        near = difflib.get_close_matches(value, choices, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"unknown {name} {value!r}; {hint}(known: {', '.join(choices)})")


def timestep_weight(
    weighting: Weighting, alpha: Float[Tensor, " B"], sigma: Float[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """w(t) of the weighting; see `Weighting`."""
    match weighting:
        case "sds":
            return sigma.square()
        case "uniform":
            return sigma.new_ones(sigma.shape)
        case "fantasia3d":
            return alpha * sigma.square()
        case "reconstruction":
            return sigma / alpha
