"""Parts of a scene in its pictures: whole, apart where solid, and where geometry says."""

from __future__ import annotations

import math

import torch

from renderers.cameras import look_at_origin, orbit_cameras
from renderers.images.scene import ImageConfig
from renderers.region_masks import region_masks
from renderers.scene import RenderOutput

LEFT_RIGHT = torch.tensor([[-0.5, 0.0, 0.0], [0.5, 0.0, 0.0]])


def test_points_of_pixels_project_back_to_their_pixels() -> None:
    cameras = orbit_cameras(3, 0.4, 8)
    depth = 1 + torch.rand(3, 8, 8, 1, generator=torch.Generator().manual_seed(0))
    homogeneous = torch.cat([cameras.unproject(depth), torch.ones_like(depth)], -1)
    seen = torch.einsum("bij,bhwj->bhwi", cameras.viewmats(), homogeneous)[..., :3]
    torch.testing.assert_close(seen[..., 2:], depth, rtol=1e-4, atol=1e-4)
    pixels = torch.einsum("bij,bhwj->bhwi", cameras.intrinsics(), seen / seen[..., 2:])
    place = torch.arange(8) + 0.5
    torch.testing.assert_close(pixels[..., 0], place.expand(3, 8, 8), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(pixels[..., 1], place[:, None].expand(3, 8, 8), rtol=1e-4, atol=1e-3)


def test_angles_around_a_point_are_those_around_the_origin_when_it_is_the_origin() -> None:
    cameras = orbit_cameras(5, 0.3, 8)
    azimuth, elevation = cameras.angles_around(torch.zeros(3))
    torch.testing.assert_close(azimuth, cameras.azimuth)
    torch.testing.assert_close(elevation, torch.full((5,), 0.3))
    # A camera in front sees a thing at +X from its right-hand side, at a negative azimuth.
    assert float(orbit_cameras(1, 0.0, 8).angles_around(torch.tensor([0.5, 0.0, 0.0]))[0]) < 0


def test_the_left_half_of_a_picture_is_the_left_part_from_the_front() -> None:
    cameras = look_at_origin(torch.tensor([0.0, math.pi]), torch.zeros(2), 16)
    frame = ImageConfig(size=16).build("cpu", torch.Generator().manual_seed(0)).render(cameras, torch.zeros(2, 3))
    masks = region_masks(frame, cameras, LEFT_RIGHT, torch.ones(2), (8, 8))
    assert torch.equal(masks.sum(0), torch.ones(2, 8, 8)), "every solid cell is of one part"
    assert bool((masks[0, 0, :, :4] == 1).all()) and bool((masks[1, 0, :, 4:] == 1).all())
    # From behind, left is right.
    assert torch.equal(masks[0, 1], masks[1, 0])


def test_parts_grow_into_the_background_and_nothing_grows_from_nothing() -> None:
    cameras = orbit_cameras(1, 0.0, 16)
    alpha = torch.zeros(1, 16, 16, 1)
    frame = RenderOutput(torch.zeros(1, 16, 16, 3), alpha, torch.zeros_like(alpha))
    assert float(region_masks(frame, cameras, LEFT_RIGHT, torch.ones(2), (8, 8)).sum()) == 0
    alpha[:, 6:8, 6:8] = 1
    frame = RenderOutput(torch.zeros(1, 16, 16, 3), alpha, alpha * 3)
    masks = region_masks(frame, cameras, LEFT_RIGHT, torch.ones(2), (8, 8))
    assert float(masks[1].sum()) == 0
    assert torch.equal(masks[0, 0].nonzero().amin(0), torch.tensor([1, 1]))
    assert float(masks[0].sum()) == 25, "one cell and two to each side"
