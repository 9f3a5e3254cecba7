"""Noise-Free Score Distillation (Katzir et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, get_args

from guidance.objectives.base import About, Objective, Update, View
from guidance.objectives.differences.sds import Weighting, check_choice, check_finite, weight
from guidance.priors.base import Denoiser, noised, per_view


@dataclass(frozen=True)
class NFSD(Objective):
    """gradient = w(t) * (domain + scale * (text - empty)), where nothing of the drawn noise is meant to be left.

    domain, the pull to what pictures look like, is the answer to no prompt below the time `switch`, and from there on
    empty - negative, in which the noise both answers see cancels. It wants a negative prompt, such as "unrealistic,
    blurry, low quality, out of focus, ugly, low contrast, dull, dark, low-resolution, gloomy"; without one, domain is
    zero from `switch` on, and the gradient there is that of Classifier Score Distillation.
    """

    about: ClassVar[About | None] = About(
        title="Noise-Free Score Distillation",
        source="Katzir et al. 2023, eq. 6, as read in compute_grad_anpg of HumanGaussian",
        passes=(2, 3),
        scale="7.5",
        times="0.02 to 0.98",
        good_for="clean detail at an ordinary scale; wants a negative prompt",
    )
    needs_contrast: ClassVar[bool] = True

    scale: float = 7.5
    """Weight of the text."""
    weighting: Weighting = "sds"
    switch: float = 0.2
    """Time, 0..1, from which on the negative prompt's answer is what the domain is told apart from."""

    def __post_init__(self) -> None:
        check_finite("scale", self.scale)
        check_choice("weighting", self.weighting, get_args(Weighting))
        if not 0 <= self.switch <= 1:
            raise ValueError(f"switch is {self.switch}; expected a time from 0 to 1")

    @property
    def hears_negative(self) -> bool:
        return True

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        alpha, sigma = prior.levels(view.t)
        x_t = noised(view.x, view.noise, alpha, sigma)
        noisy = view.t >= self.switch
        wanted = view.wanted
        further = [wanted.negative] if noisy.any() and wanted.negative is not wanted.empty else []
        empty, text, *negative = prior.predict(x_t, view.t, [wanted.empty, wanted.text, *further])
        domain = (empty - (negative[0] if negative else empty)).where(noisy[:, None, None, None], empty)
        gradient = per_view(weight(self.weighting, alpha, sigma)) * (domain + self.scale * (text - empty))
        return Update(gradient, {"t": float(view.t.mean())})
