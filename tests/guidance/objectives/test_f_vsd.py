"""f-weighted VSD against the divergences it is named after."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor

from guidance.objectives.variational.f_vsd import FVSD, Divergence, divergence_weight
from guidance.objectives.variational.vsd import VSD
from tests.support.guidance.particle_ensembles import (
    DOUBLE,
    AnalyticDenoiser,
    VarianceExplodingOracle,
    gaussian_noise_fn,
    hermite_nodes,
    normal,
    scalar_views,
)

F: dict[Divergence, Callable[[Tensor], Tensor]] = {
    "reverse-kl": lambda r: -r.log(),
    "softened-reverse-kl": lambda r: (r + 1) * ((r + 1) / (2 * r)).log(),
    "js": lambda r: r * r.log() - (r + 1) * ((r + 1) / 2).log(),
    "hellinger": lambda r: 1 - r.sqrt(),
    "forward-kl": lambda r: r * r.log(),
    "jeffreys": lambda r: (r - 1) * r.log(),
    "neyman": lambda r: 1 / r - 1,
}


@pytest.mark.parametrize("kind", get_args(Divergence))
def test_weight_is_the_second_derivative_of_the_divergence(kind: Divergence) -> None:
    """h(r) = r^2 f''(r)."""
    r = torch.logspace(-2, 2, 41, dtype=DOUBLE).requires_grad_()
    (slope,) = torch.autograd.grad(F[kind](r).sum(), r, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), r)
    r = r.detach()
    torch.testing.assert_close(divergence_weight(kind, r), r.square() * bend)
    assert bool((divergence_weight(kind, r) > 0).all())


@pytest.mark.parametrize(
    ("kind", "slopes"),
    [
        ("reverse-kl", (0.075414, -0.393370)),
        ("js", (0.058473, -0.218825)),
        ("forward-kl", (0.212766, -0.586490)),
        ("softened-reverse-kl", (0.016942, -0.174545)),
        ("jeffreys", (0.288180, -0.979860)),
        ("hellinger", (0.032366, -0.115434)),
        ("neyman", (0.020073, -0.691844)),
    ],
)
def test_grad_is_the_grad_of_the_divergence(kind: Divergence, slopes: tuple[float, float]) -> None:
    """Of x = b + A z, (d/db, d/dA) of D_f(p || q) of the noised densities, at b = 0.3, A = 1.1."""

    def p(x: Tensor) -> Tensor:
        blobs = (math.log(0.4) + normal(x, -1.5, 0.7), math.log(0.6) + normal(x, 1.0, 1.0))
        return torch.logaddexp(*blobs)

    def q(x: Tensor) -> Tensor:
        return normal(x, 0.3, 1.1**2 + 0.2)

    points, weights = hermite_nodes(90)
    z, noise = points.repeat_interleave(90), points.repeat(90)
    share = weights.repeat_interleave(90) * weights.repeat(90)
    view = scalar_views(0.3 + 1.1 * z, noise, torch.full_like(z, 0.5))
    objective = FVSD(1, kind, ratio_min=1e-30, ratio_max=1e30)
    grad = objective(VarianceExplodingOracle(p), VarianceExplodingOracle(q, p), view).grad.flatten()
    # sigma^2 (prior's noise - critic's) = -sigma^3 (s_p - s_q).
    found = [float((grad * along) @ share) / 0.2**1.5 for along in (torch.ones_like(z), z)]
    assert found == pytest.approx(slopes, abs=2e-6)


@pytest.mark.parametrize(("kind", "divergence"), [("reverse-kl", 0.17299), ("forward-kl", 0.21399), ("js", 0.09139)])
def test_weighted_score_differences_integrate_to_the_divergence(kind: Divergence, divergence: float) -> None:
    """D_f(p || q) is half the integral, over the variance v of the noise, of E_q[h(r) |s_p - s_q|^2] (Uni-Instruct)."""
    v = torch.logspace(-6, 6, 301, dtype=DOUBLE)[:, None]
    width = (1.21 + v).sqrt()
    x = (0.3 + width * torch.linspace(-9, 9, 1201, dtype=DOUBLE)).requires_grad_()

    def noised(mean: float, variance: float) -> Tensor:
        return -0.5 * (x - mean).square() / (variance + v) - 0.5 * (2 * math.pi * (variance + v)).log()

    q = noised(0.3, 1.21)
    p = torch.logaddexp(math.log(0.4) + noised(-1.5, 0.5), math.log(0.6) + noised(1.0, 0.8))
    (difference,) = torch.autograd.grad((p - q).sum(), x)
    weighed = (
        divergence_weight(kind, (p - q).detach().exp().flatten()).view_as(p) * difference.square() * q.detach().exp()
    )
    inner = torch.trapezoid(weighed, x.detach(), dim=1)
    assert float(torch.trapezoid(inner * v[:, 0], v[:, 0].log())) / 2 == pytest.approx(divergence, abs=1e-5)
    clean = torch.trapezoid((q.exp() * F[kind]((p - q).exp()))[0], x[0]).detach()
    assert float(clean) == pytest.approx(divergence, abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "slopes"),
    [
        ("reverse-kl", (-0.138567, -1.034064)),
        ("forward-kl", (0.301796, -1.663800)),
        ("js", (-0.006339, -0.562217)),
    ],
)
def test_weighted_score_difference_matches_the_paper(kind: Divergence, slopes: tuple[float, float]) -> None:
    """(d/db, d/dA) of E_q[h(r) |s_p - s_q|^2] for x = b + A z and noise of variance 0.2, at b = 0.3, A = 1.1."""
    b, a = (torch.tensor(value, dtype=DOUBLE, requires_grad=True) for value in (0.3, 1.1))
    x = torch.linspace(-14, 14, 8001, dtype=DOUBLE, requires_grad=True)
    variance = a.square() + 0.2
    q = -0.5 * (x - b).square() / variance - 0.5 * (2 * math.pi * variance).log()
    p = torch.logaddexp(math.log(0.4) + normal(x, -1.5, 0.7), math.log(0.6) + normal(x, 1.0, 1.0))
    (difference,) = torch.autograd.grad((p - q).sum(), x, create_graph=True)
    weighed = torch.trapezoid(divergence_weight(kind, (p - q).exp()) * difference.square() * q.exp(), x.detach())
    found = torch.autograd.grad(weighed, (b, a))
    assert [float(slope) for slope in found] == pytest.approx(slopes, abs=2e-6)


def test_ratio_is_clamped_and_reverse_kl_equals_vsd() -> None:
    prior = VarianceExplodingOracle(lambda x: normal(x, 5.0, 0.3))
    critic = VarianceExplodingOracle(lambda x: normal(x, 0.0, 0.3), prior.log_density)
    view = scalar_views(
        torch.tensor([-3.0, 2.5, 8.0]).double(), torch.zeros(3, dtype=DOUBLE), torch.full((3,), 0.5).double()
    )
    plain = VSD(2)(prior, critic, view).grad
    assert torch.equal(FVSD(2, "reverse-kl")(prior, critic, view).grad, plain)
    weighed = FVSD(2, "forward-kl", ratio_min=0.2, ratio_max=7.0)(prior, critic, view).grad
    torch.testing.assert_close((weighed / plain).flatten(), torch.tensor([0.2, 1.0, 7.0], dtype=DOUBLE))


def test_rejects_critics_without_density_ratio() -> None:
    prior = AnalyticDenoiser(gaussian_noise_fn(0, 1))
    view = scalar_views(torch.zeros(1).double(), torch.zeros(1).double(), torch.full((1,), 0.5).double())
    with pytest.raises(
        ValueError, match="f-vsd needs a critic that tells ratios of densities; AnalyticDenoiser does not"
    ):
        FVSD()(prior, prior, view)
