"""Perp-Neg: keeping away from other sides of a thing without keeping away from the thing (Armandpour et al. 2023).

What a negative says that the text says too is left alone; only the part of it at right angles counts, so a "front
view" as the negative of a "back view" costs nothing of the bear that both show.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from guidance.priors.base import Condition, Denoiser, per_view, together


@dataclass(frozen=True)
class PerpNeg:
    """A `Denoiser` that answers a condition with `against` by e_0 + e + sum_i w_i * perp_i (eq. 6).

    e is the text's answer less the empty prompt's e_0, and perp_i what is left of a negative's after its projection
    on e, view by view. Guided, that is e_0 + s * (e + sum_i w_i * perp_i); other conditions are answered as ever.
    All is asked in one pass of the prior, every negative about every view's own latents.
    """

    prior: Denoiser
    empty: Condition
    """No prompt; the first row stands for every view."""

    @property
    def together(self) -> int:
        """Views that the prior has to be shown at once."""
        return together(self.prior)

    def levels(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        return self.prior.levels(t)

    def predict(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], conditions: list[Condition]
    ) -> Float[Tensor, "K B C h w"]:
        negatives = [other.condition for condition in conditions for other in condition.against]
        if not negatives:
            return self.prior.predict(x_t, t, conditions)
        # Most rules ask about the empty prompt themselves.
        place = next((k for k, condition in enumerate(conditions) if self._is_empty(condition)), len(conditions))
        here = self.empty.rows(torch.zeros(len(x_t), dtype=torch.long, device=x_t.device))
        asked = [*conditions, *([here] if place == len(conditions) else []), *negatives]
        answers = self.prior.predict(x_t, t, asked)
        empty, rest = answers[place], iter(answers[len(asked) - len(negatives) :])
        told = []
        for answer, condition in zip(answers, conditions, strict=False):
            e = answer - empty
            away = [per_view(other.weight.to(e)) * perpendicular(next(rest) - empty, e) for other in condition.against]
            told.append(answer + sum(away[1:], start=away[0]) if away else answer)
        return torch.stack(told)

    def _is_empty(self, condition: Condition) -> bool:
        """Whether a condition says what the empty one says, for every view."""
        if condition.camera is not None or condition.image is not None or condition.against:
            return False
        tokens, mask = self.empty.tokens[:1], self.empty.mask[:1]
        same = condition.tokens.shape[1:] == tokens.shape[1:]
        return same and bool((condition.mask == mask).all() and (condition.tokens == tokens).all())


def perpendicular(other: Float[Tensor, "B C h w"], e: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
    """What of `other` is at right angles to `e`, view by view."""
    along = (other * e).flatten(1).sum(1) / e.square().flatten(1).sum(1).clamp_min(1e-6)
    return other - per_view(along) * e
