"""Balanced Score Distillation (Huang et al. 2024, PlacidDreamer)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from guidance.objectives.base import About, Objective, Update, View
from guidance.objectives.differences.sds import check_choice, check_finite
from guidance.priors.base import Denoiser, noised, per_view

Setting = Literal["released", "auto", "points"]
"""The authors' three: `train_step_BSD`, the flag `--auto_BSD`, and the lesson on points in the plane.

              text pulls by              smoothing                  w(t)
    released  15 * (text - empty)        empty                      alpha
    auto      text - empty               1.25 * (empty - noise)     sigma * |empty - noise| / 50
    points    text - empty               0.018 * empty              alpha
"""
_STRENGTH: dict[Setting, float] = {"released": 15.0, "auto": 1.0, "points": 1.0}


@dataclass(frozen=True)
class BSD(Objective):
    """gradient = w(t) * the shortest mixture of two pulls: share * classifier + (1 - share) * smoothing.

    Found for each view (`shortest`), it goes against neither. Where the pulls oppose, less of the stronger is left:
    a greater `strength` does not saturate. A negative prompt stands for the empty one.
    """

    about: ClassVar[About | None] = About(
        title="Balanced Score Distillation",
        source="Huang et al. 2024 (PlacidDreamer); train_step_BSD and exp_2d.py of the authors",
        passes=(2, 2),
        scale="15 : 1, text to smoothing",
        times="0.02 to 0.98, falling to 0.02 to 0.5",
        good_for="colours that do not saturate, by balance rather than by a scale",
    )
    needs_contrast: ClassVar[bool] = True

    setting: Setting = "released"
    """Which of the published pulls and weights. The norm of `auto` is taken over each view, not over the batch."""
    strength: float | None = None
    """The authors' lambda, what text - empty is multiplied by; None is what they used in that setting."""

    def __post_init__(self) -> None:
        check_choice("setting", self.setting, get_args(Setting))
        if self.strength is not None:
            check_finite("strength", self.strength)

    @property
    def hears_negative(self) -> bool:
        return True

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        alpha, sigma = prior.levels(view.t)
        x_t = noised(view.x, view.noise, alpha, sigma)
        empty, text = prior.predict(x_t, view.t, [view.wanted.negative, view.wanted.text])
        strength = _STRENGTH[self.setting] if self.strength is None else self.strength
        classifier, w = strength * (text - empty), alpha
        match self.setting:
            case "released":
                smoothing = empty
            case "auto":
                smoothing = 1.25 * (empty - view.noise)
                w = sigma * (empty - view.noise).flatten(1).norm(dim=1) / 50
            case "points":
                smoothing = 0.018 * empty
        share = shortest(classifier, smoothing)
        mixed = per_view(share) * classifier + per_view(1 - share) * smoothing
        return Update(per_view(w) * mixed, {"t": float(view.t.mean()), "balance": float(share.mean())})


def shortest(first: Float[Tensor, "B C h w"], second: Float[Tensor, "B C h w"]) -> Float[Tensor, " B"]:
    """The share, 0..1, of `first` in the shortest of the mixtures share * first + (1 - share) * second of each view.

    Minimum-norm point of two gradients (Désidéri 2012; Sener & Koltun 2018); a half where the two are equal.
    """
    apart = (second - first).flatten(1)
    square, dot = apart.square().sum(1), (apart * second.flatten(1)).sum(1)
    half = torch.full_like(square, 0.5)
    return torch.where(square > 0, dot / square.where(square > 0, half), half).clamp(0, 1)
