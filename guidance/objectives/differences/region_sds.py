"""Region-composed score distillation (Yang et al. 2024, SemanticSDS)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch

from guidance.objectives.base import ObjectiveInfo, ObjectiveOutput, ViewBatch
from guidance.objectives.guided import GuidedObjective
from guidance.objectives.weighting import Weighting, check_choice, check_finite, timestep_weight
from guidance.priors.base import Denoiser, add_noise, expand_like_latents

Composition = Literal["sum", "mean"]
"""How the regions' gradients come together. The authors take the mean over the K regions, which leaves each region
one K-th of its pull; the sum gives each what SDS would."""


@dataclass(frozen=True)
class RegionSDS(GuidedObjective):
    """gradient = sum over regions of mask * w(t) * (answer guided to the region's text - drawn noise).

    All regions look at the same noised picture, and share the answer to no prompt. A latent of no region is not
    pulled; one of several is pulled by each.
    """

    info: ClassVar[ObjectiveInfo | None] = ObjectiveInfo(
        title="Region-composed SDS",
        reference="Yang et al. 2024 (SemanticSDS); guidance/stable_diffusion.py of the authors",
        forward_passes=(2, 17),
        guidance_scale="101",
        timestep_range="0.02 to 0.98, falling to 0.02 to 0.5",
        summary="several things side by side, each with its own text (one answer more than there are parts)",
    )
    needs_regions: ClassVar[bool] = True

    guidance_scale: float = 7.5
    """Classifier-free guidance in the standard form (1 is none). The authors used 101."""
    weighting: Weighting = "sds"
    composition: Composition = "sum"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite("guidance_scale", self.guidance_scale)
        check_choice("weighting", self.weighting, get_args(Weighting))
        check_choice("composition", self.composition, get_args(Composition))

    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        regions = batch.regions
        if regions is None:
            raise ValueError("the objective composes regions, and the view has none")
        alpha, sigma = prior.alpha_sigma(batch.t)
        x_t = add_noise(batch.latents, batch.noise, alpha, sigma)
        negative, *texts = prior.predict_noise(x_t, batch.t, [batch.conditions.negative, *regions.conditions])
        composed = torch.zeros_like(x_t)
        for mask, text in zip(regions.masks, texts, strict=True):
            composed = composed + mask[:, None] * (
                self.guided_noise(prior, x_t, batch.t, negative, text, self.guidance_scale) - batch.noise
            )
        if self.composition == "mean":
            composed = composed / len(texts)
        grad = expand_like_latents(timestep_weight(self.weighting, alpha, sigma)) * composed
        return ObjectiveOutput(grad, {"t": float(batch.t.mean())})
