"""A text, and what it asks for from every side."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from guidance.objective import Wanted
from guidance.prior import Prior

LONGEST = 1000
"""Characters in a prompt at most."""


@dataclass(frozen=True)
class Prompt:
    """What the asset should be, and what it should not look like."""

    text: str
    negative: str = ""

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError('the prompt is empty; give one such as "a teddy bear"')
        for text in (self.text, self.negative):
            if len(text) > LONGEST:
                raise ValueError(f"the prompt has {len(text)} characters; at most {LONGEST} are read")
            if not _is_unicode(text):
                raise ValueError("the prompt holds bytes that are no UTF-8 text; check the terminal's encoding")

    def seen_from(self, prior: Prior, azimuth: Float[Tensor, " B"], elevation: Float[Tensor, " B"]) -> Wanted:
        """The conditions of views from these angles (radians).

        A prior that sees the camera is told the angles; any other reads words for them (DreamFusion, section 3.1).
        """
        count = len(azimuth)
        empty, negative = prior.read([""] * count), prior.read([self.negative] * count)
        if prior.sees_camera:
            camera = torch.stack([azimuth, elevation], -1)
            text = replace(prior.read([self.text] * count), camera=camera)
            negative = replace(negative, camera=camera) if self.negative else empty
        else:
            views = [view_word(float(a), float(e)) for a, e in zip(azimuth, elevation, strict=True)]
            text = prior.read([f"{self.text}, {view} view" for view in views])
        posed = replace(prior.read([self.text] * count), camera=torch.stack([azimuth, elevation], -1))
        return Wanted(text, empty, negative, posed)


def view_word(azimuth: float, elevation: float) -> str:
    """`front`, `side`, `back` or `overhead` for a camera at these angles in radians (DreamFusion, section 3.1)."""
    if elevation > math.radians(60):
        return "overhead"
    turned = abs(math.degrees(math.remainder(azimuth, math.tau)))
    return "front" if turned < 45 else "side" if turned < 135 else "back"


def _is_unicode(text: str) -> bool:
    """Whether a text can be written down; arguments in a wrong encoding reach Python as lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)
