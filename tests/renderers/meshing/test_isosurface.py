"""Surfaces from densities: closed, one shell, of the right size, and still closed when simplified."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy import ndarray

from renderers.meshes.mesh import Surface
from renderers.meshing.isosurface import marching_surface, repair, simplify, smooth_taubin
from renderers.splats.density_grid import ScalarGrid
from tests.support.renderers.known_shapes import ball

POINTS = np.linspace(-1, 1, 61)
X, Y, Z = np.meshgrid(POINTS, POINTS, POINTS, indexing="ij")


def grid(values: ndarray) -> ScalarGrid:
    return ScalarGrid(values.astype(np.float32), np.array([-1.0, -1.0, -1.0]), float(POINTS[1] - POINTS[0]))


def blob(x: float, width: float) -> ndarray:
    return np.exp(-0.5 * ((X - x) ** 2 + Y**2 + Z**2) / width**2)


def pieces(surface: Surface) -> int:
    """Parts that no triangle joins."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    rows, columns = surface.faces[:, [0, 1]].ravel(), surface.faces[:, [1, 2]].ravel()
    count = len(surface.vertices)
    joins = coo_matrix((np.ones(len(rows)), (rows, columns)), (count, count))
    return int(connected_components(joins, directed=False)[0])


@pytest.mark.parametrize("level", [0.02, 0.5, 0.9])
def test_a_gaussian_is_cut_where_its_formula_says(level: float) -> None:
    """exp(-r^2 / 2 s^2) = level at r = s sqrt(-2 ln level), on the grid's lines and between them."""
    surface = marching_surface(grid(blob(0.0, 0.3)), level)
    radius = 0.3 * math.sqrt(-2 * math.log(level))
    assert np.linalg.norm(surface.vertices, axis=-1) == pytest.approx(radius, abs=2e-3)
    assert surface.closed
    assert surface.volume > 0


def test_cavities_are_filled() -> None:
    """A hollow ball gives the outer shell alone."""
    distance = np.sqrt(X**2 + Y**2 + Z**2)
    surface = marching_surface(grid(np.exp(-0.5 * ((distance - 0.6) / 0.08) ** 2)), 0.5)
    outer = 0.6 + 0.08 * math.sqrt(2 * math.log(2))
    assert pieces(surface) == 1
    assert surface.volume == pytest.approx(4 / 3 * math.pi * outer**3, rel=0.02)


def test_floaters_go_and_equals_stay() -> None:
    large, small = blob(-0.3, 0.25), blob(0.8, 0.04)
    assert pieces(marching_surface(grid(large + small), 0.5)) == 1
    assert pieces(marching_surface(grid(blob(-0.5, 0.15) + blob(0.5, 0.15)), 0.5)) == 2
    assert pieces(marching_surface(grid(small), 0.5)) == 1  # alone it is the largest


def test_what_touches_the_border_is_closed_there() -> None:
    assert marching_surface(grid(np.ones_like(X) + blob(0, 0.2)), 0.5).closed


@pytest.mark.parametrize("level", [1.0, 7.5, 0.0, -1.0])
def test_levels_without_a_surface_are_refused_and_the_highest_named(level: float) -> None:
    with pytest.raises(ValueError, match=f"no surface at density {level:.3g}.*below 1"):
        marching_surface(grid(blob(0.0, 0.3)), level)


def test_smoothing_takes_the_steps_and_keeps_the_volume() -> None:
    surface = ball(0.7, 32)
    noise = np.random.default_rng(0).normal(size=surface.vertices.shape) * 0.01
    rough = Surface((surface.vertices + noise).astype(np.float32), surface.faces)
    smooth = smooth_taubin(rough)
    off = [np.linalg.norm(s.vertices, axis=-1).std() for s in (rough, smooth)]
    assert off[1] < 0.6 * off[0]
    assert smooth.volume == pytest.approx(surface.volume, rel=0.01)


@pytest.mark.parametrize("faces", [100, 1000, 4000])
def test_a_simpler_surface_is_closed_and_of_the_same_volume(faces: int) -> None:
    ragged = np.random.default_rng(1).uniform(0.9, 1.1, X.shape)
    surface = smooth_taubin(marching_surface(grid(blob(0.0, 0.3) * ragged + 0.8 * blob(0.5, 0.15)), 0.3))
    simple = simplify(surface, faces)
    assert surface.closed
    assert simple.closed
    assert 0.8 * faces <= len(simple.faces) <= faces
    assert simple.volume == pytest.approx(surface.volume, rel=0.05)


def test_a_small_surface_is_left_as_it_is() -> None:
    surface = ball(0.7, 8)
    simple = simplify(surface, 10_000)
    assert len(simple.faces) == len(surface.faces)
    assert simple.volume == pytest.approx(surface.volume, rel=1e-5)


def test_inside_out_is_turned_round() -> None:
    surface = ball(0.7, 8)
    assert simplify(Surface(surface.vertices, surface.faces[:, ::-1]), 10_000).volume > 0


def test_sheets_that_share_an_edge_are_parted() -> None:
    """Two balls of which two corners were made one: closing the edge costs its four triangles, no more."""
    one = ball(0.5, 8)
    count = len(one.vertices)
    vertices = np.concatenate([one.vertices, one.vertices + np.float32([2, 0, 0])])
    faces = np.concatenate([one.faces, one.faces + count])
    for corner in one.faces[40, :2]:
        faces[faces == corner + count] = corner
    assert not Surface(vertices, faces).closed
    whole = repair(Surface(vertices, faces))
    assert whole.closed
    assert len(whole.faces) == len(faces) - 4


def test_needles_are_taken_out() -> None:
    """A triangle cut in three at a point on its own side has one part without area."""
    one = ball(0.5, 8)
    a, b, c = one.faces[60].tolist()
    middle = len(one.vertices)
    vertices = np.concatenate([one.vertices, [0.5 * (one.vertices[a] + one.vertices[b])]]).astype(np.float32)
    parts = np.array([[a, b, middle], [b, c, middle], [c, a, middle]], np.int32)
    cut = Surface(vertices, np.concatenate([np.delete(one.faces, 60, 0), parts]))
    assert cut.closed
    assert smallest(cut) < 1e-8
    whole = repair(cut)
    assert whole.closed
    assert smallest(whole) > 1e-4


def test_flaps_are_taken_off() -> None:
    """Two triangles back to back that hang on an edge, or on a triangle of the surface."""
    one = ball(0.5, 8)
    a, b, c = one.faces[60].tolist()
    loose = len(one.vertices)
    vertices = np.concatenate([one.vertices, [[1, 1, 1]]]).astype(np.float32)
    for third in (c, loose):
        flap = np.array([[a, b, third], [b, a, third]], np.int32)
        whole = repair(Surface(vertices, np.concatenate([one.faces, flap])))
        assert whole.closed
        assert len(whole.vertices) == len(one.vertices)
        assert len(whole.faces) == len(one.faces)


def smallest(surface: Surface) -> float:
    """Area of the smallest triangle."""
    a, b, c = surface.vertices[surface.faces].transpose(1, 0, 2).astype(np.float64)
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=-1).min() / 2)
