"""PG-SB: distillation under a random guidance scale (Nguyen et al. 2024, SNOOPI, section 4.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, get_args

from guidance.objectives.base import About, Update, View
from guidance.objectives.differences.sds import Weighting, check_choice, weight
from guidance.objectives.guided import Guided
from guidance.priors.base import Denoiser, noised, per_view


@dataclass(frozen=True)
class PGSB(Guided):
    """gradient = w(t) * (guided noise answer - the critic's, guided with the same scale), a new scale for each view.

    Both sides move alike when the scale does: what is approached is what the text describes, not, as in VSD, what
    guidance makes of it.
    """

    about: ClassVar[About | None] = About(
        title="PG-SB: one random scale for prior and critic",
        source="Nguyen et al. 2024 (SNOOPI), section 4.1, as others report it",
        passes=(2, 2),
        scale="2 to 5 with Stable Diffusion 2.1",
        times="0.02 to 0.98",
        good_for="VSD where no one scale is right",
        critic=2,
    )
    needs_critic: ClassVar[bool] = True

    lowest: float = 2.0
    """Least classifier-free guidance, of prior and critic, in the standard form (1 is none)."""
    highest: float = 5.0
    """Greatest classifier-free guidance; in between all scales are as likely."""
    weighting: Weighting = "sds"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("weighting", self.weighting, get_args(Weighting))
        if not -math.inf < self.lowest <= self.highest < math.inf:
            raise ValueError(f"scales from {self.lowest} to {self.highest}; expected lowest <= highest, both finite")

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        alpha, sigma = prior.levels(view.t)
        x_t = noised(view.x, view.noise, alpha, sigma)
        scale = self.lowest + (self.highest - self.lowest) * view.uniform
        against, text = prior.predict(x_t, view.t, [view.wanted.negative, view.wanted.text])
        empty, rendered = critic.predict(x_t, view.t, [view.wanted.empty, view.wanted.posed])
        k, w = per_view(scale), per_view(weight(self.weighting, alpha, sigma))
        wanted = self.answer(prior, x_t, view.t, against, text, k)
        apart = wanted - self.answer(prior, x_t, view.t, empty, rendered, k)
        return Update(w * apart, {"scale": float(scale.mean())})
