"""Classifier-free guidance."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def classifier_free_guidance(
    uncond: Float[Tensor, "B C h w"], text: Float[Tensor, "B C h w"], guidance_scale: float | Float[Tensor, "B 1 1 1"]
) -> Float[Tensor, "B C h w"]:
    """Classifier-free guidance: empty + scale * (text - empty) (Ho & Salimans 2022, eq. 6, with scale = 1 + w).

    Scale 1 is none, 0 is unconditional. Code that writes text + s * (text - empty) means scale = s + 1 here.
    """
    return uncond + guidance_scale * (text - uncond)
