"""Bounds: kept, harmless below, and honest about direction."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from guidance.gradient_clipping import Limits, clamped, clipped, unit
from guidance.priors.base import generator

bounds = st.floats(1e-3, 1e3)


def latents(seed: int, spread: float = 1.0) -> Tensor:
    return spread * torch.randn(3, 4, 5, 5, generator=generator(seed), dtype=torch.float64)


def picture(seed: int, spread: float = 1.0) -> Tensor:
    return spread * torch.randn(2, 6, 5, 3, generator=generator(seed), dtype=torch.float64)


def test_nothing_is_bounded_unless_asked_for() -> None:
    g, p = latents(0, 1e6), picture(0, 1e6)
    assert Limits().of_latents(g, 0.3) is g
    assert Limits().of_picture(p) is p


# --- elements ---


@given(bounds, st.integers(0, 9))
def test_elements_keep_the_bound_their_sign_and_their_order(most: float, seed: int) -> None:
    g = latents(seed, 10.0)
    bounded = clamped(g, most)
    assert float(bounded.abs().max()) <= most
    assert bool((bounded * g >= 0).all())
    order = g.flatten().argsort()
    assert bool((bounded.flatten()[order].diff() >= 0).all())
    assert torch.equal(clamped(bounded, most), bounded)
    assert torch.equal(bounded[g.abs() <= most], g[g.abs() <= most])


def test_the_bound_of_elements_moves_with_progress() -> None:
    limits, g = Limits(clamp=(2.0, 8.0)), latents(1, 100.0)
    for progress, most in ((0.0, 2.0), (0.5, 5.0), (1.0, 8.0)):
        assert float(limits.of_latents(g, progress).abs().max()) == most


# --- length ---


def test_a_unit_gradient_keeps_its_direction_over_all_views() -> None:
    g = latents(2, 30.0)
    bounded = Limits(unit=True).of_latents(g, 0.0)
    assert float(torch.linalg.vector_norm(bounded)) == pytest.approx(1)
    torch.testing.assert_close(bounded * torch.linalg.vector_norm(g), g)
    torch.testing.assert_close(unit(7.0 * g), bounded)
    assert bool((unit(torch.zeros(1, 2, 3, 3)) == 0).all())


def test_the_length_comes_before_the_elements() -> None:
    g = torch.zeros(1, 1, 1, 2)
    g[..., 0], g[..., 1] = 3.0, 4.0
    bounded = Limits(clamp=(0.7, 0.7), unit=True).of_latents(g, 0.5)
    torch.testing.assert_close(bounded.flatten(), torch.tensor([0.6, 0.7]))


# --- pixels ---


@given(bounds, st.integers(0, 9))
def test_pixels_keep_the_bound_and_their_direction(most: float, seed: int) -> None:
    g = picture(seed, 10.0)
    bounded = clipped(g, most)
    assert float(bounded.abs().max()) <= most * (1 + 1e-12)
    torch.testing.assert_close(torch.cosine_similarity(bounded, g, -1), torch.ones(2, 6, 5, dtype=torch.float64))
    below = g.abs().amax(-1) <= most
    assert torch.equal(bounded[below], g[below])
    # The largest channel of a pixel above the bound is on it.
    torch.testing.assert_close(bounded[~below].abs().amax(-1), torch.full((int((~below).sum()),), most).double())


@given(bounds, st.floats(1, 100))
def test_a_wider_bound_leaves_no_pixel_smaller(most: float, wider: float) -> None:
    g = picture(3, 10.0)
    assert bool((clipped(g, most * wider).norm(dim=-1) >= clipped(g, most).norm(dim=-1) - 1e-9).all())


def test_pixels_without_a_gradient_stay_so() -> None:
    assert bool((clipped(torch.zeros(1, 2, 2, 3), 0.1) == 0).all())


# --- what is refused ---


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_bounds_that_are_none_are_refused(value: float) -> None:
    wrong: list[dict[str, Any]] = [{"clamp": (value, 1.0)}, {"clamp": (1.0, value)}, {"pixel": value}]
    for knobs in wrong:
        with pytest.raises(ValueError, match=f"{next(iter(knobs))} is .*; expected a positive number"):
            Limits(**knobs)
