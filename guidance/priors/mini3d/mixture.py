"""What a noised picture was, if it was one of several expected ones before some background: in closed form.

Under component k the clean latents are x = mean_k + background * seen_k + rest: the background's three numbers are
Gaussian around 0 with `BACKGROUND_VARIANCE`, the rest is Gaussian with `variance_k`, apart in every latent.
Shapes: K components, C latent channels on a G x G grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from guidance.priors.mini.sketch import BACKGROUND_VARIANCE


@dataclass(frozen=True)
class Components:
    """What may have been drawn."""

    means: Float[Tensor, "K C G G"]
    """Latents before mid grey."""
    seen: Float[Tensor, "K 3 C G G"]
    """What a unit of the background's red, green and blue adds to them."""
    variance: Float[Tensor, "K C G G"]
    """Around what they and the background make."""
    log_shares: Float[Tensor, " K"]
    """Logarithms of how likely each is before the picture is seen."""


@dataclass(frozen=True)
class Posterior:
    """What a noised picture tells."""

    clean: Float[Tensor, "C G G"]
    """E[x | x_t]."""
    shares: Float[Tensor, " K"]
    """How likely each component is now."""


def posterior(x_t: Float[Tensor, "C G G"], components: Components, alpha: Tensor, sigma: Tensor) -> Posterior:
    """Bayes' rule for x_t = alpha * x + sigma * noise (alpha and sigma are single numbers).

    With D = variance_k + (sigma / alpha)^2 and r = x_t / alpha - mean_k, the background is found by ridge regression of
    r on seen_k, and log p(x_t | k) = -(r' D^-1 r + log det D - b' S^-1 b + log det S) / 2 + const, where S =
    seen D^-1 seen' + 1 / BACKGROUND_VARIANCE and b = seen D^-1 r (Woodbury).
    """
    shown = x_t / alpha
    weight = 1 / (components.variance + (sigma / alpha).square())
    rest = (shown - components.means).flatten(1)
    seen = components.seen.flatten(2)
    flat = weight.flatten(1)
    weighed = seen * flat[:, None]
    square = weighed @ seen.mT + torch.eye(3).to(seen) / BACKGROUND_VARIANCE
    found = (weighed @ rest[..., None])[..., 0]
    background = torch.linalg.solve(square, found)
    likely = (rest.square() * flat - flat.log()).sum(-1) - (found * background).sum(-1) + torch.logdet(square)
    shares = torch.softmax(components.log_shares - 0.5 * likely, 0)
    guess = components.means + (background[:, None] @ seen)[:, 0].unflatten(1, x_t.shape)
    clean = guess + components.variance * weight * (shown - guess)
    return Posterior(torch.einsum("k,kchw->chw", shares, clean), shares)
