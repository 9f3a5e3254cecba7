"""Bounds on gradients, whatever rule they come from.

Shapes: B views, C x h x w latents, H x W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Limits:
    """What a gradient may be at most. Nothing is bounded unless asked for."""

    clamp: tuple[float, float] | None = None
    """Largest element of the latents' gradient at the start and at the end, in a straight line between: debiased
    score distillation (Hong et al. 2023; 2 to 8 over 10000 steps)."""
    unit: bool = False
    """Divide the latents' gradient of all views by its length (Classifier Score Distillation, first stage)."""
    pixel: float | None = None
    """Largest channel of the gradient at a pixel of a rendered picture; a pixel above it is scaled as a whole
    (Dreamer-XL: 0.05; PGC-3D: 0.1)."""

    def __post_init__(self) -> None:
        for name, bounds in (("clamp", self.clamp or ()), ("pixel", () if self.pixel is None else (self.pixel,))):
            for bound in bounds:
                if not 0 < bound < math.inf:
                    raise ValueError(f"{name} is {bound}; expected a positive number, or None for no bound")

    def of_latents(self, gradient: Float[Tensor, "B C h w"], progress: float) -> Float[Tensor, "B C h w"]:
        """The bounded gradient of latents at `progress` 0..1; first the length, then the elements."""
        if self.unit:
            gradient = unit(gradient)
        if self.clamp is not None:
            start, end = self.clamp
            gradient = clamped(gradient, start + (end - start) * progress)
        return gradient

    def of_picture(self, gradient: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B H W 3"]:
        """The bounded gradient of rendered pictures."""
        return gradient if self.pixel is None else clipped(gradient, self.pixel)


def clamped(gradient: Float[Tensor, "B C h w"], most: float) -> Float[Tensor, "B C h w"]:
    """Each element alone brought into -most..most: outliers lose their size, and the whole may change direction."""
    return gradient.clamp(-most, most)


def unit(gradient: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
    """The same direction over all views together, of length 1; nothing stays nothing."""
    length: Tensor = torch.linalg.vector_norm(gradient)
    return gradient / (length + 1e-8)


def clipped(gradient: Float[Tensor, "B H W 3"], most: float) -> Float[Tensor, "B H W 3"]:
    """Each pixel divided by max(1, largest channel / most): no colour turns into another."""
    largest = gradient.abs().amax(-1, keepdim=True)
    return gradient / (largest / most).clamp_min(1)
