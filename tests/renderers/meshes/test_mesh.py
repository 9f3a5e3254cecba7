"""Meshes as shapes and as things to look at."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from renderers.cameras import orbit_cameras
from renderers.meshes.mesh import StaticMeshScene, Surface, agreement, fibonacci_cameras, iou, sample
from tests.support.renderers.known_shapes import Painted, ball, unwrapped

GREY = np.full((8, 8, 3), 128, np.uint8)


def test_the_volume_of_a_ball_is_that_of_the_book() -> None:
    """4/3 pi r^3, nearer with every ring; inside out it is negative; moving it away changes nothing."""
    for rows, error in ((24, 1e-2), (96, 1e-3)):
        surface = ball(0.7, rows)
        assert surface.volume == pytest.approx(4 / 3 * math.pi * 0.7**3, rel=error)
    turned = Surface(surface.vertices + 3, surface.faces[:, ::-1])
    assert turned.volume == pytest.approx(-surface.volume, rel=1e-4)


def test_the_normals_of_a_ball_point_away_from_its_centre() -> None:
    surface = ball(0.5, 48)
    assert surface.normals == pytest.approx(surface.vertices / 0.5, abs=2e-3)


def test_vertices_without_triangles_get_a_unit_normal() -> None:
    surface = ball(0.5, 6)
    more = Surface(np.concatenate([surface.vertices, [[0, 0, 9]]]).astype(np.float32), surface.faces)
    assert np.linalg.norm(more.normals, axis=-1) == pytest.approx(np.ones(len(more.vertices)), abs=1e-6)


def test_a_hole_or_a_turned_triangle_is_noticed() -> None:
    surface = ball(0.5, 12)
    assert surface.closed
    assert not Surface(surface.vertices, surface.faces[1:]).closed
    turned = surface.faces.copy()
    turned[5] = turned[5, ::-1]
    assert not Surface(surface.vertices, turned).closed


def test_a_ball_has_the_outline_and_the_depth_of_the_book() -> None:
    """From distance d, a ball of radius r fills a cone of half angle asin(r / d); its nearest point is at d - r."""
    frame = StaticMeshScene(unwrapped(ball(0.7, 96), GREY)).render(orbit_cameras(3, 0.4, 128), torch.zeros(3, 3))
    radius = math.tan(math.asin(0.7 / 3)) / math.tan(math.radians(20)) * 64
    assert frame.alpha.sum((1, 2, 3)).numpy() == pytest.approx(math.pi * radius**2, rel=5e-3)
    assert frame.depth[:, 64, 64, 0].numpy() == pytest.approx(2.3, abs=2e-3)
    assert (frame.depth[:, 0, 0] == 0).all()


def test_the_background_shows_through_where_the_mesh_does_not_cover() -> None:
    background = torch.tensor([[0.2, 0.4, 0.8], [1.0, 0.0, 0.5]])
    frame = StaticMeshScene(unwrapped(ball(), GREY), supersample=3).render(orbit_cameras(2, 0.0, 64), background)
    wanted = frame.alpha * (128 / 255) + (1 - frame.alpha) * background[:, None, None]
    torch.testing.assert_close(frame.rgb, wanted, atol=1e-5, rtol=0)
    assert ((frame.alpha > 0) & (frame.alpha < 1)).any()
    assert frame.alpha.amax() == 1


def test_texture_coordinates_start_at_the_upper_left_corner() -> None:
    picture = torch.zeros(1, 4, 4)
    picture[0, 0, 3] = 1.0  # first row, last column
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1], [0.75, 0.125]], np.float32)
    assert sample(picture, corners)[:, 0] == pytest.approx([0, 1, 0, 0, 0.5])


def test_the_top_of_the_texture_is_drawn_where_its_vertices_are() -> None:
    texture = GREY.copy()
    texture[:4], texture[4:] = (255, 0, 0), (0, 0, 255)
    frame = StaticMeshScene(unwrapped(ball(), texture)).render(orbit_cameras(1, 0.0, 64), torch.zeros(1, 3))
    assert frame.rgb[0, 20, 32].tolist() == pytest.approx([1, 0, 0])  # +Y is up in the picture, v = 0 at y = 1
    assert frame.rgb[0, 44, 32].tolist() == pytest.approx([0, 0, 1])


def test_a_mesh_agrees_with_itself_entirely() -> None:
    mesh = unwrapped(ball(), np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    match = agreement(StaticMeshScene(mesh), mesh)
    assert match.iou == 1.0
    assert match.psnr == pytest.approx(100.0)


def test_agreement_falls_with_the_size_as_the_outline_says() -> None:
    """Concentric balls: the IoU of their outlines is the ratio of the areas."""
    match = agreement(Painted(ball(0.7)), unwrapped(ball(0.5), GREY))
    tangents = [math.tan(math.asin(r / 3)) for r in (0.5, 0.7)]
    assert match.iou == pytest.approx((tangents[0] / tangents[1]) ** 2, rel=0.02)
    assert match.psnr < 20


def test_two_empty_pictures_agree() -> None:
    nothing, something = torch.zeros(1, 4, 4, dtype=torch.bool), torch.ones(1, 4, 4, dtype=torch.bool)
    assert iou(nothing, nothing) == 1.0
    assert iou(nothing, something) == 0.0


def test_cameras_stand_all_around() -> None:
    directions = fibonacci_cameras(200, 8).positions / 3
    assert directions.norm(dim=-1).numpy() == pytest.approx(np.ones(200), abs=1e-5)
    assert directions.mean(0).abs().max() < 0.02
    assert (directions @ directions.T - 2 * torch.eye(200)).amax(1).min() > 0.95


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="supersample is 0"):
        StaticMeshScene(unwrapped(ball(), GREY), supersample=0)
