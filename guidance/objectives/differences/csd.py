"""Classifier Score Distillation (Yu et al. 2023)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, get_args

from guidance.objectives.base import About, Objective, Update, View
from guidance.objectives.differences.sds import Weighting, check_choice, check_finite, weight
from guidance.priors.base import Denoiser, noised, per_view

Ramp = tuple[float, float]
"""A number that moves in a straight line with the progress of a run, from the first value to the last."""


@dataclass(frozen=True)
class CSD(Objective):
    """gradient = scale * w(t) * (text + negative * answer to the negative prompt + empty * answer to no prompt + ...).

    As it stands, the classifier term of classifier-free guidance alone: scale * w(t) * (text - empty). The authors'
    two stages, with a negative prompt such as "oversaturated color, ugly, tiling, low quality, noisy":

        shape    weighting=uniform, negative=(0, -1), empty=(-1, 0), until=0.5
        texture  negative=(-1, -0.5), empty=(0, -0.5)

    (They also brought the first stage's gradient to unit length, a limit of the run: `guidance.gradient_clipping`.)
    Nothing holds the picture where it is: without a negative prompt, falling noise times or a regulariser, it drifts.
    """

    about: ClassVar[About | None] = About(
        title="Classifier Score Distillation",
        source="Yu et al. 2023; deep_floyd_simple_guidance.py and stable_diffusion_triple_guidance.py of the authors",
        passes=(1, 3),
        scale="none but the weight of the whole (1)",
        times="0.02 to 0.98, falling to 0.02 to 0.5",
        good_for="texture and detail without the noise term, and negative prompts",
    )
    needs_contrast: ClassVar[bool] = True

    scale: float = 1.0
    """Weight of the whole."""
    weighting: Weighting = "sds"
    negative: Ramp = (0.0, 0.0)
    """Coefficient, first and last, of the answer to the negative prompt."""
    empty: Ramp = (-1.0, -1.0)
    """Coefficient, first and last, of the answer to no prompt."""
    noise: Ramp = (0.0, 0.0)
    """Coefficient, first and last, of the drawn noise; -1 with the others at 0 is SDS without guidance."""
    until: float = 1.0
    """Progress, above 0 and up to 1, at which the coefficients have reached their last values."""

    def __post_init__(self) -> None:
        check_finite("scale", self.scale)
        check_choice("weighting", self.weighting, get_args(Weighting))
        if not 0 < self.until <= 1:
            raise ValueError(f"until is {self.until}; expected a progress above 0 and up to 1")
        for place, when in enumerate(("first", "last")):
            total = self.negative[place] + self.empty[place] + self.noise[place]
            if not math.isclose(total, -1, abs_tol=1e-6):
                raise ValueError(
                    f"the {when} values of negative, empty and noise sum to {total:g}; expected -1, "
                    "so that the noise that all answers share cancels"
                )

    @property
    def hears_negative(self) -> bool:
        return any(self.negative)

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        alpha, sigma = prior.levels(view.t)
        x_t = noised(view.x, view.noise, alpha, sigma)
        done = min(view.progress / self.until, 1.0)
        others = [(view.wanted.negative, _at(self.negative, done)), (view.wanted.empty, _at(self.empty, done))]
        asked = [(condition, share) for condition, share in others if share != 0]
        difference, *answers = prior.predict(x_t, view.t, [view.wanted.text, *(condition for condition, _ in asked)])
        for answer, (_, share) in zip(answers, asked, strict=True):
            difference = difference + share * answer
        if (share := _at(self.noise, done)) != 0:
            difference = difference + share * view.noise
        gradient = per_view(weight(self.weighting, alpha, sigma)) * (self.scale * difference)
        return Update(gradient, {"t": float(view.t.mean())})


def _at(ramp: Ramp, done: float) -> float:
    return ramp[0] + (ramp[1] - ramp[0]) * done
