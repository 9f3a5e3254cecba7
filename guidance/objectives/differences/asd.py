"""Asynchronous Score Distillation (Ma et al. 2024, ScaleDreamer)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, get_args

from jaxtyping import Float
from torch import Tensor

from guidance.objectives.base import About, Update, View
from guidance.objectives.differences.sds import Weighting, check_choice, check_finite, weight
from guidance.objectives.guided import Guided
from guidance.priors.base import Denoiser, noised, per_view


@dataclass(frozen=True)
class ASD(Guided):
    """gradient = w(t) * (guided answer at t - answer with the text at t', a little noisier, to the same noise).

    The second answer stands in for the critic of VSD, which needs no training here. Without a shift only
    (scale - 1) * (text - empty) is left: Classifier Score Distillation.
    """

    about: ClassVar[About | None] = About(
        title="Asynchronous Score Distillation",
        source="Ma et al. 2024 (ScaleDreamer); stable_diffusion_asd_guidance.py of the authors",
        passes=(3, 3),
        scale="7.5",
        times="0.5 to 0.98, falling to 0.02 to 0.5",
        good_for="the looks of VSD without training a critic, one prompt or a hundred thousand",
    )

    scale: float = 7.5
    """Classifier-free guidance in the standard form (1 is none)."""
    weighting: Weighting = "sds"
    """w is that of t, not of the later time."""
    plus_ratio: float = 0.1
    """How much later the second answer's time can be, as a share of the way from the lowest time to t."""
    plus_random: bool = True
    """Whether the shift is drawn between nothing and that; otherwise it is always that."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite("scale", self.scale)
        check_choice("weighting", self.weighting, get_args(Weighting))
        if not 0 <= self.plus_ratio <= 1:
            raise ValueError(f"plus_ratio is {self.plus_ratio}; expected a share from 0 to 1")

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        alpha, sigma = prior.levels(view.t)
        x_t = noised(view.x, view.noise, alpha, sigma)
        against, text = prior.predict(x_t, view.t, [view.wanted.negative, view.wanted.text])
        later = self.later(view)
        plain = replace(view.wanted.text, against=())
        (shifted,) = prior.predict(noised(view.x, view.noise, *prior.levels(later)), later, [plain])
        if self.rescale:
            difference = self.answer(prior, x_t, view.t, against, text, self.scale) - shifted
        else:  # the same in two differences that are exactly zero where nothing differs
            difference = (self.scale - 1) * (text - against) + (text - shifted)
        gradient = per_view(weight(self.weighting, alpha, sigma)) * difference
        return Update(gradient, {"t": float(view.t.mean()), "shift": float((later - view.t).mean())})

    def later(self, view: View) -> Float[Tensor, " B"]:
        """The time of the second answer, from `view.t` to 1."""
        room = (self.plus_ratio * (view.t - view.lowest)).clamp_min(0).minimum(1 - view.t)
        return view.t + (view.uniform * room if self.plus_random else room)
