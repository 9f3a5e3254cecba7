"""Bounds: kept, harmless below, and honest about direction."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from guidance.gradient_clipping import GradientClipping, clip_elementwise, clip_pixelwise, normalize_grad
from guidance.priors.base import make_rng

bounds = st.floats(1e-3, 1e3)


def latents(seed: int, spread: float = 1.0) -> Tensor:
    return spread * torch.randn(3, 4, 5, 5, generator=make_rng(seed), dtype=torch.float64)


def picture(seed: int, spread: float = 1.0) -> Tensor:
    return spread * torch.randn(2, 6, 5, 3, generator=make_rng(seed), dtype=torch.float64)


def test_default_clipping_is_the_identity() -> None:
    g, p = latents(0, 1e6), picture(0, 1e6)
    assert GradientClipping().clip_latents(g, 0.3) is g
    assert GradientClipping().clip_pixels(p) is p


# --- elements ---


@given(bounds, st.integers(0, 9))
def test_elementwise_clipping_keeps_sign_and_order(most: float, seed: int) -> None:
    g = latents(seed, 10.0)
    bounded = clip_elementwise(g, most)
    assert float(bounded.abs().max()) <= most
    assert bool((bounded * g >= 0).all())
    order = g.flatten().argsort()
    assert bool((bounded.flatten()[order].diff() >= 0).all())
    assert torch.equal(clip_elementwise(bounded, most), bounded)
    assert torch.equal(bounded[g.abs() <= most], g[g.abs() <= most])


def test_elementwise_bound_is_annealed() -> None:
    limits, g = GradientClipping(value=(2.0, 8.0)), latents(1, 100.0)
    for progress, most in ((0.0, 2.0), (0.5, 5.0), (1.0, 8.0)):
        assert float(limits.clip_latents(g, progress).abs().max()) == most


# --- length ---


def test_normalize_keeps_direction_over_the_batch() -> None:
    g = latents(2, 30.0)
    bounded = GradientClipping(normalize=True).clip_latents(g, 0.0)
    assert float(torch.linalg.vector_norm(bounded)) == pytest.approx(1)
    torch.testing.assert_close(bounded * torch.linalg.vector_norm(g), g)
    torch.testing.assert_close(normalize_grad(7.0 * g), bounded)
    assert bool((normalize_grad(torch.zeros(1, 2, 3, 3)) == 0).all())


def test_normalize_precedes_elementwise_clipping() -> None:
    g = torch.zeros(1, 1, 1, 2)
    g[..., 0], g[..., 1] = 3.0, 4.0
    bounded = GradientClipping(value=(0.7, 0.7), normalize=True).clip_latents(g, 0.5)
    torch.testing.assert_close(bounded.flatten(), torch.tensor([0.6, 0.7]))


# --- pixels ---


@given(bounds, st.integers(0, 9))
def test_pixelwise_clipping_keeps_direction(most: float, seed: int) -> None:
    g = picture(seed, 10.0)
    bounded = clip_pixelwise(g, most)
    assert float(bounded.abs().max()) <= most * (1 + 1e-12)
    torch.testing.assert_close(torch.cosine_similarity(bounded, g, -1), torch.ones(2, 6, 5, dtype=torch.float64))
    below = g.abs().amax(-1) <= most
    assert torch.equal(bounded[below], g[below])
    # The largest channel of a pixel above the bound is on it.
    torch.testing.assert_close(bounded[~below].abs().amax(-1), torch.full((int((~below).sum()),), most).double())


@given(bounds, st.floats(1, 100))
def test_pixelwise_clipping_is_monotonic_in_the_bound(most: float, wider: float) -> None:
    g = picture(3, 10.0)
    assert bool((clip_pixelwise(g, most * wider).norm(dim=-1) >= clip_pixelwise(g, most).norm(dim=-1) - 1e-9).all())


def test_zero_pixels_stay_zero() -> None:
    assert bool((clip_pixelwise(torch.zeros(1, 2, 2, 3), 0.1) == 0).all())


# --- what is refused ---


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_rejects_invalid_bounds(value: float) -> None:
    wrong: list[dict[str, Any]] = [{"value": (value, 1.0)}, {"value": (1.0, value)}, {"pixel_norm": value}]
    for config in wrong:
        with pytest.raises(ValueError, match=f"{next(iter(config))} is .*; expected a positive number"):
            GradientClipping(**config)
