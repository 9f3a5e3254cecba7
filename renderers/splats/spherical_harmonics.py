"""Colours that depend on where they are seen from: real spherical harmonics up to degree 3.

The order and signs of the basis are those of splat files and gsplat (Sloan 2013, "Efficient spherical harmonic
evaluation"): degree by degree, orders -l..l, with the Condon-Shortley phase. Shapes: N splats, B cameras,
K = (degree + 1)^2 coefficients.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

MAX_DEGREE = 3
CONSTANT = 0.5 / math.sqrt(math.pi)
"""The basis function of degree 0: colour = 0.5 + CONSTANT * coefficient."""


def num_sh_bases(degree: int) -> int:
    """K for a degree. Raises ValueError outside 0..3."""
    if not 0 <= degree <= MAX_DEGREE:
        raise ValueError(f"spherical harmonics of degree {degree} are not known; choose 0 to {MAX_DEGREE}")
    return (degree + 1) ** 2


def eval_sh_bases(directions: Float[Tensor, "B N 3"], count: int) -> Float[Tensor, "B N K"]:
    """The first `count` basis functions (1, 4, 9 or 16) at unit directions."""
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    values = [torch.full_like(x, CONSTANT)]
    if count > 1:
        a = math.sqrt(3 / (4 * math.pi))
        values += [-a * y, a * z, -a * x]
    if count > 4:
        a, b = math.sqrt(15 / (4 * math.pi)), math.sqrt(5 / (16 * math.pi))
        values += [a * x * y, -a * y * z, b * (2 * zz - xx - yy), -a * x * z, 0.5 * a * (xx - yy)]
    if count > 9:
        a, b = math.sqrt(35 / (32 * math.pi)), math.sqrt(105 / (4 * math.pi))
        c, d = math.sqrt(21 / (32 * math.pi)), math.sqrt(7 / (16 * math.pi))
        values += [-a * y * (3 * xx - yy), b * x * y * z, -c * y * (4 * zz - xx - yy)]
        values += [d * z * (2 * zz - 3 * xx - 3 * yy), -c * x * (4 * zz - xx - yy)]
        values += [0.5 * b * z * (xx - yy), -a * x * (xx - 3 * yy)]
    return torch.stack(values, -1)


def sh_to_rgb(
    sh: Float[Tensor, "N K 3"], means: Float[Tensor, "N 3"], positions: Float[Tensor, "B 3"]
) -> Float[Tensor, "N 3"] | Float[Tensor, "B N 3"]:
    """Colours of splats at `means`, seen from camera `positions`; the same for all cameras when K is 1. At least 0.

    Differentiable in `sh`, and in `means` through the direction. Raises ValueError for a K that is no degree's.
    """
    count = sh.shape[1]
    if count == 1:
        return (0.5 + CONSTANT * sh[:, 0]).clamp_min(0)
    if count not in (4, 9, 16):
        raise ValueError(f"{count} coefficients are no degree of spherical harmonics; 1, 4, 9 and 16 are")
    directions = functional.normalize(means - positions[:, None], dim=-1)
    return (0.5 + torch.einsum("bnk,nkc->bnc", eval_sh_bases(directions, count), sh)).clamp_min(0)
