"""Posterior Distillation Sampling (Koo et al. 2024)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from guidance.objectives.base import About, Update, View
from guidance.objectives.edits.dds import DDS, edited
from guidance.objectives.guided import Guided
from guidance.priors.base import Denoiser, per_view


@dataclass(frozen=True)
class PDS(Guided):
    """gradient = psi(t) * (edit - source) + chi(t) * (answer for the edit - answer for the source), DDS's difference.

    It is the difference between the noises that would lead the two from time t to the same draw at t', a step of the
    grid before: the edit should keep the source's. psi holds it to the source; it comes from a grid that is coarser
    than the steps of the prior, and vanishes where they are equal.
    """

    about: ClassVar[About | None] = About(
        title="Posterior Distillation Sampling",
        source="Koo et al. 2024; its released code",
        passes=(4, 4),
        scale="100",
        times="0.02 to 0.98",
        good_for="editing that keeps the identity of the source",
    )
    needs_source: ClassVar[bool] = True

    scale: float = 100.0
    """Classifier-free guidance in the standard form (1 is none), for both."""
    grid: int = 500
    """Steps that the schedule is walked in: t' is t - 1 / grid. As many as `steps` is DDS with another weight."""
    steps: int = 1000
    """Steps that the prior was trained with, whose variance the posterior has."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.scale):
            raise ValueError(f"scale is {self.scale}; expected a finite number, such as 100")
        if not self.steps >= 2:
            raise ValueError(f"steps is {self.steps}; expected at least 2, such as 1000")
        if not 2 <= self.grid <= self.steps:
            raise ValueError(f"grid is {self.grid}; expected from 2 to the {self.steps} steps of the prior")

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        apart = view.x - edited(view).x
        difference = DDS(self.scale, rescale=self.rescale)(prior, prior, view).gradient
        psi, chi = (per_view(value.to(view.x.dtype)) for value in self.factors(prior, view.t))
        logs = {"t": float(view.t.mean()), "psi": float(psi.mean())}
        return Update(psi * apart + chi * difference, logs)

    def factors(self, prior: Denoiser, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """(psi, chi), float64, for the mean c0 * xhat + c1 * x_t of the posterior (Ho et al. 2020, eq. 7).

        Times too near to 0 for a step of the grid and one of the prior before it have those of the first that is not.
        """
        step = 1 / (self.steps - 1)
        stride = step * self.steps / self.grid
        t = t.double().clamp_min(step + stride)
        now, before = _share(prior, t), _share(prior, t - stride)
        beta = 1 - now / _share(prior, t - step)
        c0 = before.sqrt() * beta / (1 - now)
        c1 = (1 - beta).sqrt() * (1 - before) / (1 - now)
        spread = (beta * (1 - before) / (1 - now)).sqrt()
        psi = (before.sqrt() - c0 - c1 * now.sqrt()) / spread
        return psi, c0 * ((1 - now) / now).sqrt() / spread


def _share(prior: Denoiser, t: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Share of the clean latent in the variance at time `t`: alpha squared where signal and noise add up to one."""
    alpha, sigma = prior.levels(t)
    return alpha.square() / (alpha.square() + sigma.square())
