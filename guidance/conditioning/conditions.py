"""Conditions of the views of a batch."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from guidance.priors.base import Condition


@dataclass(frozen=True)
class ViewConditions:
    """What the views of a batch should show, under every condition an objective may ask about."""

    text: Condition
    """The prompt, as seen from each view's camera."""
    uncond: Condition
    """No prompt."""
    negative: Condition
    """What should not be seen; `empty` itself where no negative prompt was given."""
    text_with_camera: Condition
    """The prompt without words for the view, and always with the camera: what a critic is told."""

    def select(self, index: Int[Tensor, " N"]) -> ViewConditions:
        """These views alone."""
        uncond = self.uncond.select(index)
        negative = uncond if self.negative is self.uncond else self.negative.select(index)
        return ViewConditions(self.text.select(index), uncond, negative, self.text_with_camera.select(index))
