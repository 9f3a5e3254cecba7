"""Score Distillation via Inversion (Lukoianov et al. 2024)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from guidance.objectives.base import About, Update, View
from guidance.objectives.guided import Guided
from guidance.objectives.inversion import Inversion, ddim
from guidance.priors.base import Denoiser, cleaned


@dataclass(frozen=True)
class SDI(Guided):
    """gradient = x - xhat, with xhat the guided clean latent seen in the inversion of x under its text.

    SDS with the weighting `reconstruction`, whose drawn noise is replaced by the noise that inversion finds.
    """

    about: ClassVar[About | None] = About(
        title="Score Distillation via Inversion",
        source="Lukoianov et al. 2024; the code in threestudio",
        passes=(10, 24),
        scale="7.5, and -7.5 in the inversion",
        times="one time that falls from 0.98 to 0.25",
        good_for="detail near that of the prior's own pictures; slow, less so as the time falls",
    )

    scale: float = 7.5
    """Classifier-free guidance in the standard form (1 is none) of the clean latent."""
    inversion_scale: float = -7.5
    """The same in the inversion; 0 inverts without the text, in half the passes."""
    stride: float = 0.1
    """Stride of the inversion as a part of the schedule."""
    eta: float = 0.3
    """Share of random noise after each step of the inversion; 0 is deterministic."""
    mismatch: bool = False
    """As in the released code, the last step goes up to a stride too far, but the prior is told the time without."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.scale):
            raise ValueError(f"scale is {self.scale}; expected a finite number, such as 7.5")
        Inversion(self.stride, self.inversion_scale, self.eta)

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        inversion = Inversion(self.stride, self.inversion_scale, self.eta)
        start = torch.zeros_like(view.t)
        x_0 = ddim(prior, view.x, inversion.answer(prior, view.x, start, view.wanted), None, start)
        landing = (view.t + view.uniform * self.stride).clamp(max=1) if self.mismatch else None
        x_t = inversion(prior, x_0, view.t, view.wanted, view.second, landing)
        against, text = prior.predict(x_t, view.t, [view.wanted.negative, view.wanted.text])
        wanted = cleaned(x_t, self.answer(prior, x_t, view.t, against, text, self.scale), *prior.levels(view.t))
        return Update(view.x - wanted, {"t": float(view.t.mean())})
