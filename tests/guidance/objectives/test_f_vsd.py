"""f-weighted VSD against the divergences it is named after."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor

from guidance.objectives.variational.f_vsd import FVSD, Divergence, emphasis
from guidance.objectives.variational.vsd import VSD
from tests.support.guidance.particle_ensembles import (
    DOUBLE,
    Exploding,
    Known,
    gaussian,
    look,
    nodes,
    normal,
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
def test_weights_are_the_curvature_of_the_divergence(kind: Divergence) -> None:
    """h(r) = r^2 f''(r)."""
    r = torch.logspace(-2, 2, 41, dtype=DOUBLE).requires_grad_()
    (slope,) = torch.autograd.grad(F[kind](r).sum(), r, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), r)
    r = r.detach()
    torch.testing.assert_close(emphasis(kind, r), r.square() * bend)
    assert bool((emphasis(kind, r) > 0).all())


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
def test_the_gradient_is_that_of_the_divergence(kind: Divergence, slopes: tuple[float, float]) -> None:
    """Of x = b + A z, (d/db, d/dA) of D_f(p || q) of the noised densities, at b = 0.3, A = 1.1."""

    def p(x: Tensor) -> Tensor:
        blobs = (math.log(0.4) + normal(x, -1.5, 0.7), math.log(0.6) + normal(x, 1.0, 1.0))
        return torch.logaddexp(*blobs)

    def q(x: Tensor) -> Tensor:
        return normal(x, 0.3, 1.1**2 + 0.2)

    points, weights = nodes(90)
    z, noise = points.repeat_interleave(90), points.repeat(90)
    share = weights.repeat_interleave(90) * weights.repeat(90)
    view = look(0.3 + 1.1 * z, noise, torch.full_like(z, 0.5))
    objective = FVSD(1, kind, least=1e-30, most=1e30)
    gradient = objective(Exploding(p), Exploding(q, p), view).gradient.flatten()
    # sigma^2 (prior's noise - critic's) = -sigma^3 (s_p - s_q).
    found = [float((gradient * along) @ share) / 0.2**1.5 for along in (torch.ones_like(z), z)]
    assert found == pytest.approx(slopes, abs=2e-6)


@pytest.mark.parametrize(("kind", "divergence"), [("reverse-kl", 0.17299), ("forward-kl", 0.21399), ("js", 0.09139)])
def test_weighted_differences_of_scores_add_up_to_the_divergence(kind: Divergence, divergence: float) -> None:
    """D_f(p || q) is half the integral, over the variance v of the noise, of E_q[h(r) |s_p - s_q|^2] (Uni-Instruct)."""
    v = torch.logspace(-6, 6, 301, dtype=DOUBLE)[:, None]
    width = (1.21 + v).sqrt()
    x = (0.3 + width * torch.linspace(-9, 9, 1201, dtype=DOUBLE)).requires_grad_()

    def noised(mean: float, variance: float) -> Tensor:
        return -0.5 * (x - mean).square() / (variance + v) - 0.5 * (2 * math.pi * (variance + v)).log()

    q = noised(0.3, 1.21)
    p = torch.logaddexp(math.log(0.4) + noised(-1.5, 0.5), math.log(0.6) + noised(1.0, 0.8))
    (apart,) = torch.autograd.grad((p - q).sum(), x)
    weighed = emphasis(kind, (p - q).detach().exp().flatten()).view_as(p) * apart.square() * q.detach().exp()
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
def test_the_weighted_difference_of_scores_changes_as_published(kind: Divergence, slopes: tuple[float, float]) -> None:
    """(d/db, d/dA) of E_q[h(r) |s_p - s_q|^2] for x = b + A z and noise of variance 0.2, at b = 0.3, A = 1.1."""
    b, a = (torch.tensor(value, dtype=DOUBLE, requires_grad=True) for value in (0.3, 1.1))
    x = torch.linspace(-14, 14, 8001, dtype=DOUBLE, requires_grad=True)
    variance = a.square() + 0.2
    q = -0.5 * (x - b).square() / variance - 0.5 * (2 * math.pi * variance).log()
    p = torch.logaddexp(math.log(0.4) + normal(x, -1.5, 0.7), math.log(0.6) + normal(x, 1.0, 1.0))
    (apart,) = torch.autograd.grad((p - q).sum(), x, create_graph=True)
    weighed = torch.trapezoid(emphasis(kind, (p - q).exp()) * apart.square() * q.exp(), x.detach())
    found = torch.autograd.grad(weighed, (b, a))
    assert [float(slope) for slope in found] == pytest.approx(slopes, abs=2e-6)


def test_ratios_are_bounded_and_reverse_kl_is_vsd() -> None:
    prior = Exploding(lambda x: normal(x, 5.0, 0.3))
    critic = Exploding(lambda x: normal(x, 0.0, 0.3), prior.log_density)
    view = look(torch.tensor([-3.0, 2.5, 8.0]).double(), torch.zeros(3, dtype=DOUBLE), torch.full((3,), 0.5).double())
    plain = VSD(2)(prior, critic, view).gradient
    assert torch.equal(FVSD(2, "reverse-kl")(prior, critic, view).gradient, plain)
    weighed = FVSD(2, "forward-kl", least=0.2, most=7.0)(prior, critic, view).gradient
    torch.testing.assert_close((weighed / plain).flatten(), torch.tensor([0.2, 1.0, 7.0], dtype=DOUBLE))


def test_a_critic_without_ratios_is_refused() -> None:
    prior = Known(gaussian(0, 1))
    view = look(torch.zeros(1).double(), torch.zeros(1).double(), torch.full((1,), 0.5).double())
    with pytest.raises(ValueError, match="f-vsd needs a critic that tells ratios of densities; Known does not"):
        FVSD()(prior, prior, view)
