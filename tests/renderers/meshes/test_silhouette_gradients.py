"""Outlines of meshes: what they pull at is what finite differences say."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from renderers.cameras import Cameras, look_at_origin
from renderers.meshes import rasterization
from renderers.meshes.rasterization import antialias, find_silhouettes, interpolate, rasterize, texture_lookup
from renderers.meshes.triangles import SilhouetteCrossings, Topology, project_points
from tests.support.renderers.known_shapes import ball
from tests.support.renderers.triangle_soups import cameras, chance, needs_kernels, sphere


def summed(points: Tensor, triangles: Topology, camera: Cameras, weights: Tensor, finer: int = 1) -> Tensor:
    """Coverage of the mesh times weights: of the antialiased picture, or of one with many samples to a pixel."""
    at = project_points(points, replace(camera, height=camera.height * finer, width=camera.width * finer))
    fragments = rasterize(at, triangles, camera.height * finer, camera.width * finer)
    alpha = fragments.seen[..., None].to(points)
    if finer > 1:
        alpha = functional.avg_pool2d(alpha.permute(0, 3, 1, 2), finer).permute(0, 2, 3, 1)
    else:
        alpha = antialias(alpha, at, triangles, find_silhouettes(at, triangles, fragments))
    return (alpha * weights).sum(dtype=torch.float64)


@needs_kernels
@pytest.mark.parametrize(("rows", "size"), [(31, 96), (31, 256), (70, 128), (158, 128)])
@pytest.mark.parametrize("seed", [0, 1])
def test_outlines_pull_as_a_supersampled_picture_does(rows: int, size: int, seed: int) -> None:
    """Moving and growing spheres of 3.8, 19.6 and 99.8 thousand faces, most of them smaller than a pixel."""
    points, triangles = sphere(rows)
    camera = look_at_origin(torch.tensor([0.4]), torch.tensor([0.3]), size)
    coarse = torch.randn(1, 1, 6, 6, generator=chance(seed))
    weights = functional.interpolate(coarse, (size, size), mode="bicubic").permute(0, 2, 3, 1)
    moved = points.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(summed(moved, triangles, camera, weights), moved)
    ways = [axis.expand_as(points) for axis in torch.eye(3)] + [points]
    found, truth = [], []
    for way in ways:
        found.append(float((gradient * way).sum()))
        there, back = (summed(points + step * way, triangles, camera, weights, 8) for step in (0.02, -0.02))
        truth.append(float(there - back) / 0.04)
    got, wanted = np.array(found), np.array(truth)
    assert np.linalg.norm(got[:3] - wanted[:3]) < 0.05 * np.linalg.norm(wanted[:3])
    assert abs(got[3] - wanted[3]) < 0.1 * abs(wanted[3])


@needs_kernels
def test_an_inner_outline_pulls_as_well() -> None:
    """A ball in front of another one of a different colour; only the one in front moves."""
    near, far = ball(0.35, 40), ball(0.5, 40)
    points = torch.from_numpy(
        np.concatenate([near.vertices + np.array([0.1, 0, 0.5]), far.vertices - [0, 0, 0.4]])
    ).float()
    corners = torch.from_numpy(np.concatenate([near.faces, far.faces + len(near.vertices)]))
    triangles = Topology(corners.int(), len(points))
    front = torch.arange(len(points))[:, None] < len(near.vertices)
    camera = look_at_origin(torch.zeros(1), torch.zeros(1), 96)

    def red(points: Tensor, finer: int = 1) -> Tensor:
        view = replace(camera, height=96 * finer, width=96 * finer)
        at = project_points(points, view)
        fragments = rasterize(at, triangles, 96 * finer, 96 * finer)
        shown = interpolate(front.float(), triangles.corners, at, triangles, fragments)
        if finer == 1:
            shown = antialias(shown, at, triangles, find_silhouettes(at, triangles, fragments))
        ramp = torch.linspace(-1, 1, 96 * finer) ** 3
        return (shown[0, :, :, 0] * ramp).sum(dtype=torch.float64) / finer**2

    moved = points.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(red(moved), moved)
    way = torch.tensor([1.0, 0, 0]) * front
    truth = float(red(points + 0.02 * way, 8) - red(points - 0.02 * way, 8)) / 0.04
    assert float((gradient * way).sum()) == pytest.approx(truth, rel=0.05)
    # The one behind, moved the same way, changes what is seen of it but not what hides it.
    assert float((gradient * ~front).abs().sum()) < 0.05 * float((gradient * front).abs().sum())


@pytest.mark.usefixtures("way")
def test_antialiased_coverage_is_the_area() -> None:
    """A ball covers a disc of known size; without antialiasing only as many pixels as centres."""
    points, triangles = sphere(40)
    camera = look_at_origin(torch.tensor([0.3]), torch.tensor([0.2]), 64)
    radius = math.tan(math.asin(0.7 / 3)) / math.tan(math.radians(20)) * 32
    covered = float(summed(points, triangles, camera, torch.ones(1, 64, 64, 1)))
    assert covered == pytest.approx(math.pi * radius**2, rel=4e-3)


def test_the_twin_has_the_gradients_of_its_pictures() -> None:
    """Autograd against finite differences in float64, weights, outlines, depths and textures together."""
    points, triangles = sphere(4)
    camera = look_at_origin(torch.tensor([0.4]), torch.tensor([0.3]), 12)
    start = project_points(points.double(), camera).detach()
    fragments = rasterize(start, triangles, 12, 12)
    crossings = find_silhouettes(start, triangles, fragments)
    uv = torch.rand(len(points), 2, generator=chance(0), dtype=torch.float64)
    detail = torch.full(fragments.face.shape, 0.4, dtype=torch.float64)

    def shown(at: Tensor, texture: Tensor) -> Tensor:
        where = interpolate(uv, triangles.corners, at, triangles, fragments)
        depth = interpolate(at[..., 2:], triangles.corners, at, triangles, fragments)
        paint = texture_lookup(texture, where, detail, fragments.seen)
        return antialias(torch.cat([paint, depth], -1), at, triangles, crossings)

    texture = torch.rand(8, 8, 2, generator=chance(1), dtype=torch.float64)
    arguments = [start.clone().requires_grad_(), texture.requires_grad_()]
    assert torch.autograd.gradcheck(shown, arguments, eps=1e-7, atol=1e-4, rtol=1e-4)


def test_crossings_lie_beside_what_is_seen() -> None:
    points, triangles = sphere(12)
    at = project_points(points, cameras(1, 32, 32))
    fragments = rasterization.rasterize(at, triangles, 32, 32)
    crossings: SilhouetteCrossings = rasterization.find_silhouettes(at, triangles, fragments)
    _, axis, row, column = (crossings.edge >= 0).nonzero(as_tuple=True)
    seen = fragments.seen[0]
    here, there = seen[row, column], seen[row + (axis == 1), column + (axis == 0)]
    assert bool((here != there).all())  # nothing stands in front of a lone ball: all its outlines are against nothing
