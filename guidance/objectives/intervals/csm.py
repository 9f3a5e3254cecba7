"""Classifier Score Matching (TV-3DG), as far as its abstract tells: the formula here is a reconstruction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from guidance.objectives.base import About, Objective, Update, View
from guidance.objectives.differences.sds import weight
from guidance.objectives.inversion import approached, check_interval
from guidance.priors.base import Denoiser, per_view


@dataclass(frozen=True)
class CSM(Objective):
    """gradient = sigma / alpha * scale * (answer under the text - answer under none), at the inverted latent.

    A negative prompt stands for none. This is ISM without its difference of two times. A text condition that holds the
    tokens of a picture (`Condition.image`) makes that picture the visual prompt, for priors that see pictures.
    """

    about: ClassVar[About | None] = About(
        title="Classifier Score Matching",
        source="TV-3DG, its abstract; the formula is reconstructed from it and from LucidDreamer's inversion",
        passes=(3, 8),
        scale="not published",
        times="not published; as ISM",
        good_for="the pull of the prompt alone, without noise in the updates; takes a visual prompt",
    )

    scale: float = 7.5
    """Factor of the guidance term; 7.5 makes it that of ISM."""
    delta: float = 0.08
    """Length of the last step of the inversion, as a part of the schedule."""
    stride: float = 0.2
    """Stride of the steps before it."""

    def __post_init__(self) -> None:
        check_interval(self.scale, self.delta, self.stride)

    @property
    def hears_negative(self) -> bool:
        return True

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        x_t = approached(prior, view, self.delta, self.stride).step(prior, view.t)
        against, text = prior.predict(x_t, view.t, [view.wanted.negative, view.wanted.text])
        factor = self.scale * weight("reconstruction", *prior.levels(view.t))
        return Update(per_view(factor) * (text - against), {"t": float(view.t.mean())})
