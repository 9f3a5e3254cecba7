"""Distillation of flow-matching priors, and its form with corrected noise (Yang et al. 2024, RFDS and RFDS-Rev)."""

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

Correction = Literal["level", "whole"]
"""How much of the answer's error in velocity the noise takes on: 1 - t (the code for SD3) or 1 (for 2-rectified flow,
InstaFlow)."""


@dataclass(frozen=True)
class RFDS(Guided):
    """gradient = guided velocity - (noise - x) = (guided noise answer - noise) / alpha, with alpha = 1 - sigma.

    So it is SDS with the weight 1 / alpha, which grows towards the noisy end.
    """

    about: ClassVar[About | None] = About(
        title="Rectified Flow Distillation Sampling",
        source="Yang et al. 2024; its released code",
        passes=(2, 2),
        scale="100 (SD3), 50 (InstaFlow)",
        times="0.02 to 0.7 (SD3, shift 3); 0.02 to 0.98, later 0.3 to 0.98 (InstaFlow)",
        good_for="the baseline for flow-matching priors",
    )
    needs_flow: ClassVar[bool] = True

    scale: float = 50.0
    """Classifier-free guidance in the standard form (1 is none)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.scale):
            raise ValueError(f"scale is {self.scale}; expected a finite number, such as 50")

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        return Update(_pull(self, prior, view, view.noise), {"t": float(view.t.mean())})


@dataclass(frozen=True)
class RFDSRev(Guided):
    """RFDS, whose noise is first moved towards the noise that the prior sees.

    noise + step * (velocity under the text - (noise - x)). With the correction `level` the result is the prior's own
    answer under the text.
    """

    about: ClassVar[About | None] = About(
        title="Rectified Flow Distillation Sampling, reversed noise",
        source="Yang et al. 2024; its released code",
        passes=(3, 3),
        scale="100 (SD3), 50 (InstaFlow)",
        times="0.02 to 0.7 (SD3, shift 3); 0.02 to 0.98, later 0.3 to 0.98 (InstaFlow)",
        good_for="flow-matching priors, with updates of less noise and more detail",
    )
    needs_flow: ClassVar[bool] = True

    scale: float = 50.0
    """Classifier-free guidance in the standard form (1 is none)."""
    correction: Correction = "level"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.scale):
            raise ValueError(f"scale is {self.scale}; expected a finite number, such as 50")
        if self.correction not in get_args(Correction):
            known = get_args(Correction)
            near = difflib.get_close_matches(self.correction, known, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ValueError(f"unknown correction {self.correction!r}; {hint}(known: {', '.join(known)})")

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        alpha, sigma = prior.levels(view.t)
        (text,) = prior.predict(noised(view.x, view.noise, alpha, sigma), view.t, [view.wanted.text])
        error = text - view.noise
        noise = text if self.correction == "level" else view.noise + error / per_view(alpha.clamp_min(_LEAST))
        return Update(_pull(self, prior, view, noise), {"t": float(view.t.mean())})


_LEAST = 1e-3
"""The smallest alpha that is divided by: at pure noise the clean latent has no part in the velocity's error."""


def _pull(
    rule: RFDS | RFDSRev, prior: Denoiser, view: View, noise: Float[Tensor, "B C h w"]
) -> Float[Tensor, "B C h w"]:
    """How far the guided velocity is from `noise` - x."""
    alpha, sigma = prior.levels(view.t)
    x_t = noised(view.x, noise, alpha, sigma)
    against, text = prior.predict(x_t, view.t, [view.wanted.negative, view.wanted.text])
    return (rule.answer(prior, x_t, view.t, against, text, rule.scale) - noise) / per_view(alpha.clamp_min(_LEAST))
