"""Pictures straight from a prior, by deterministic DDIM steps: to see what it knows, and to judge it."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from guidance.priors.base import Condition, Prior, add_noise, predict_x0
from guidance.priors.cfg import classifier_free_guidance


@torch.no_grad()
def sample_ddim(
    prior: Prior,
    noise: Float[Tensor, "B C h w"],
    text: Condition,
    uncond: Condition,
    guidance_scale: float,
    steps: int = 30,
) -> Float[Tensor, "B 3 H W"]:
    """Pictures in 0..1 from noise (Song et al. 2021, eq. 12 with no added noise), guided with `guidance_scale`.

    Raises:
        ValueError: less than one step.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; sampling takes at least 1")
    timesteps = torch.linspace(0.999, 0.0, steps + 1, device=noise.device)
    x_t, x = noise, noise
    for t_from, t_to in pairwise(timesteps):
        t = t_from.expand(len(noise))
        alpha, sigma = prior.alpha_sigma(t)
        noise_preds = prior.predict_noise(x_t, t, [uncond, text])
        noise_pred = classifier_free_guidance(noise_preds[0], noise_preds[1], guidance_scale)
        x = predict_x0(x_t, noise_pred, alpha, sigma)
        x_t = add_noise(x, noise_pred, *prior.alpha_sigma(t_to.expand(len(noise))))
    return prior.decode(x).clamp(0, 1)
