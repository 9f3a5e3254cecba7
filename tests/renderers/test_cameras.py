"""Cameras: the axes, the units, and that what is projected lands where it should."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from renderers.cameras import DISTANCE, FOV, Cameras, look_at_origin, orbit_cameras

angles = st.floats(-3.1, 3.1)
heights = st.floats(-1.5, 1.5)


def one(azimuth: float, elevation: float, size: int = 64) -> Cameras:
    return look_at_origin(
        torch.tensor([azimuth], dtype=torch.float64), torch.tensor([elevation], dtype=torch.float64), size
    )


def pixel(cameras: Cameras, point: list[float]) -> Tensor:
    """Where a point lands (x, y) in pixels, and its depth."""
    homogeneous = torch.tensor([*point, 1.0], dtype=cameras.c2w.dtype)
    seen = (cameras.viewmats() @ homogeneous)[0, :3]
    landed = cameras.intrinsics()[0] @ seen
    return torch.stack([landed[0] / landed[2], landed[1] / landed[2], seen[2]])


@settings(max_examples=25, deadline=None)
@given(azimuth=angles, elevation=heights)
def test_angles_come_back(azimuth: float, elevation: float) -> None:
    cameras = one(azimuth, elevation)
    assert cameras.azimuth.item() == pytest.approx(azimuth, abs=1e-6)
    assert cameras.elevation.item() == pytest.approx(elevation, abs=1e-6)
    assert cameras.positions.norm().item() == pytest.approx(DISTANCE)


@settings(max_examples=25, deadline=None)
@given(azimuth=angles, elevation=st.floats(-math.pi / 2, math.pi / 2))
def test_the_pose_is_a_rotation_and_its_view_matrix_undoes_it_but_for_the_axes(
    azimuth: float, elevation: float
) -> None:
    cameras = one(azimuth, elevation)
    turn = cameras.c2w[0, :3, :3]
    identity = torch.eye(3, dtype=torch.float64)
    assert torch.allclose(turn @ turn.T, identity, atol=1e-12)
    assert torch.linalg.det(turn).item() == pytest.approx(1.0)
    undone = (cameras.viewmats() @ cameras.c2w)[0]
    assert torch.allclose(undone, torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)), atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(azimuth=angles, elevation=heights)
def test_the_origin_is_in_the_middle_and_up_is_up(azimuth: float, elevation: float) -> None:
    cameras = one(azimuth, elevation)
    assert torch.allclose(pixel(cameras, [0, 0, 0]), torch.tensor([32.0, 32.0, DISTANCE], dtype=torch.float64))
    x, y, _ = pixel(cameras, [0, 0.3, 0])
    assert x.item() == pytest.approx(32.0)
    assert y.item() < 32.0


def test_the_left_side_of_an_asset_is_right_in_its_front_view_and_ahead_from_a_quarter_turn() -> None:
    assert pixel(one(0.0, 0.0), [0.5, 0, 0])[0] > 32
    assert pixel(one(math.pi / 2, 0.0), [0.5, 0, 0])[2].item() == pytest.approx(DISTANCE - 0.5)


def test_the_edge_of_the_picture_is_half_the_field_of_view_away() -> None:
    cameras = one(0.0, 0.0)
    top = [0.0, DISTANCE * math.tan(FOV / 2), 0.0]
    assert pixel(cameras, top)[1].item() == pytest.approx(0.0, abs=1e-9)


def test_a_ring_is_even_and_starts_in_front() -> None:
    cameras = orbit_cameras(8, 0.2, 32)
    assert len(cameras) == 8
    steps = torch.remainder(cameras.azimuth.diff(), 2 * math.pi)
    assert torch.allclose(steps, torch.full((7,), math.pi / 4), atol=1e-5)
    assert cameras.azimuth[0].item() == pytest.approx(0.0, abs=1e-6)
    assert torch.equal(cameras[2:4].c2w, cameras.c2w[2:4])
