"""The z-buffer: where points land, who owns a pixel, what is in front, and that the twin agrees."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy import ndarray

from renderers import kernels
from renderers.cameras import look_at_origin, orbit_cameras
from renderers.meshes import reference
from renderers.meshes.zbuffer import project, rasterize

SOUP = np.random.default_rng(0)


def square(depth: float, low: float, high: float) -> tuple[ndarray, ndarray]:
    """Two triangles that share a diagonal, in pixels."""
    corners = [[low, low, depth], [high, low, depth], [high, high, depth], [low, high, depth]]
    return np.array([corners], np.float32), np.array([[0, 1, 2], [0, 2, 3]], np.int32)


def test_known_points_land_on_known_pixels() -> None:
    front = look_at_origin(torch.zeros(1), torch.zeros(1), 100, distance=3.0, fov_y=math.pi / 2)
    # At depth 3 the picture is 6 high, so one unit is 100 / 6 pixels; up is -y, and the asset's left (+X) is right.
    (origin, left, up, near) = project(np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]), front)[0]
    assert origin == pytest.approx([50, 50, 3])
    assert left == pytest.approx([50 + 100 / 6, 50, 3])
    assert up == pytest.approx([50, 50 - 100 / 6, 3])
    assert near == pytest.approx([50, 50, 2])


@pytest.mark.usefixtures("way")
def test_an_edge_through_pixel_centres_belongs_to_one_triangle() -> None:
    """The square's corners and diagonal run through pixel centres: top and left sides are in, the others out."""
    screen, faces = square(1.0, 2.5, 6.5)
    fragments = rasterize(screen, faces, 9, 9)
    assert int(fragments.seen.sum()) == 16
    assert fragments.seen[0, 2:6, 2:6].all()
    alone = [rasterize(screen, faces[[k]], 9, 9).seen for k in range(2)]
    assert not (alone[0] & alone[1]).any()
    assert (alone[0] | alone[1]).sum() == 16


@pytest.mark.usefixtures("way")
def test_turning_triangles_round_changes_nothing_but_the_order_of_the_weights() -> None:
    screen, faces = SOUP.uniform(0, 40, (1, 60, 3)).astype(np.float32) + 0.1, SOUP.integers(0, 60, (40, 3))
    faces = faces.astype(np.int32)
    there, back = rasterize(screen, faces, 40, 40), rasterize(screen, faces[:, ::-1].copy(), 40, 40)
    assert (there.face == back.face).all()
    assert there.bary == pytest.approx(back.bary[..., ::-1], abs=1e-6)


@pytest.mark.usefixtures("way")
def test_the_nearer_square_hides_the_farther_one() -> None:
    near, faces = square(1.0, 3, 7)
    far, _ = square(2.0, 0, 10)
    for screen, order in ((np.concatenate([near, far], 1), (0, 1)), (np.concatenate([far, near], 1), (1, 0))):
        fragments = rasterize(screen, np.concatenate([faces, faces + 4]), 10, 10)
        assert fragments.depth[0, 5, 5] == pytest.approx(1.0)
        assert fragments.depth[0, 1, 1] == pytest.approx(2.0)
        assert fragments.face[0, 5, 5] // 2 == order[0]


@pytest.mark.usefixtures("way")
def test_weights_are_perspective_correct() -> None:
    """The blend of the corners' positions projects back to the centre of the pixel, at the pixel's depth."""
    camera = look_at_origin(torch.tensor([0.4]), torch.tensor([0.3]), 64)
    corners = np.array([[-0.9, -0.5, 0.6], [0.8, -0.6, -0.9], [0.1, 0.9, 0.2]])
    faces = np.array([[0, 1, 2]], np.int32)
    fragments = rasterize(project(corners, camera), faces, 64, 64)
    places = project(fragments.bary[fragments.seen] @ corners, camera)[0]
    _, rows, columns = np.nonzero(fragments.seen)
    assert len(rows) > 300
    assert fragments.bary[fragments.seen].sum(-1) == pytest.approx(1, abs=1e-5)
    assert places[:, 0] == pytest.approx(columns + 0.5, abs=1e-3)
    assert places[:, 1] == pytest.approx(rows + 0.5, abs=1e-3)
    assert places[:, 2] == pytest.approx(fragments.depth[fragments.seen], abs=1e-5)


@pytest.mark.usefixtures("way")
def test_what_cannot_be_drawn_is_left_out() -> None:
    """Behind the camera, not a number, far outside, without area; and nothing at all."""
    good, faces = square(1.0, 2, 6)
    for axis, value in ((2, -1.0), (2, 0.0), (0, np.nan), (1, np.inf), (0, 1e9)):
        screen = good.copy()
        screen[0, :, axis] = value
        assert not rasterize(screen, faces, 8, 8).seen.any()
    assert not rasterize(good, np.array([[0, 0, 1]], np.int32), 8, 8).seen.any()
    empty = rasterize(good, np.zeros((0, 3), np.int32), 8, 8)
    assert not empty.seen.any()
    assert not empty.depth.any()


@pytest.mark.skipif(kernels.library() is None, reason=kernels.why_missing())
def test_the_native_kernel_and_its_twin_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    vertices, faces = SOUP.normal(size=(300, 3)) * 0.6, SOUP.integers(0, 300, (500, 3)).astype(np.int32)
    screen = project(vertices, orbit_cameras(3, 0.3, 96))
    fast = rasterize(screen, faces, 80, 112)
    monkeypatch.setenv("SDS3D_KERNELS", "torch")
    slow = rasterize(screen, faces, 80, 112)
    assert (fast.face != slow.face).mean() < 1e-4
    same = fast.face == slow.face
    assert fast.bary[same] == pytest.approx(slow.bary[same], abs=1e-5)
    assert fast.depth[same] == pytest.approx(slow.depth[same], abs=1e-5)


def test_the_twin_draws_the_same_in_small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, faces = SOUP.uniform(0, 40, (1, 60, 3)).astype(np.float32) + 0.1, SOUP.integers(0, 60, (80, 3))
    faces = faces.astype(np.int32)
    monkeypatch.setenv("SDS3D_KERNELS", "torch")
    whole = rasterize(screen, faces, 40, 40)
    monkeypatch.setattr(reference, "PAIRS", 500)
    parts = rasterize(screen, faces, 40, 40)
    assert (whole.face == parts.face).all()
    assert (whole.depth == parts.depth).all()


def test_a_triangle_without_a_corner_is_refused() -> None:
    screen, _ = square(1.0, 2, 6)
    with pytest.raises(ValueError, match="names point 4; there are 4"):
        rasterize(screen, np.array([[0, 1, 4]], np.int32), 8, 8)
