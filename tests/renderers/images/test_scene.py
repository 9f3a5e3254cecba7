"""A flat picture: the same from everywhere, resampled without loss of its mean, restored as it was."""

from __future__ import annotations

import math

import pytest
import torch

from renderers.camera_sampler import Orbit
from renderers.cameras import ring
from renderers.images.scene import Picture


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_camera_sees_the_same_opaque_picture() -> None:
    scene = Picture(size=16).build("cpu", chance())
    frame = scene.render(ring(3, 0.2, 16), torch.zeros(3, 3))
    assert torch.equal(frame.rgb[0], scene.pixels[0].permute(1, 2, 0))
    assert torch.equal(frame.rgb[0], frame.rgb[1]) and bool((frame.alpha == 1).all())


def test_a_smaller_camera_sees_the_same_mean() -> None:
    scene = Picture(size=32, spread=0.3).build("cpu", chance())
    small = scene.render(ring(1, 0.0, 8), torch.zeros(1, 3)).rgb
    # Antialiased shrinking is an average; only the border weighs a little differently.
    assert abs(float((small.mean() - scene.pixels.mean()).detach())) < 0.02
    assert float(small.detach().std()) < float(scene.pixels.detach().std()) / 2


def test_the_gradient_of_the_views_adds_up_in_the_pixels() -> None:
    scene = Picture(size=8).build("cpu", chance())
    scene.render(ring(4, 0.0, 8), torch.zeros(4, 3)).rgb.sum().backward()
    assert scene.pixels.grad is not None and bool((scene.pixels.grad == 4).all())


def test_a_restored_picture_is_the_same_and_another_size_is_refused() -> None:
    scene, other = (Picture(size=8).build("cpu", chance(seed)) for seed in (1, 2))
    other.restore(scene.state())
    assert torch.equal(scene.pixels, other.pixels)
    with pytest.raises(ValueError, match="no picture of 16 x 16"):
        Picture(size=16).build("cpu", chance()).restore(scene.state())


def test_trouble_is_named() -> None:
    scene = Picture(size=8).build("cpu", chance())
    assert scene.healthy() is None
    scene.pixels.data[0, 0, 0, 0] = torch.nan
    assert scene.healthy() == "1 values of the picture are not finite"


@pytest.mark.parametrize("wrong", [{"size": 4}, {"rate": 0.0}, {"rate_end": math.nan}, {"spread": -1.0}])
def test_knobs_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Picture(**wrong)  # type: ignore[arg-type]


def test_an_orbit_may_be_one_side_or_a_part_of_the_round() -> None:
    front = Picture.orbit.draw(5, 16, chance())
    torch.testing.assert_close(front.azimuth, torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(front.elevation, torch.full((5,), math.radians(15)))
    part = Orbit(towards=90.0, around=60.0).draw(64, 16, chance()).azimuth
    assert math.radians(60) <= float(part.min()) < float(part.max()) <= math.radians(120) + 1e-5
