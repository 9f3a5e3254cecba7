"""Spherical harmonics: orthonormal, the addition theorem, and the signs of splat files."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from renderers.splats import spherical_harmonics


def sphere() -> tuple[Tensor, Tensor]:
    """Directions [1 N 3] and weights [N] that integrate polynomials up to degree 15 over the sphere exactly."""
    z, weight = np.polynomial.legendre.leggauss(8)
    phi = np.arange(16) * (2 * math.pi / 16)
    z, phi = np.meshgrid(z, phi, indexing="ij")
    r = np.sqrt(1 - z**2)
    directions = torch.tensor(np.stack([r * np.cos(phi), r * np.sin(phi), z], -1).reshape(1, -1, 3))
    return directions, torch.tensor(np.repeat(weight, 16) * (2 * math.pi / 16))


def test_the_basis_is_orthonormal() -> None:
    directions, weights = sphere()
    values = spherical_harmonics.eval_sh_bases(directions, 16)[0]
    assert torch.allclose(values.T @ (weights[:, None] * values), torch.eye(16, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_the_addition_theorem(degree: int) -> None:
    a, b = functional.normalize(torch.randn(2, 1, 50, 3, dtype=torch.float64), dim=-1)
    rows = slice(degree**2, (degree + 1) ** 2)
    both = (spherical_harmonics.eval_sh_bases(a, 16) * spherical_harmonics.eval_sh_bases(b, 16))[..., rows].sum(-1)
    legendre = np.polynomial.legendre.Legendre.basis(degree)((a * b).sum(-1).numpy())
    assert torch.allclose(both, torch.tensor(legendre) * (2 * degree + 1) / (4 * math.pi))


def test_degree_one_is_minus_y_z_minus_x() -> None:
    values = spherical_harmonics.eval_sh_bases(torch.eye(3, dtype=torch.float64)[None], 4)[0, :, 1:]
    a = 0.4886025119029199
    assert torch.allclose(values, torch.tensor([[0, 0, -a], [-a, 0, 0], [0, a, 0]], dtype=torch.float64))


def test_degree_zero_is_the_same_from_everywhere_and_colours_are_never_negative() -> None:
    means, cameras = torch.randn(7, 3), torch.randn(2, 3)
    flat = torch.randn(7, 1, 3) * 4
    seen = spherical_harmonics.sh_to_rgb(flat, means, cameras)
    assert seen.shape == (7, 3)
    assert seen.min() == 0
    padded = torch.cat([flat, torch.zeros(7, 15, 3)], 1)
    assert torch.allclose(spherical_harmonics.sh_to_rgb(padded, means, cameras), seen.expand(2, 7, 3), atol=1e-6)


@pytest.mark.parametrize("degree", [-1, 4])
def test_unknown_degrees_are_refused(degree: int) -> None:
    with pytest.raises(ValueError, match="choose 0 to 3"):
        spherical_harmonics.num_sh_bases(degree)


def test_a_number_of_coefficients_that_is_no_degree_is_refused() -> None:
    with pytest.raises(ValueError, match="5 coefficients"):
        spherical_harmonics.sh_to_rgb(torch.zeros(1, 5, 3), torch.zeros(1, 3), torch.ones(1, 3))
