"""A text, and what it asks for from every side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from guidance.conditioning.conditions import ViewConditions
from guidance.priors.base import Condition, Prior, WeightedNegative, views_per_group
from guidance.priors.views import OVERHEAD_ELEVATION, VIEW_LABELS, view_label
from guidance.uploading import uploaded

MAX_PROMPT_CHARS = 1000
"""Characters in a prompt at most."""
ViewConditioning = Literal["auto", "text", "none"]
"""How a prior is told where the camera stands: by the camera where it sees one and else by words (auto), by words
alone, or not at all, to see what becomes of backs then."""


@dataclass(frozen=True)
class Prompt:
    """What the asset should be, and what it should not look like."""

    text: str
    negative: str = ""
    view_conditioning: ViewConditioning = "auto"
    perp_neg: float = 0.0
    """How strongly views keep away from other sides, 0 not at all and 1 as published: only `PerpNeg` listens."""
    view_texts: Mapping[str, str] = field(default_factory=dict)
    """Texts for the words of `VIEWS` that are not to hear `text` itself (see `guidance.conditioning.debias_model`)."""
    image_embeds: Float[Tensor, "1 N E"] | None = None
    """Tokens of a picture that shows what is wanted, from a prior that sees pictures."""

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError('the prompt is empty; give one such as "a teddy bear"')
        for text in (self.text, self.negative):
            if len(text) > MAX_PROMPT_CHARS:
                raise ValueError(f"the prompt has {len(text)} characters; at most {MAX_PROMPT_CHARS} are read")
            if not _is_valid_unicode(text):
                raise ValueError("the prompt holds bytes that are no UTF-8 text; check the terminal's encoding")
        if not 0 <= self.perp_neg < math.inf:
            raise ValueError(f"perp_neg is {self.perp_neg}; expected 0 for none, 1 as published, or another number")
        if self.perp_neg and self.view_conditioning == "none":
            raise ValueError("perp_neg tells sides apart, and direction none tells none; leave one of them out")

    def conditions_for(
        self, prior: Prior, azimuth: Float[Tensor, " B"], elevation: Float[Tensor, " B"]
    ) -> ViewConditions:
        """The conditions of views from these angles (radians).

        A prior that sees the camera is told the angles; any other reads words for them (DreamFusion, section 3.1).
        """
        count = len(azimuth)
        # The words for a view are looked up in main memory, where the angles best are from the start.
        azimuth, elevation = torch.stack([azimuth, elevation]).cpu()
        use_camera = prior.camera_conditioned and self.view_conditioning == "auto"
        uncond, negative = prior.encode_prompt([""] * count), prior.encode_prompt([self.negative] * count)
        (camera,) = uploaded([torch.stack([azimuth, elevation], -1)], uncond.text_embeds.device)
        if not self.negative:
            negative = uncond
        elif use_camera:
            negative = replace(negative, camera=camera)
        if use_camera or self.view_conditioning == "none":
            views = view_words(azimuth, elevation)
            text = prior.encode_prompt([self.view_texts.get(view, self.text) for view in views])
            text = replace(text, camera=camera if use_camera else None)
        else:
            text = self._view_dependent_text(prior, azimuth, elevation)
        if self.image_embeds is not None:
            text = replace(text, image_embeds=self.image_embeds.expand(count, -1, -1))
        if self.perp_neg:
            text = self._with_perp_negatives(prior, text, azimuth, elevation)
        if views_per_group(prior) > 1:
            # What sees several views at once was never without their cameras.
            text, uncond, negative = (replace(condition, camera=camera) for condition in (text, uncond, negative))
        return ViewConditions(text, uncond, negative, replace(prior.encode_prompt([self.text] * count), camera=camera))

    def _text_for_view(self, view: str) -> str:
        """The text for a view, with the word for it."""
        return f"{self.view_texts.get(view, self.text)}, {view} view"

    def _view_dependent_text(
        self, prior: Prior, azimuth: Float[Tensor, " B"], elevation: Float[Tensor, " B"]
    ) -> Condition:
        """The text with each view's word; beside Perp-Neg, which weighs sides smoothly, a blend of the nearest two."""
        if not self.perp_neg:
            return prior.encode_prompt([self._text_for_view(view) for view in view_words(azimuth, elevation)])
        all_views = prior.encode_prompt([self._text_for_view(view) for view in VIEW_LABELS])
        (weights,) = uploaded(
            [view_weights(azimuth, elevation).to(all_views.text_embeds.dtype)], all_views.text_embeds.device
        )
        mask = torch.einsum("bv,vl->bl", weights, all_views.attention_mask.to(weights)) > 0
        pooled = None if all_views.pooled_embeds is None else weights @ all_views.pooled_embeds
        return Condition(torch.einsum("bv,vld->bld", weights, all_views.text_embeds), mask, None, pooled_embeds=pooled)

    def _with_perp_negatives(
        self, prior: Prior, text: Condition, azimuth: Float[Tensor, " B"], elevation: Float[Tensor, " B"]
    ) -> Condition:
        """The text with the front and the side to keep away from, each view weighing them by its angle."""
        count, negatives = len(azimuth), []
        for view, turn, weight in zip(("front", "side"), (0.0, math.pi / 2), perp_neg_weights(azimuth), strict=True):
            if text.camera is None:
                negative = prior.encode_prompt([self._text_for_view(view)] * count)
            else:
                # From the same height, and of the two sides the nearer.
                side_azimuth = torch.where(wrap_angle(azimuth) < 0, -turn, turn).to(azimuth)
                negative = prior.encode_prompt([self.view_texts.get(view, self.text)] * count)
                (camera,) = uploaded([torch.stack([side_azimuth, elevation], -1)], negative.text_embeds.device)
                negative = replace(negative, camera=camera)
            strength = torch.where(elevation > OVERHEAD_ELEVATION, 0.0, self.perp_neg * weight).to(azimuth)
            (strength,) = uploaded([strength], negative.text_embeds.device)
            negatives.append(WeightedNegative(negative, strength))
        return replace(text, perp_negatives=tuple(negatives))


def view_words(azimuth: Float[Tensor, " B"], elevation: Float[Tensor, " B"]) -> list[str]:
    """The word of each camera."""
    return [view_label(a, e) for a, e in zip(azimuth.tolist(), elevation.tolist(), strict=True)]


def view_weights(azimuth: Float[Tensor, " B"], elevation: Float[Tensor, " B"]) -> Float[Tensor, "B 4"]:
    """How much of each of `VIEWS` a camera sees: 1 in all, in straight lines between front, side and back."""
    quarter_turns = wrap_angle(azimuth).abs() / (math.pi / 2)
    front, back = (1 - quarter_turns).clamp_min(0), (quarter_turns - 1).clamp_min(0)
    overhead = (elevation > OVERHEAD_ELEVATION).to(azimuth)
    sides = torch.stack([front, 1 - front - back, back], -1) * (1 - overhead)[:, None]
    return torch.cat([sides, overhead[:, None]], -1)


def perp_neg_weights(azimuth: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Perp-Neg's weights of "front view" and "side view" as negatives, none above 0, in threestudio's numbers.

    From the front they are 0 and -1.6, from the side -1.6 and 0, from the back -2 and -0.4.
    """
    quarter_turns = wrap_angle(azimuth).abs() / (math.pi / 2)
    in_front, r = quarter_turns < 1, torch.where(quarter_turns < 1, 1 - quarter_turns, 2 - quarter_turns)
    front = torch.where(in_front, 4 * torch.exp(-0.5 * r) - 2.426, torch.exp(-0.5 * r) + 0.967)
    side = torch.where(in_front, 4 * torch.exp(-0.5 * (1 - r)) - 2.426, torch.exp(-0.5 * r) - 0.606)
    return -front.clamp_min(0), -side.clamp_min(0)


def wrap_angle(azimuth: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """The azimuth without whole turns, -pi to pi."""
    return torch.atan2(azimuth.sin(), azimuth.cos())


def _is_valid_unicode(text: str) -> bool:
    """Whether a text can be written down; arguments in a wrong encoding reach Python as lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)
