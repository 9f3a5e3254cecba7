"""Classifier Score Matching (TV-3DG), as far as its abstract tells: the formula here is a reconstruction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from guidance.objectives.base import Objective, ObjectiveInfo, ObjectiveOutput, ViewBatch
from guidance.objectives.inversion import check_interval, invert_to_interval_start
from guidance.objectives.weighting import check_finite, timestep_weight
from guidance.priors.base import Denoiser, expand_like_latents


@dataclass(frozen=True)
class CSM(Objective):
    """gradient = sigma / alpha * scale * (answer under the text - answer under none), at the inverted latent.

    A negative prompt stands for none. This is ISM without its difference of two times. A text condition that holds the
    tokens of a picture (`Condition.image`) makes that picture the visual prompt, for priors that see pictures.
    """

    info: ClassVar[ObjectiveInfo | None] = ObjectiveInfo(
        title="Classifier Score Matching",
        reference="TV-3DG, its abstract; the formula is reconstructed from it and from LucidDreamer's inversion",
        forward_passes=(3, 8),
        guidance_scale="not published",
        timestep_range="not published; as ISM",
        summary="the pull of the prompt alone, without noise in the updates; takes a visual prompt",
    )

    weight: float = 7.5
    """Factor of the guidance term; 7.5 makes it that of ISM."""
    delta: float = 0.08
    """Length of the last step of the inversion, as a part of the schedule."""
    stride: float = 0.2
    """Stride of the steps before it."""

    def __post_init__(self) -> None:
        check_finite("weight", self.weight)
        check_interval(self.delta, self.stride)

    @property
    def uses_negative_prompt(self) -> bool:
        return True

    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        x_t = invert_to_interval_start(prior, batch, self.delta, self.stride).step(prior, batch.t)
        negative, text = prior.predict_noise(x_t, batch.t, [batch.conditions.negative, batch.conditions.text])
        factor = self.weight * timestep_weight("reconstruction", *prior.alpha_sigma(batch.t))
        return ObjectiveOutput(expand_like_latents(factor) * (text - negative), {"t": float(batch.t.mean())})
