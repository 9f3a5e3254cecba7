"""Score Distillation Sampling (Poole et al. 2022, DreamFusion, eq. 3)."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from jaxtyping import Float
from torch import Tensor

from guidance.objectives.base import About, Update, View
from guidance.objectives.guided import Guided
from guidance.priors.base import Denoiser, noised, per_view

Weighting = Literal["sds", "uniform", "fantasia3d", "reconstruction"]
"""w(t): sigma^2 (DreamFusion), 1 (equal to SJC), alpha * sigma^2 (Fantasia3D), or sigma / alpha, which makes the
gradient x - xhat, the difference to the clean picture the prior sees in the noise (MVDream, section 3.3)."""


@dataclass(frozen=True)
class SDS(Guided):
    """gradient = w(t) * (guided noise answer - drawn noise)."""

    about: ClassVar[About | None] = About(
        title="Score Distillation Sampling",
        source="Poole et al. 2022 (DreamFusion), eq. 3",
        passes=(2, 2),
        scale="101, which DreamFusion and threestudio write as 100",
        times="0.02 to 0.98",
        good_for="the baseline: sturdy shapes, at high scales smooth and saturated",
    )

    scale: float = 7.5
    """Classifier-free guidance in the standard form (1 is none). DreamFusion used 101, with Imagen."""
    weighting: Weighting = "sds"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite("scale", self.scale)
        check_choice("weighting", self.weighting, get_args(Weighting))

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        alpha, sigma = prior.levels(view.t)
        x_t = noised(view.x, view.noise, alpha, sigma)
        against, text = prior.predict(x_t, view.t, [view.wanted.negative, view.wanted.text])
        answer = self.answer(prior, x_t, view.t, against, text, self.scale)
        gradient = per_view(weight(self.weighting, alpha, sigma)) * (answer - view.noise)
        return Update(gradient, {"t": float(view.t.mean())})


MAX_MAGNITUDE = 1e6
"""Largest magnitude of a hyper-parameter."""


def check_finite(name: str, value: float) -> None:
    """Raises ValueError for a hyper-parameter that is no number, or too large for the arithmetic of float32."""
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}; expected a finite number, such as 7.5")
    if abs(value) > MAX_MAGNITUDE:
        raise ValueError(f"{name} is {value:g}; expected a number from {-MAX_MAGNITUDE:g} to {MAX_MAGNITUDE:g}")


def check_choice(what: str, value: str, known: tuple[str, ...]) -> None:
    """Raises ValueError for a choice that does not exist; it names the nearest."""
    if value not in known:
        near = difflib.get_close_matches(value, known, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"unknown {what} {value!r}; {hint}(known: {', '.join(known)})")


def weight(kind: Weighting, alpha: Float[Tensor, " B"], sigma: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """w(t) of the weighting; see `Weighting`."""
    match kind:
        case "sds":
            return sigma.square()
        case "uniform":
            return sigma.new_ones(sigma.shape)
        case "fantasia3d":
            return alpha * sigma.square()
        case "reconstruction":
            return sigma / alpha
