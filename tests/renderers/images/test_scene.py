"""A flat picture: the same from everywhere, resampled without loss of its mean, restored as it was."""

from __future__ import annotations

import math

import pytest
import torch

from renderers.camera_sampler import CameraSampler
from renderers.cameras import orbit_cameras
from renderers.images.scene import ImageConfig


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_camera_sees_the_same_opaque_picture() -> None:
    scene = ImageConfig(size=16).build("cpu", chance())
    frame = scene.render(orbit_cameras(3, 0.2, 16), torch.zeros(3, 3))
    assert torch.equal(frame.rgb[0], scene.pixels[0].permute(1, 2, 0))
    assert torch.equal(frame.rgb[0], frame.rgb[1]) and bool((frame.alpha == 1).all())


def test_a_smaller_camera_sees_the_same_mean() -> None:
    scene = ImageConfig(size=32, spread=0.3).build("cpu", chance())
    small = scene.render(orbit_cameras(1, 0.0, 8), torch.zeros(1, 3)).rgb
    # Antialiased shrinking is an average; only the border weighs a little differently.
    assert abs(float((small.mean() - scene.pixels.mean()).detach())) < 0.02
    assert float(small.detach().std()) < float(scene.pixels.detach().std()) / 2


def test_the_gradient_of_the_views_adds_up_in_the_pixels() -> None:
    scene = ImageConfig(size=8).build("cpu", chance())
    scene.render(orbit_cameras(4, 0.0, 8), torch.zeros(4, 3)).rgb.sum().backward()
    assert scene.pixels.grad is not None and bool((scene.pixels.grad == 4).all())


def test_a_restored_picture_is_the_same_and_another_size_is_refused() -> None:
    scene, other = (ImageConfig(size=8).build("cpu", chance(seed)) for seed in (1, 2))
    other.load_training_state(scene.training_state())
    assert torch.equal(scene.pixels, other.pixels)
    with pytest.raises(ValueError, match="no picture of 16 x 16"):
        ImageConfig(size=16).build("cpu", chance()).load_training_state(scene.training_state())


def test_trouble_is_named() -> None:
    scene = ImageConfig(size=8).build("cpu", chance())
    assert scene.failure_reason() is None
    scene.pixels.data[0, 0, 0, 0] = torch.nan
    assert scene.failure_reason() == "1 values of the picture are not finite"


@pytest.mark.parametrize("wrong", [{"size": 4}, {"lr": 0.0}, {"lr_final": math.nan}, {"spread": -1.0}])
def test_knobs_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ImageConfig(**wrong)  # type: ignore[arg-type]


def test_an_orbit_may_be_one_side_or_a_part_of_the_round() -> None:
    front = ImageConfig.orbit.sample(5, 16, chance())
    torch.testing.assert_close(front.azimuth, torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(front.elevation, torch.full((5,), math.radians(15)))
    part = CameraSampler(azimuth_center=90.0, azimuth_span=60.0).sample(64, 16, chance()).azimuth
    assert math.radians(60) <= float(part.min()) < float(part.max()) <= math.radians(120) + 1e-5
