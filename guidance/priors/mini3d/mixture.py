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
class MixtureComponents:
    """What may have been drawn."""

    means: Float[Tensor, "K C G G"]
    """Latents before mid grey."""
    background_basis: Float[Tensor, "K 3 C G G"]
    """What a unit of the background's red, green and blue adds to them."""
    variance: Float[Tensor, "K C G G"]
    """Around what they and the background make."""
    log_weights: Float[Tensor, " K"]
    """Logarithms of how likely each is before the picture is seen."""


@dataclass(frozen=True)
class Posterior:
    """What a noised picture tells."""

    x0_pred: Float[Tensor, "C G G"]
    """E[x | x_t]."""
    weights: Float[Tensor, " K"]
    """How likely each component is now."""


def posterior(x_t: Float[Tensor, "C G G"], components: MixtureComponents, alpha: Tensor, sigma: Tensor) -> Posterior:
    """Bayes' rule for x_t = alpha * x + sigma * noise (alpha and sigma are single numbers).

    With D = variance_k + (sigma / alpha)^2 and r = x_t / alpha - mean_k, the background is found by ridge regression of
    r on seen_k, and log p(x_t | k) = -(r' D^-1 r + log det D - b' S^-1 b + log det S) / 2 + const, where S =
    seen D^-1 seen' + 1 / BACKGROUND_VARIANCE and b = seen D^-1 r (Woodbury).
    """
    scaled = x_t / alpha
    precision = 1 / (components.variance + (sigma / alpha).square())
    residual = (scaled - components.means).flatten(1)
    basis = components.background_basis.flatten(2)
    flat_precision = precision.flatten(1)
    weighted_basis = basis * flat_precision[:, None]
    gram = weighted_basis @ basis.mT + torch.eye(3).to(basis) / BACKGROUND_VARIANCE
    projection = (weighted_basis @ residual[..., None])[..., 0]
    background = torch.linalg.solve(gram, projection)
    negative_log_likelihood = (
        (residual.square() * flat_precision - flat_precision.log()).sum(-1)
        - (projection * background).sum(-1)
        + torch.logdet(gram)
    )
    weights = torch.softmax(components.log_weights - 0.5 * negative_log_likelihood, 0)
    mean = components.means + (background[:, None] @ basis)[:, 0].unflatten(1, x_t.shape)
    x0_pred = mean + components.variance * precision * (scaled - mean)
    return Posterior(torch.einsum("k,kchw->chw", weights, x0_pred), weights)
