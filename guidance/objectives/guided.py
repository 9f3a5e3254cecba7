"""Classifier-free guidance as most objectives ask for it: away from the negative prompt, and rescaled if wished."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from guidance.objectives.base import Objective, guided
from guidance.priors.base import Denoiser, cleaned, per_view, together


@dataclass(frozen=True)
class Guided(Objective, ABC):
    """A rule that asks about the text with classifier-free guidance.

    What the text is told apart from is `Wanted.negative`: no prompt, or the negative one where there is one.
    """

    rescale: float = field(default=0.0, kw_only=True)
    """Share, 0..1, by which the guided clean picture is brought back to the spread of the unguided one
    (Lin et al. 2023, section 3.4): less saturation at high scales."""

    def __post_init__(self) -> None:
        if not 0 <= self.rescale <= 1:
            raise ValueError(f"rescale is {self.rescale}; expected a share from 0 to 1")

    @property
    def hears_negative(self) -> bool:
        return True

    def answer(
        self,
        prior: Denoiser,
        x_t: Float[Tensor, "B C h w"],
        t: Float[Tensor, " B"],
        against: Float[Tensor, "B C h w"],
        text: Float[Tensor, "B C h w"],
        scale: float | Float[Tensor, "B 1 1 1"],
    ) -> Float[Tensor, "B C h w"]:
        """The guided answer made of two answers for x_t at t."""
        answer = guided(against, text, scale)
        if self.rescale == 0:
            return answer
        return rescaled(answer, text, x_t, *prior.levels(t), self.rescale, together(prior))


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
