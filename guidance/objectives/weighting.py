"""Weights over timesteps, and checks of hyper-parameters."""

from __future__ import annotations

import difflib
import math
from typing import Literal

from jaxtyping import Float
from torch import Tensor

Weighting = Literal["sds", "uniform", "fantasia3d", "reconstruction"]
"""w(t): sigma^2 (DreamFusion), 1 (equal to SJC), alpha * sigma^2 (Fantasia3D), or sigma / alpha, which makes the
gradient x - xhat, the difference to the clean picture the prior sees in the noise (MVDream, section 3.3)."""


MAX_MAGNITUDE = 1e6
"""Largest magnitude of a hyper-parameter."""


def check_finite(name: str, value: float) -> None:
    """Raises ValueError for a hyper-parameter that is no number, or too large for the arithmetic of float32."""
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}; expected a finite number, such as 7.5")
    if abs(value) > MAX_MAGNITUDE:
        raise ValueError(f"{name} is {value:g}; expected a number from {-MAX_MAGNITUDE:g} to {MAX_MAGNITUDE:g}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises ValueError for a choice that does not exist; it names the nearest."""
    if value not in choices:
        near = difflib.get_close_matches(value, choices, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"unknown {name} {value!r}; {hint}(known: {', '.join(choices)})")


def timestep_weight(
    weighting: Weighting, alpha: Float[Tensor, " B"], sigma: Float[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """w(t) of the weighting; see `Weighting`."""
    match weighting:
        case "sds":
            return sigma.square()
        case "uniform":
            return sigma.new_ones(sigma.shape)
        case "fantasia3d":
            return alpha * sigma.square()
        case "reconstruction":
            return sigma / alpha
