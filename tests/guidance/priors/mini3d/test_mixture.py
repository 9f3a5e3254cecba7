"""The mixture's weights and mean, against the formula written out with whole covariance matrices."""

from __future__ import annotations

import pytest
import torch

from guidance.priors.base import make_rng
from guidance.priors.mini.sketch import BACKGROUND_VARIANCE
from guidance.priors.mini3d.mixture import MixtureComponents, posterior

K, C, G = 4, 3, 2


def random_components() -> MixtureComponents:
    chance = make_rng(3)
    means, seen = torch.randn(K, C, G, G, generator=chance), torch.randn(K, 3, C, G, G, generator=chance)
    variance = 0.05 + torch.rand(K, C, G, G, generator=chance)
    return MixtureComponents(
        means.double(), seen.double(), variance.double(), torch.tensor([0.1, 0.2, 0.3, 0.4]).double().log()
    )


@pytest.mark.parametrize("alpha", [0.999, 0.7, 0.07])
def test_posterior_matches_bayes_rule(alpha: float) -> None:
    components = random_components()
    sigma = (1 - alpha**2) ** 0.5
    x_t = torch.randn(C, G, G, generator=make_rng(5)).double()
    found = posterior(x_t, components, torch.tensor(alpha).double(), torch.tensor(sigma).double())
    logs, cleans = [], []
    for k in range(K):
        seen, mean = components.background_basis[k].flatten(1), components.means[k].flatten()
        clean = torch.diag(components.variance[k].flatten()) + BACKGROUND_VARIANCE * seen.T @ seen
        noised = alpha**2 * clean + sigma**2 * torch.eye(C * G * G).double()
        gaussian = torch.distributions.MultivariateNormal(alpha * mean, noised)
        logs.append(components.log_weights[k] + gaussian.log_prob(x_t.flatten()))
        cleans.append(mean + alpha * clean @ torch.linalg.solve(noised, x_t.flatten() - alpha * mean))
    shares = torch.softmax(torch.stack(logs), 0)
    torch.testing.assert_close(found.weights, shares)
    torch.testing.assert_close(found.x0_pred.flatten(), shares @ torch.stack(cleans))


def test_clean_image_identifies_its_component() -> None:
    components = random_components()
    for k in range(K):
        background = torch.tensor([0.3, -0.2, 0.1]).double()
        x = components.means[k] + torch.einsum("i,ichw->chw", background, components.background_basis[k])
        found = posterior(x, components, torch.tensor(1.0).double(), torch.tensor(0.01).double())
        assert found.weights.argmax() == k
        torch.testing.assert_close(found.x0_pred, x, rtol=0, atol=0.05)
