"""Perp-Neg: keeping away from other sides of a thing without keeping away from the thing (Armandpour et al. 2023).

What a negative says that the text says too is left alone; only the part of it at right angles counts, so a "front
view" as the negative of a "back view" costs nothing of the bear that both show.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from guidance.priors.base import Condition, Denoiser, expand_like_latents, views_per_group


@dataclass(frozen=True)
class PerpNeg:
    """A `Denoiser` that answers a condition with `against` by e_0 + e + sum_i w_i * perp_i (eq. 6).

    e is the text's answer less the empty prompt's e_0, and perp_i what is left of a negative's after its projection
    on e, view by view. Guided, that is e_0 + s * (e + sum_i w_i * perp_i); other conditions are answered as ever.
    All is asked in one pass of the prior, every negative about every view's own latents.
    """

    prior: Denoiser
    uncond: Condition
    """No prompt; the first row stands for every view."""

    @property
    def views_per_group(self) -> int:
        """Views that the prior has to be shown at once."""
        return views_per_group(self.prior)

    def alpha_sigma(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        return self.prior.alpha_sigma(t)

    def predict_noise(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], conditions: list[Condition]
    ) -> Float[Tensor, "K B C h w"]:
        negatives = [other.condition for condition in conditions for other in condition.perp_negatives]
        if not negatives:
            return self.prior.predict_noise(x_t, t, conditions)
        # Most rules ask about the empty prompt themselves.
        uncond_index = next(
            (k for k, condition in enumerate(conditions) if self._is_uncond(condition)), len(conditions)
        )
        uncond_rows = self.uncond.select(torch.zeros(len(x_t), dtype=torch.long, device=x_t.device))
        all_conditions = [*conditions, *([uncond_rows] if uncond_index == len(conditions) else []), *negatives]
        noise_preds = self.prior.predict_noise(x_t, t, all_conditions)
        uncond, negative_preds = noise_preds[uncond_index], iter(noise_preds[len(all_conditions) - len(negatives) :])
        outputs = []
        for noise_pred, condition in zip(noise_preds, conditions, strict=False):
            e = noise_pred - uncond
            perpendicular = [
                expand_like_latents(other.weight.to(e)) * perpendicular_component(next(negative_preds) - uncond, e)
                for other in condition.perp_negatives
            ]
            outputs.append(noise_pred + sum(perpendicular[1:], start=perpendicular[0]) if perpendicular else noise_pred)
        return torch.stack(outputs)

    def _is_uncond(self, condition: Condition) -> bool:
        """Whether a condition says what the empty one says, for every view."""
        if condition.camera is not None or condition.image_embeds is not None or condition.perp_negatives:
            return False
        tokens, mask = self.uncond.text_embeds[:1], self.uncond.attention_mask[:1]
        same_shape = condition.text_embeds.shape[1:] == tokens.shape[1:]
        return same_shape and bool((condition.attention_mask == mask).all() and (condition.text_embeds == tokens).all())


def perpendicular_component(other: Float[Tensor, "B C h w"], e: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
    """What of `other` is at right angles to `e`, view by view."""
    coefficient = (other * e).flatten(1).sum(1) / e.square().flatten(1).sum(1).clamp_min(1e-6)
    return other - expand_like_latents(coefficient) * e
