"""Variational Score Distillation (Wang et al. 2023, ProlificDreamer, eq. 9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, get_args

from guidance.objectives.base import About, Update, View
from guidance.objectives.differences.sds import Weighting, check_choice, check_finite, weight
from guidance.objectives.guided import Guided
from guidance.priors.base import Denoiser, noised, per_view


@dataclass(frozen=True)
class VSD(Guided):
    """gradient = w(t) * (guided noise answer - the critic's answer, which is told the camera and is not guided)."""

    about: ClassVar[About | None] = About(
        title="Variational Score Distillation",
        source="Wang et al. 2023 (ProlificDreamer), eq. 9",
        passes=(2, 2),
        scale="7.5",
        times="0.02 to 0.98, to 0.5 after a fifth of the steps",
        good_for="the data's own spread in place of one smooth mode; several particles differ",
        critic=1,
    )
    needs_critic: ClassVar[bool] = True

    scale: float = 7.5
    """Classifier-free guidance of the prior in the standard form (1 is none)."""
    weighting: Weighting = "sds"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite("scale", self.scale)
        check_choice("weighting", self.weighting, get_args(Weighting))

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        alpha, sigma = prior.levels(view.t)
        x_t = noised(view.x, view.noise, alpha, sigma)
        against, text = prior.predict(x_t, view.t, [view.wanted.negative, view.wanted.text])
        (rendered,) = critic.predict(x_t, view.t, [view.wanted.posed])
        w = per_view(weight(self.weighting, alpha, sigma))
        apart = self.answer(prior, x_t, view.t, against, text, self.scale) - rendered
        return Update(w * apart, {"critic_apart": float((text - rendered).square().mean().sqrt())})
