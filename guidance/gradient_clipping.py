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
class GradientClipping:
    """What a gradient may be at most. Nothing is bounded unless asked for."""

    value: tuple[float, float] | None = None
    """Largest element of the latents' gradient at the start and at the end, in a straight line between: debiased
    score distillation (Hong et al. 2023; 2 to 8 over 10000 steps)."""
    normalize: bool = False
    """Divide the latents' gradient of all views by its length (Classifier Score Distillation, first stage)."""
    pixel_norm: float | None = None
    """Largest channel of the gradient at a pixel of a rendered picture; a pixel above it is scaled as a whole
    (Dreamer-XL: 0.05; PGC-3D: 0.1)."""

    def __post_init__(self) -> None:
        for name, bounds in (
            ("value", self.value or ()),
            ("pixel_norm", () if self.pixel_norm is None else (self.pixel_norm,)),
        ):
            for bound in bounds:
                if not 0 < bound < math.inf:
                    raise ValueError(f"{name} is {bound}; expected a positive number, or None for no bound")

    def clip_latents(self, grad: Float[Tensor, "B C h w"], progress: float) -> Float[Tensor, "B C h w"]:
        """The bounded gradient of latents at `progress` 0..1; first the length, then the elements."""
        if self.normalize:
            grad = normalize_grad(grad)
        if self.value is not None:
            start, end = self.value
            grad = clip_elementwise(grad, start + (end - start) * progress)
        return grad

    def clip_pixels(self, grad: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B H W 3"]:
        """The bounded gradient of rendered pictures."""
        return grad if self.pixel_norm is None else clip_pixelwise(grad, self.pixel_norm)


def clip_elementwise(grad: Float[Tensor, "B C h w"], max_value: float) -> Float[Tensor, "B C h w"]:
    """Each element alone brought into -most..most: outliers lose their size, and the whole may change direction."""
    return grad.clamp(-max_value, max_value)


def normalize_grad(grad: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
    """The same direction over all views together, of length 1; nothing stays nothing."""
    norm: Tensor = torch.linalg.vector_norm(grad)
    return grad / (norm + 1e-8)


def clip_pixelwise(grad: Float[Tensor, "B H W 3"], max_norm: float) -> Float[Tensor, "B H W 3"]:
    """Each pixel divided by max(1, largest channel / most): no colour turns into another."""
    largest = grad.abs().amax(-1, keepdim=True)
    return grad / (largest / max_norm).clamp_min(1)
