"""Pictures straight from a prior, by deterministic DDIM steps: to see what it knows, and to judge it."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from guidance.objectives.base import guided
from guidance.priors.base import Condition, Prior, cleaned, noised


@torch.no_grad()
def sample(
    prior: Prior,
    noise: Float[Tensor, "B C h w"],
    text: Condition,
    empty: Condition,
    scale: float,
    steps: int = 30,
) -> Float[Tensor, "B 3 H W"]:
    """Pictures in 0..1 from noise (Song et al. 2021, eq. 12 with no added noise), guided with `scale`.

    Raises:
        ValueError: less than one step.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; sampling takes at least 1")
    times = torch.linspace(0.999, 0.0, steps + 1, device=noise.device)
    x_t, x = noise, noise
    for now, then in pairwise(times):
        t = now.expand(len(noise))
        alpha, sigma = prior.levels(t)
        answers = prior.predict(x_t, t, [empty, text])
        answer = guided(answers[0], answers[1], scale)
        x = cleaned(x_t, answer, alpha, sigma)
        x_t = noised(x, answer, *prior.levels(then.expand(len(noise))))
    return prior.decode(x).clamp(0, 1)
