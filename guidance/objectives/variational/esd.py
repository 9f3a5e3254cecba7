"""Entropic Score Distillation (Wang et al. 2024, Taming Mode Collapse, eq. 9)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, get_args

import torch

from guidance.objectives.base import About, Update, View
from guidance.objectives.differences.sds import Weighting, check_choice, check_finite, weight
from guidance.objectives.guided import Guided
from guidance.priors.base import Denoiser, noised, per_view


@dataclass(frozen=True)
class ESD(Guided):
    """gradient = w(t) * (guided noise answer - the critic's, partly without the camera).

    With E = `entropy`, the critic says E * (answer without camera) + (1 - E) * (answer with camera): an entropy bonus
    over the views, which must not all look alike. E = 0 is VSD. What threestudio calls guidance_scale_lora is 1 - E.
    """

    about: ClassVar[About | None] = About(
        title="Entropic Score Distillation",
        source="Wang et al. 2024 (Taming Mode Collapse), eq. 9, and VITA-Group/3D-Mode-Collapse",
        passes=(2, 2),
        scale="7.5",
        times="0.02 to 0.98, to 0.5 after a fifth of the steps",
        good_for="as VSD, against one face on every side",
        critic=2,
    )
    needs_critic: ClassVar[bool] = True

    scale: float = 7.5
    """Classifier-free guidance of the prior in the standard form (1 is none)."""
    entropy: float = 0.5
    """Weight E of the critic's answer without the camera: 0 is VSD, 1 the marginal over all cameras."""
    weighting: Weighting = "sds"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite("scale", self.scale)
        check_choice("weighting", self.weighting, get_args(Weighting))
        if not 0 <= self.entropy < math.inf:
            raise ValueError(f"entropy is {self.entropy}; expected a number from 0, such as 0.5")

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        alpha, sigma = prior.levels(view.t)
        x_t = noised(view.x, view.noise, alpha, sigma)
        against, text = prior.predict(x_t, view.t, [view.wanted.negative, view.wanted.text])
        posed = view.wanted.posed
        seen, anywhere = critic.predict(x_t, view.t, [posed, replace(posed, camera=None)])
        w = per_view(weight(self.weighting, alpha, sigma))
        apart = self.answer(prior, x_t, view.t, against, text, self.scale) - torch.lerp(seen, anywhere, self.entropy)
        return Update(w * apart, {"camera_apart": float((seen - anywhere).square().mean().sqrt())})
