"""The mesh rasteriser: kernel against twin, nothing drawn twice, no crash."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from renderers.cameras import look_at_origin
from renderers.meshes import cpu_kernels, reference
from renderers.meshes.rasterization import antialias, find_silhouettes, interpolate, rasterize, texture_lookup
from renderers.meshes.triangles import Fragments, Topology, project_points
from tests.support.renderers.triangle_soups import cameras, chance, in_double, needs_kernels, soup, sphere

# --- the kernels against the twin ---


SCENES = {
    "few": (soup(30, 0), 3.0),
    "many": (soup(200, 1), 3.0),
    "around the camera": (soup(30, 5), 0.8),
    "coarse ball": (sphere(6), 3.0),
    "fine ball": (sphere(40), 3.0),
}


@needs_kernels
@pytest.mark.parametrize("name", SCENES)
def test_kernel_and_twin_see_the_same(name: str) -> None:
    (points, triangles), distance = SCENES[name]
    at = project_points(points, cameras(2, 40, 56, distance))
    fast, slow = (way.rasterize(at, triangles, 40, 56) for way in (cpu_kernels, reference))
    exact = reference.rasterize(at.double(), triangles, 40, 56)
    # Where triangles pass through one another, rounding may decide which is nearer.
    same = fast.face == exact.face
    assert (~same).float().mean() < 1e-3 and (slow.face != exact.face).float().mean() < 1e-3
    assert (fast.bary - exact.bary)[same].abs().max() < 1e-5
    torch.testing.assert_close(fast.depth[same].double(), exact.depth[same], rtol=2e-6, atol=0)
    torch.testing.assert_close(fast.area[same].double(), exact.area[same], rtol=1e-4, atol=1e-6)
    assert exact.seen.float().mean() > 0.1


@needs_kernels
@pytest.mark.parametrize("name", SCENES)
def test_kernel_and_twin_have_the_same_outlines_and_gradients(name: str) -> None:
    (points, triangles), distance = SCENES[name]
    at = project_points(points, cameras(2, 40, 56, distance))
    fragments = cpu_kernels.rasterize(at, triangles, 40, 56)
    crossings = cpu_kernels.find_silhouettes(at, triangles, fragments)
    exact = reference.find_silhouettes(at.double(), triangles, in_double(fragments))
    assert (crossings.edge != exact.edge).float().mean() < 1e-3
    same = crossings.edge == exact.edge
    assert (crossings.offset - exact.offset)[same].abs().max() < 1e-6
    assert int((crossings.edge >= 0).sum()) > 20
    pull = torch.randn(2, 40, 56, 4, generator=chance(3))
    given = torch.rand(len(points), 4, generator=chance(4))
    found = []
    for way, kind, seen in (
        (cpu_kernels, torch.float32, fragments),
        (reference, torch.float64, in_double(fragments)),
    ):
        here, values = at.to(kind).requires_grad_(), given.to(kind).requires_grad_()
        sharp = way.interpolate(values, triangles.corners, here, triangles, seen)
        smooth = way.antialias(sharp, here, triangles, crossings)
        gradients = torch.autograd.grad((smooth * pull).sum(), [values, here])
        found.append([sharp.detach(), smooth.detach(), *gradients])
    for single, double in zip(*found, strict=True):
        assert (single - double).norm() < 1e-5 * double.norm()


@needs_kernels
def test_values_of_their_own_for_every_picture() -> None:
    points, triangles = sphere(8)
    at = project_points(points, cameras(3, 24, 24))
    fragments = rasterize(at, triangles, 24, 24)
    values = torch.rand(3, len(points), 2, generator=chance(0), requires_grad=True)
    picture = interpolate(values, triangles.corners, at, triangles, fragments)
    picture.square().sum().backward()
    assert values.grad is not None
    for view in range(3):
        one = values[view].detach().requires_grad_()
        rows = slice(view, view + 1)
        alone = Fragments(fragments.face[rows], fragments.bary[rows], fragments.depth[rows], fragments.area[rows])
        shown = interpolate(one, triangles.corners, at[rows], triangles, alone)
        assert torch.equal(shown[0], picture[view])
        assert torch.equal(torch.autograd.grad(shown.square().sum(), one)[0], values.grad[view])


@needs_kernels
def test_any_number_of_threads_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_kernels, "_WORTH_THREADS", 0)
    points, triangles = sphere(24)
    camera = cameras(3, 50, 70)
    texture, uv = torch.rand(16, 16, 3, generator=chance(0)), torch.rand(len(points), 2, generator=chance(1))

    def everything() -> list[Tensor]:
        inputs = [points.clone().requires_grad_(), texture.clone().requires_grad_()]
        at = project_points(inputs[0], camera)
        fragments = rasterize(at, triangles, 50, 70)
        crossings = find_silhouettes(at, triangles, fragments)
        where = interpolate(uv, triangles.corners, at, triangles, fragments)
        paint = texture_lookup(inputs[1], where, torch.full(fragments.face.shape, 0.5), fragments.seen)
        smooth = antialias(paint, at, triangles, crossings)
        gradients = torch.autograd.grad(smooth.square().sum(), inputs)
        return [fragments.face, fragments.bary, fragments.depth, crossings.edge, smooth, *gradients]

    before = torch.get_num_threads()
    runs = []
    try:
        for threads in (1, 2, 5):
            monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
            runs.append(everything())
    finally:
        monkeypatch.undo()
        torch.set_num_threads(before)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


# --- what is seen ---


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("step", [1.0, 0.5, 0.73])
@pytest.mark.parametrize("bent", [False, True])
def test_neighbours_share_no_pixel_and_leave_none_out(step: float, bent: bool) -> None:
    """A net of triangles over the picture, its nodes at pixel centres, on borders between them, or anywhere."""
    nodes = 9
    i, j = torch.meshgrid(torch.arange(nodes), torch.arange(nodes), indexing="ij")
    flat = torch.stack([j, i], -1).reshape(-1, 2) * step * 4 + 0.5
    if bent:
        flat = flat + torch.rand(flat.shape, generator=chance(0))
    depth = 1 + 3 * torch.rand(nodes**2, 1, generator=chance(1)) if bent else torch.ones(nodes**2, 1)
    at = torch.cat([flat * depth, depth], -1)[None]
    first = (i * nodes + j)[:-1, :-1].reshape(-1)
    upper = torch.stack([first, first + 1, first + nodes + 1], -1)
    lower = torch.stack([first, first + nodes + 1, first + nodes], -1)
    corners = torch.cat([upper, lower.flip(1)]).int()
    every = rasterize(at, Topology(corners, nodes**2), 36, 36)
    count = torch.zeros(1, 36, 36)
    for k in range(len(corners)):
        count += rasterize(at, Topology(corners[k : k + 1], nodes**2), 36, 36).seen
    assert int(count.max()) == 1
    assert torch.equal(count > 0, every.seen)
    if not bent:
        assert int(count.sum()) == math.ceil(step * 32) ** 2


@pytest.mark.usefixtures("way")
def test_a_closed_surface_has_no_holes() -> None:
    points, triangles = sphere(30)
    at = project_points(points, cameras(2, 64, 64))
    seen = rasterize(at, triangles, 64, 64).seen
    runs = seen.int().diff(dim=-1).abs().sum(-1)
    assert int(runs.max()) == 2


@pytest.mark.usefixtures("way")
def test_a_floor_that_reaches_behind_the_camera_ends_at_the_horizon() -> None:
    camera = look_at_origin(torch.zeros(1), torch.zeros(1), 64)
    floor = torch.tensor([[-2000.0, -0.5, -2000.0], [2000.0, -0.5, -2000.0], [0.0, -0.5, 3000.0]])
    at = project_points(floor, camera)
    assert bool((at[..., 2] < 0).any())
    fragments = rasterize(at, Topology(torch.tensor([[0, 1, 2]], dtype=torch.int32), 3), 64, 64)
    # Half a unit below the eye: at depth d it is 0.5 / d below the middle, and the far edge is 2003 away.
    assert not fragments.seen[0, :32].any() and fragments.seen[0, 33:].all()
    below = (torch.arange(33, 64) + 0.5 - 32) / 32 * math.tan(math.radians(20))
    torch.testing.assert_close(fragments.depth[0, 33:, 20], 0.5 / below, rtol=1e-3, atol=0)


@pytest.mark.usefixtures("way")
def test_areas_are_those_of_the_picture_and_negative_from_behind() -> None:
    corners = torch.tensor([[0, 1, 2]], dtype=torch.int32)
    for turn, sign in ((corners, 1), (corners.flip(1), -1)):
        at = torch.tensor([[[4.0, 28.0, 2.0], [36.0, 28.0, 2.0], [4.0, 4.0, 2.0]]])
        fragments = rasterize(at, Topology(turn, 3), 20, 20)
        assert fragments.area[fragments.seen].tolist() == pytest.approx([sign * 16 * 12] * int(fragments.seen.sum()))


def test_edges_know_their_triangles() -> None:
    _, triangles = sphere(8)
    edges = triangles.edges
    assert len(edges.vertices) == len(triangles) * 3 // 2  # Euler: every edge of a closed surface has two triangles
    assert len(edges.neighbours) == len(edges.vertices) and edges.crowded == 0
    wings = edges.edge_faces.long().view(-1, 2)
    assert ((wings % 2).sum(1) == 1).all()  # which run through it in opposite directions
    for k in range(2):
        shared = (triangles.corners[wings[:, k] // 2][:, :, None] == edges.vertices[:, None]).any(1)
        assert shared.all()
    fan = Topology(torch.tensor([[0, 1, 2], [0, 1, 3], [0, 1, 4]], dtype=torch.int32), 5)
    assert fan.edges.crowded == 1 and len(fan.edges.neighbours) == 0


# --- whatever comes in ---


def wild(rng: np.random.Generator) -> Iterator[Tensor]:
    """Places [1 8 3] of every kind."""
    kinds: list[Callable[[], np.ndarray]] = [
        lambda: rng.normal(size=(1, 8, 3)) * 40,
        lambda: rng.normal(size=(1, 8, 3)) * 10.0 ** rng.uniform(-38, 38, (1, 8, 3)),
        lambda: rng.choice([0.0, -0.0, np.nan, np.inf, -np.inf, 1.0, 1e38, -3e38, 1e-45, 8.5], (1, 8, 3)),
        lambda: np.where(rng.random((1, 8, 3)) < 0.1, np.nan, rng.normal(size=(1, 8, 3)) * [16, 16, 1]),
        lambda: np.repeat(rng.normal(size=(1, 1, 3)) * 10, 8, 1),
        lambda: np.round(rng.normal(size=(1, 8, 3)) * 3) * [8, 8, 1] + [0.5, 0.5, 0],
    ]
    for turn in range(60):
        with np.errstate(all="ignore"):
            yield torch.from_numpy(kinds[turn % len(kinds)]().astype(np.float32))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("size", [(16, 16), (1, 1), (3, 40)])
def test_nothing_crashes_whatever_is_drawn(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for at in wild(rng):
        triangles = Topology(torch.from_numpy(rng.integers(0, 8, (20, 3)).astype(np.int32)), 8)
        at = at.requires_grad_()
        fragments = rasterize(at, triangles, *size)
        seen = fragments.seen
        assert int(fragments.face.max()) < 20 and int(fragments.face.min()) >= -1
        assert fragments.bary.isfinite().all() and fragments.bary.min() >= 0 and fragments.bary.max() <= 1
        assert fragments.depth.isfinite().all() and (fragments.depth[seen] >= 0.0099).all()
        values = torch.rand(8, 2, requires_grad=True)
        shown = interpolate(values, triangles.corners, at, triangles, fragments)
        crossings = find_silhouettes(at, triangles, fragments)
        assert crossings.offset.min() >= 0 and crossings.offset.max() <= 1
        smooth = antialias(shown, at, triangles, crossings)
        assert smooth.isfinite().all()
        torch.autograd.grad(smooth.sum(), [at, values])


@pytest.mark.usefixtures("way")
def test_no_triangles_and_no_points_are_an_empty_picture() -> None:
    for count in (0, 5):
        triangles = Topology(torch.zeros(0, 3, dtype=torch.int32), count)
        at = torch.ones(2, count, 3)
        fragments = rasterize(at, triangles, 4, 6)
        assert not fragments.seen.any() and not fragments.depth.any()
        crossings = find_silhouettes(at, triangles, fragments)
        assert (crossings.edge == -1).all()
        assert not antialias(torch.zeros(2, 4, 6, 1), at, triangles, crossings).any()


def test_what_does_not_fit_together_is_refused() -> None:
    one = torch.tensor([[0, 1, 2]], dtype=torch.int32)
    with pytest.raises(ValueError, match="names point 3; there are 3"):
        Topology(one + 1, 3)
    with pytest.raises(ValueError, match="names point -1; there are 3"):
        Topology(one - 1, 3)
    triangles = Topology(one, 3)
    with pytest.raises(ValueError, match="4 points are given, but the triangles join 3"):
        rasterize(torch.zeros(1, 4, 3), triangles, 8, 8)
    with pytest.raises(ValueError, match="pictures of 0 x 8 pixels"):
        rasterize(torch.zeros(1, 3, 3), triangles, 0, 8)
    fragments = rasterize(torch.zeros(1, 3, 3), triangles, 8, 8)
    with pytest.raises(ValueError, match="2 triangles have values, but there are 1"):
        interpolate(torch.zeros(3, 1), torch.cat([one, one]), torch.zeros(1, 3, 3), triangles, fragments)
