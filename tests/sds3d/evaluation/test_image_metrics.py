"""Measures of pictures: closed forms, and what they must not depend on."""

from __future__ import annotations

import math

import pytest
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from renderers.cameras import Cameras
from renderers.scene import RenderOutput, Scene
from sds3d.evaluation.image_metrics import SIZE, contrast, render_views, saturation, sharpness, variance


def disc(colour: Tensor, radius: float = 0.8, size: int = SIZE) -> Float[Tensor, "1 H W 4"]:
    """A disc of one colour [3], or of a picture [H, W, 3], before nothing."""
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    inside = (torch.hypot(axis[:, None], axis[None]) < radius).float()[..., None]
    return torch.cat([colour.expand(size, size, 3) * inside, inside], -1)[None]


def waves(periods: float, size: int = SIZE) -> Tensor:
    """Grey waves from left to right, so many in the width of a picture."""
    across = (torch.arange(size) + 0.5) / size
    return (0.5 + 0.4 * torch.sin(2 * math.pi * periods * across))[None, :, None].expand(size, size, 3)


def noise(size: int = SIZE) -> Tensor:
    return torch.rand(size, size, 3, generator=torch.Generator().manual_seed(0))


def blurred(picture: Tensor, times: int) -> Tensor:
    rgb = picture.permute(2, 0, 1)[None]
    for _ in range(times):
        rgb = functional.avg_pool2d(functional.pad(rgb, (1, 1, 1, 1), "replicate"), 3, 1)
    return rgb[0].permute(1, 2, 0)


@pytest.mark.parametrize(
    ("colour", "wanted"),
    [((0.5, 0.5, 0.5), 0.0), ((1, 0, 0), 1.0), ((0.8, 0.4, 0.6), 0.5), ((0.4, 0.2, 0.3), 0.5), ((0, 0, 0), 0.0)],
)
def test_saturation_is_that_of_hsv(colour: tuple[float, float, float], wanted: float) -> None:
    assert saturation(disc(torch.tensor(colour))) == pytest.approx(wanted)


def test_contrast_of_two_halves_is_half_their_difference() -> None:
    halves = torch.where((torch.arange(SIZE) < SIZE // 2)[None, :, None], 0.2, 0.8).expand(SIZE, SIZE, 3)
    assert contrast(disc(halves)) == pytest.approx(0.3, abs=1e-4)
    assert contrast(disc(torch.full((3,), 0.7))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("measure", [saturation, contrast, sharpness])
def test_the_background_does_not_count(measure: object) -> None:
    assert callable(measure)
    picture = disc(noise())
    painted = picture.clone()
    painted[..., :3] += (1 - painted[..., 3:]) * torch.tensor([1.0, 0.0, 0.3])
    assert measure(painted) == pytest.approx(measure(picture))


def test_saturation_and_contrast_do_not_depend_on_the_size_of_the_asset() -> None:
    colour = torch.tensor([0.9, 0.3, 0.1])
    assert saturation(disc(colour, 0.3)) == pytest.approx(saturation(disc(colour, 0.9)))
    fine = waves(40)
    assert contrast(disc(fine, 0.4)) == pytest.approx(contrast(disc(fine, 0.9)), rel=0.05)


def test_sharpness_is_the_share_of_what_is_fine() -> None:
    coarse, fine = waves(8), waves(48)
    assert sharpness(disc(coarse)) < 0.02 and sharpness(disc(fine)) > 0.98
    both = coarse + 0.5 * (fine - 0.5)
    assert sharpness(disc(both - 0.1)) == pytest.approx(0.25 / 1.25, abs=0.02)


def test_sharpness_falls_with_every_blur_and_not_with_contrast() -> None:
    values = [sharpness(disc(blurred(noise(), times))) for times in range(4)]
    assert values == sorted(values, reverse=True) and values[0] > 2 * values[3]
    assert sharpness(disc(0.3 + 0.2 * noise())) == pytest.approx(sharpness(disc(noise())), rel=1e-3)


def test_an_outline_is_not_sharpness() -> None:
    assert sharpness(disc(torch.full((3,), 0.1))) < 1e-6
    shaded = torch.linspace(0.2, 0.9, SIZE)[:, None, None].expand(SIZE, SIZE, 3)
    assert sharpness(disc(shaded)) < 0.01


def test_variance_is_the_unbiased_one_inside() -> None:
    seeds = torch.stack([disc(torch.full((3,), value)) for value in (0.2, 0.4, 0.9)])
    assert variance(seeds) == pytest.approx(float(torch.tensor([0.2, 0.4, 0.9]).var()))
    assert variance(seeds[:1]) is None
    assert variance(seeds[[0, 0]]) == 0.0


def test_variance_sees_shapes_too() -> None:
    black = torch.zeros(3)
    assert variance(torch.stack([disc(black, 0.5), disc(black, 0.8)])) == pytest.approx(
        0.5 * (1 - 0.5**2 / 0.8**2), abs=0.01
    )


def test_nothing_is_measured_where_nothing_is() -> None:
    empty = torch.zeros(2, SIZE, SIZE, 4)
    assert saturation(empty) == contrast(empty) == sharpness(empty) == 0.0
    assert variance(torch.stack([empty, empty])) == 0.0


class Glass(Scene):
    """A half transparent red before whatever is behind it."""

    def render(self, cameras: Cameras, background: Float[Tensor, "B 3"]) -> RenderOutput:
        alpha = torch.full((len(cameras), cameras.height, cameras.width, 1), 0.6)
        red = torch.tensor([1.0, 0.0, 0.0]) * alpha
        return RenderOutput(red + (1 - alpha) * background[:, None, None], alpha, alpha)


def test_pictures_hold_the_colour_without_what_is_behind() -> None:
    views = render_views(Glass(), views=3, size=16)
    assert views.shape == (3, 16, 16, 4)
    assert torch.allclose(views, torch.tensor([1.0, 0.0, 0.0, 0.6]).expand_as(views), atol=1e-6)
    assert saturation(views) == pytest.approx(1.0)
