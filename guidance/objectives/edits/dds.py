"""Delta Denoising Score (Hertz et al. 2023)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from guidance.objectives.base import About, Source, Update, View
from guidance.objectives.guided import Guided
from guidance.priors.base import Denoiser, noised


@dataclass(frozen=True)
class DDS(Guided):
    """gradient = guided answer for the edit - guided answer for the source, with the same noise and time."""

    about: ClassVar[About | None] = About(
        title="Delta Denoising Score",
        source="Hertz et al. 2023; the notebook released with it",
        passes=(4, 4),
        scale="7.5",
        times="0.05 to 0.95",
        good_for="editing: what source and target share cancels, the noise above all",
    )
    needs_source: ClassVar[bool] = True

    scale: float = 7.5
    """Classifier-free guidance in the standard form (1 is none), for both."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.scale):
            raise ValueError(f"scale is {self.scale}; expected a finite number, such as 7.5")

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        source = edited(view)
        alpha, sigma = prior.levels(view.t)
        answers = []
        for x, condition in ((view.x, view.wanted.text), (source.x, source.text)):
            x_t = noised(x, view.noise, alpha, sigma)
            against, text = prior.predict(x_t, view.t, [view.wanted.negative, condition])
            answers.append(self.answer(prior, x_t, view.t, against, text, self.scale))
        return Update(answers[0] - answers[1], {"t": float(view.t.mean())})


def edited(view: View) -> Source:
    """What the view is an edit of.

    Raises:
        ValueError: it is of none.
    """
    if view.source is None:
        raise ValueError("this objective edits an existing scene, and the view has no source; give one, or use sds")
    return view.source
