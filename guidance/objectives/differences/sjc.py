"""Score Jacobian Chaining (Wang et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from guidance.objectives.base import About, Update, View
from guidance.objectives.differences.sds import check_finite
from guidance.objectives.guided import Guided
from guidance.priors.base import Denoiser, noised


@dataclass(frozen=True)
class SJC(Guided):
    """gradient = (x - D(y)) / s, the way to the clean picture D that the prior sees in y = x + s * noise.

    The paper adds noise and scales nothing ("variance exploding"): s = sigma / alpha, y = x_t / alpha, and the network
    is fed alpha * y = x_t. With D(y) = y - s * answer the gradient is the guided answer less the drawn noise, which is
    SDS with the weighting `uniform`; leaving from y instead of x, it is the answer alone.
    """

    about: ClassVar[About | None] = About(
        title="Score Jacobian Chaining",
        source="Wang et al. 2022; run_sjc.py of the authors",
        passes=(2, 2),
        scale="100",
        times="0.01 to 0.97",
        good_for="voxel fields: every noise time pulls alike, so fine detail counts for more than in SDS",
    )

    scale: float = 7.5
    """Classifier-free guidance in the standard form (1 is none). The authors used 100 with Stable Diffusion."""
    variance_reduced: bool = True
    """Whether the way starts from the picture; otherwise it starts from the noised picture, the same on average."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite("scale", self.scale)

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        alpha, sigma = prior.levels(view.t)
        x_t = noised(view.x, view.noise, alpha, sigma)
        against, text = prior.predict(x_t, view.t, [view.wanted.negative, view.wanted.text])
        answer = self.answer(prior, x_t, view.t, against, text, self.scale)
        gradient = answer - view.noise if self.variance_reduced else answer
        return Update(gradient, {"t": float(view.t.mean())})
