"""A text, and what it asks for from every side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from guidance.objectives.base import Wanted
from guidance.priors.base import Against, Condition, Prior, together
from guidance.priors.mini.vocabulary import VIEWS

LONGEST = 1000
"""Characters in a prompt at most."""
Direction = Literal["auto", "words", "none"]
"""How a prior is told where the camera stands: by the camera where it sees one and else by words (auto), by words
alone, or not at all, to see what becomes of backs then."""


@dataclass(frozen=True)
class Prompt:
    """What the asset should be, and what it should not look like."""

    text: str
    negative: str = ""
    direction: Direction = "auto"
    perp_neg: float = 0.0
    """How strongly views keep away from other sides, 0 not at all and 1 as published: only `PerpNeg` listens."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Texts for the words of `VIEWS` that are not to hear `text` itself (see `guidance.conditioning.debias`)."""
    image: Float[Tensor, "1 N E"] | None = None
    """Tokens of a picture that shows what is wanted, from a prior that sees pictures."""

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError('the prompt is empty; give one such as "a teddy bear"')
        for text in (self.text, self.negative):
            if len(text) > LONGEST:
                raise ValueError(f"the prompt has {len(text)} characters; at most {LONGEST} are read")
            if not _is_unicode(text):
                raise ValueError("the prompt holds bytes that are no UTF-8 text; check the terminal's encoding")
        if not 0 <= self.perp_neg < math.inf:
            raise ValueError(f"perp_neg is {self.perp_neg}; expected 0 for none, 1 as published, or another number")
        if self.perp_neg and self.direction == "none":
            raise ValueError("perp_neg tells sides apart, and direction none tells none; leave one of them out")

    def seen_from(self, prior: Prior, azimuth: Float[Tensor, " B"], elevation: Float[Tensor, " B"]) -> Wanted:
        """The conditions of views from these angles (radians).

        A prior that sees the camera is told the angles; any other reads words for them (DreamFusion, section 3.1).
        """
        count = len(azimuth)
        camera = torch.stack([azimuth, elevation], -1)
        by_camera = prior.sees_camera and self.direction == "auto"
        empty, negative = prior.read([""] * count), prior.read([self.negative] * count)
        if not self.negative:
            negative = empty
        elif by_camera:
            negative = replace(negative, camera=camera)
        if by_camera or self.direction == "none":
            views = [view_word(float(a), float(e)) for a, e in zip(azimuth, elevation, strict=True)]
            text = prior.read([self.texts.get(view, self.text) for view in views])
            text = replace(text, camera=camera if by_camera else None)
        else:
            text = self._in_words(prior, azimuth, elevation)
        if self.image is not None:
            text = replace(text, image=self.image.expand(count, -1, -1))
        if self.perp_neg:
            text = self._kept_away(prior, text, azimuth, elevation)
        if together(prior) > 1:
            # What sees several views at once was never without their cameras.
            text, empty, negative = (replace(told, camera=camera) for told in (text, empty, negative))
        return Wanted(text, empty, negative, replace(prior.read([self.text] * count), camera=camera))

    def _with_word(self, view: str) -> str:
        """The text for a view, with the word for it."""
        return f"{self.texts.get(view, self.text)}, {view} view"

    def _in_words(self, prior: Prior, azimuth: Float[Tensor, " B"], elevation: Float[Tensor, " B"]) -> Condition:
        """The text with each view's word; beside Perp-Neg, which weighs sides smoothly, a blend of the nearest two."""
        if not self.perp_neg:
            words = [view_word(float(a), float(e)) for a, e in zip(azimuth, elevation, strict=True)]
            return prior.read([self._with_word(view) for view in words])
        every = prior.read([self._with_word(view) for view in VIEWS])
        shares = view_shares(azimuth, elevation).to(every.tokens)
        mask = torch.einsum("bv,vl->bl", shares, every.mask.to(shares)) > 0
        pooled = None if every.pooled is None else shares @ every.pooled
        return Condition(torch.einsum("bv,vld->bld", shares, every.tokens), mask, None, pooled=pooled)

    def _kept_away(
        self, prior: Prior, text: Condition, azimuth: Float[Tensor, " B"], elevation: Float[Tensor, " B"]
    ) -> Condition:
        """The text with the front and the side to keep away from, each view weighing them by its angle."""
        count, against = len(azimuth), []
        for view, turn, weight in zip(("front", "side"), (0.0, math.pi / 2), side_weights(azimuth), strict=True):
            if text.camera is None:
                other = prior.read([self._with_word(view)] * count)
            else:
                # From the same height, and of the two sides the nearer.
                beside = torch.where(_turned(azimuth) < 0, -turn, turn).to(azimuth)
                other = prior.read([self.texts.get(view, self.text)] * count)
                other = replace(other, camera=torch.stack([beside, elevation], -1))
            against.append(Against(other, torch.where(elevation > OVERHEAD, 0.0, self.perp_neg * weight).to(azimuth)))
        return replace(text, against=tuple(against))


OVERHEAD = math.radians(60)
"""Elevation above which a view shows no side (DreamFusion, section 3.1)."""


def view_word(azimuth: float, elevation: float) -> str:
    """The word of `VIEWS` for a camera at these angles in radians (DreamFusion, section 3.1)."""
    if elevation > OVERHEAD:
        return "overhead"
    turned = abs(math.degrees(math.remainder(azimuth, math.tau)))
    return "front" if turned < 45 else "side" if turned < 135 else "back"


def view_shares(azimuth: Float[Tensor, " B"], elevation: Float[Tensor, " B"]) -> Float[Tensor, "B 4"]:
    """How much of each of `VIEWS` a camera sees: 1 in all, in straight lines between front, side and back."""
    quarter = _turned(azimuth).abs() / (math.pi / 2)
    front, back = (1 - quarter).clamp_min(0), (quarter - 1).clamp_min(0)
    above = (elevation > OVERHEAD).to(azimuth)
    sides = torch.stack([front, 1 - front - back, back], -1) * (1 - above)[:, None]
    return torch.cat([sides, above[:, None]], -1)


def side_weights(azimuth: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Perp-Neg's weights of "front view" and "side view" as negatives, none above 0, in threestudio's numbers.

    From the front they are 0 and -1.6, from the side -1.6 and 0, from the back -2 and -0.4.
    """
    quarter = _turned(azimuth).abs() / (math.pi / 2)
    ahead, r = quarter < 1, torch.where(quarter < 1, 1 - quarter, 2 - quarter)
    front = torch.where(ahead, 4 * torch.exp(-0.5 * r) - 2.426, torch.exp(-0.5 * r) + 0.967)
    side = torch.where(ahead, 4 * torch.exp(-0.5 * (1 - r)) - 2.426, torch.exp(-0.5 * r) - 0.606)
    return -front.clamp_min(0), -side.clamp_min(0)


def _turned(azimuth: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """The azimuth without whole turns, -pi to pi."""
    return torch.atan2(azimuth.sin(), azimuth.cos())


def _is_unicode(text: str) -> bool:
    """Whether a text can be written down; arguments in a wrong encoding reach Python as lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)
