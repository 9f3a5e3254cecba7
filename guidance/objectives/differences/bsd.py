"""Balanced Score Distillation (Huang et al. 2024, PlacidDreamer)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from guidance.objectives.base import Objective, ObjectiveInfo, ObjectiveOutput, ViewBatch
from guidance.objectives.weighting import check_choice, check_finite
from guidance.priors.base import Denoiser, add_noise, expand_like_latents

Variant = Literal["released", "auto", "points"]
"""The authors' three: `train_step_BSD`, the flag `--auto_BSD`, and the lesson on points in the plane.

              text pulls by              smoothing                  w(t)
    released  15 * (text - empty)        empty                      alpha
    auto      text - empty               1.25 * (empty - noise)     sigma * |empty - noise| / 50
    points    text - empty               0.018 * empty              alpha
"""
_TEXT_WEIGHTS: dict[Variant, float] = {"released": 15.0, "auto": 1.0, "points": 1.0}


@dataclass(frozen=True)
class BSD(Objective):
    """gradient = w(t) * the shortest mixture of two pulls: share * classifier + (1 - share) * smoothing.

    Found for each view (`shortest`), it goes against neither. Where the pulls oppose, less of the stronger is left:
    a greater `strength` does not saturate. A negative prompt stands for the empty one.
    """

    info: ClassVar[ObjectiveInfo | None] = ObjectiveInfo(
        title="Balanced Score Distillation",
        reference="Huang et al. 2024 (PlacidDreamer); train_step_BSD and exp_2d.py of the authors",
        forward_passes=(2, 2),
        guidance_scale="15 : 1, text to smoothing",
        timestep_range="0.02 to 0.98, falling to 0.02 to 0.5",
        summary="colours that do not saturate, by balance rather than by a scale",
    )
    needs_undistilled_prior: ClassVar[bool] = True

    variant: Variant = "released"
    """Which of the published pulls and weights. The norm of `auto` is taken over each view, not over the batch."""
    text_weight: float | None = None
    """The authors' lambda, what text - empty is multiplied by; None is what they used in that setting."""

    def __post_init__(self) -> None:
        check_choice("variant", self.variant, get_args(Variant))
        if self.text_weight is not None:
            check_finite("text_weight", self.text_weight)

    @property
    def uses_negative_prompt(self) -> bool:
        return True

    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        alpha, sigma = prior.alpha_sigma(batch.t)
        x_t = add_noise(batch.latents, batch.noise, alpha, sigma)
        uncond, text = prior.predict_noise(x_t, batch.t, [batch.conditions.negative, batch.conditions.text])
        text_weight = _TEXT_WEIGHTS[self.variant] if self.text_weight is None else self.text_weight
        classifier, w = text_weight * (text - uncond), alpha
        match self.variant:
            case "released":
                smoothing = uncond
            case "auto":
                smoothing = 1.25 * (uncond - batch.noise)
                w = sigma * (uncond - batch.noise).flatten(1).norm(dim=1) / 50
            case "points":
                smoothing = 0.018 * uncond
        mix = min_norm_mix(classifier, smoothing)
        mixed = expand_like_latents(mix) * classifier + expand_like_latents(1 - mix) * smoothing
        return ObjectiveOutput(
            expand_like_latents(w) * mixed, {"t": float(batch.t.mean()), "balance": float(mix.mean())}
        )


def min_norm_mix(first: Float[Tensor, "B C h w"], second: Float[Tensor, "B C h w"]) -> Float[Tensor, " B"]:
    """The share, 0..1, of `first` in the shortest of the mixtures share * first + (1 - share) * second of each view.

    Minimum-norm point of two gradients (Désidéri 2012; Sener & Koltun 2018); a half where the two are equal.
    """
    difference = (second - first).flatten(1)
    square, dot = difference.square().sum(1), (difference * second.flatten(1)).sum(1)
    half = torch.full_like(square, 0.5)
    return torch.where(square > 0, dot / square.where(square > 0, half), half).clamp(0, 1)
