"""Score Distillation Sampling (Poole et al. 2022, DreamFusion, eq. 3)."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from jaxtyping import Float
from torch import Tensor

from guidance.objective import About, Objective, Update, View, guided
from guidance.prior import Denoiser, cleaned, noised, per_view, together

Weighting = Literal["sds", "uniform", "fantasia3d", "reconstruction"]
"""w(t): sigma^2 (DreamFusion), 1 (equal to SJC), alpha * sigma^2 (Fantasia3D), or sigma / alpha, which makes the
gradient x - xhat, the difference to the clean picture the prior sees in the noise (MVDream, section 3.3)."""


@dataclass(frozen=True)
class SDS(Objective):
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
    rescale: float = 0.0
    """Share, 0..1, by which the guided clean picture is brought back to the spread of the unguided one
    (Lin et al. 2023, section 3.4): less saturation at high scales."""

    def __post_init__(self) -> None:
        check_finite("scale", self.scale)
        check_choice("weighting", self.weighting, get_args(Weighting))
        if not 0 <= self.rescale <= 1:
            raise ValueError(f"rescale is {self.rescale}; expected a share from 0 to 1")

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        alpha, sigma = prior.levels(view.t)
        x_t = noised(view.x, view.noise, alpha, sigma)
        empty, text = prior.predict(x_t, view.t, [view.wanted.empty, view.wanted.text])
        answer = guided(empty, text, self.scale)
        if self.rescale > 0:
            answer = rescaled(answer, text, x_t, alpha, sigma, self.rescale, together(prior))
        gradient = per_view(weight(self.weighting, alpha, sigma)) * (answer - view.noise)
        return Update(gradient, {"t": float(view.t.mean())})


def check_finite(name: str, value: float) -> None:
    """Raises ValueError for a hyper-parameter that is no number."""
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}; expected a finite number, such as 7.5")


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


def rescaled(
    answer: Float[Tensor, "B C h w"],
    text: Float[Tensor, "B C h w"],
    x_t: Float[Tensor, "B C h w"],
    alpha: Float[Tensor, " B"],
    sigma: Float[Tensor, " B"],
    share: float,
    many: int = 1,
) -> Float[Tensor, "B C h w"]:
    """The noise answer whose clean picture has its spread moved by `share` towards that of the text's answer.

    The spread is of each group of `many` views, which a prior that sees several at once takes for one sample.
    """
    guided_x, text_x = cleaned(x_t, answer, alpha, sigma), cleaned(x_t, text, alpha, sigma)
    wanted, found = (x.unflatten(0, (-1, many)).flatten(1).std(1) for x in (text_x, guided_x))
    ratio = (wanted / found.clamp_min(1e-6)).repeat_interleave(many)
    x = guided_x * per_view(1 - share + share * ratio)
    return (x_t - per_view(alpha) * x) / per_view(sigma).clamp_min(1e-6)
