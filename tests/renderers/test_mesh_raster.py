"""The mesh rasteriser: kernel against twin, nothing drawn twice, gradients against finite differences, no crash."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from renderers import mesh_kernels, mesh_raster, mesh_reference, native, pytorch3d_backend
from renderers.cameras import Cameras, looking_at_origin
from renderers.mesh_raster import antialias, blend, detail_of, levels_of, look_up, outline, places, rasterise
from renderers.triangles import Crossings, Fragments, Triangles
from tests.renderers.shapes import ball

needs_kernels = pytest.mark.skipif(native.library() is None, reason=native.why_missing())
Shape = tuple[Tensor, Triangles]


@pytest.fixture(params=["kernel", "twin"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the compiled kernels, and without."""
    if request.param == "twin":
        monkeypatch.setenv("SDS3D_KERNELS", "torch")
    elif native.library() is None:
        pytest.skip(native.why_missing())
    return str(request.param)


def chance(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sphere(rows: int, radius: float = 0.7) -> Shape:
    surface = ball(radius, rows)
    return torch.from_numpy(surface.vertices), Triangles(torch.from_numpy(surface.faces), len(surface.vertices))


def soup(count: int, seed: int) -> Shape:
    """Random triangles, many of them through one another."""
    rng = chance(seed)
    corners = torch.randint(0, count, (2 * count, 3), generator=rng, dtype=torch.int32)
    return 0.7 * torch.randn(count, 3, generator=rng), Triangles(corners, count)


def cameras(views: int, height: int, width: int, distance: float = 3.0) -> Cameras:
    square = looking_at_origin(torch.linspace(0.4, 2, views), torch.full((views,), 0.3), height, distance)
    return replace(square, width=width)


def in_double(fragments: Fragments) -> Fragments:
    return Fragments(fragments.face, fragments.bary.double(), fragments.depth.double(), fragments.area.double())


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
    at = places(points, cameras(2, 40, 56, distance))
    fast, slow = (way.rasterise(at, triangles, 40, 56) for way in (mesh_kernels, mesh_reference))
    exact = mesh_reference.rasterise(at.double(), triangles, 40, 56)
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
    at = places(points, cameras(2, 40, 56, distance))
    fragments = mesh_kernels.rasterise(at, triangles, 40, 56)
    crossings = mesh_kernels.outline(at, triangles, fragments)
    exact = mesh_reference.outline(at.double(), triangles, in_double(fragments))
    assert (crossings.edge != exact.edge).float().mean() < 1e-3
    same = crossings.edge == exact.edge
    assert (crossings.place - exact.place)[same].abs().max() < 1e-6
    assert int((crossings.edge >= 0).sum()) > 20
    pull = torch.randn(2, 40, 56, 4, generator=chance(3))
    given = torch.rand(len(points), 4, generator=chance(4))
    found = []
    for way, kind, seen in (
        (mesh_kernels, torch.float32, fragments),
        (mesh_reference, torch.float64, in_double(fragments)),
    ):
        here, values = at.to(kind).requires_grad_(), given.to(kind).requires_grad_()
        sharp = way.blend(values, triangles.corners, here, triangles, seen)
        smooth = way.antialias(sharp, here, triangles, crossings)
        gradients = torch.autograd.grad((smooth * pull).sum(), [values, here])
        found.append([sharp.detach(), smooth.detach(), *gradients])
    for single, double in zip(*found, strict=True):
        assert (single - double).norm() < 1e-5 * double.norm()


@needs_kernels
def test_values_of_their_own_for_every_picture() -> None:
    points, triangles = sphere(8)
    at = places(points, cameras(3, 24, 24))
    fragments = rasterise(at, triangles, 24, 24)
    values = torch.rand(3, len(points), 2, generator=chance(0), requires_grad=True)
    picture = blend(values, triangles.corners, at, triangles, fragments)
    picture.square().sum().backward()
    assert values.grad is not None
    for view in range(3):
        one = values[view].detach().requires_grad_()
        rows = slice(view, view + 1)
        alone = Fragments(fragments.face[rows], fragments.bary[rows], fragments.depth[rows], fragments.area[rows])
        shown = blend(one, triangles.corners, at[rows], triangles, alone)
        assert torch.equal(shown[0], picture[view])
        assert torch.equal(torch.autograd.grad(shown.square().sum(), one)[0], values.grad[view])


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
    every = rasterise(at, Triangles(corners, nodes**2), 36, 36)
    count = torch.zeros(1, 36, 36)
    for k in range(len(corners)):
        count += rasterise(at, Triangles(corners[k : k + 1], nodes**2), 36, 36).seen
    assert int(count.max()) == 1
    assert torch.equal(count > 0, every.seen)
    if not bent:
        assert int(count.sum()) == math.ceil(step * 32) ** 2


@pytest.mark.usefixtures("way")
def test_a_closed_surface_has_no_holes() -> None:
    points, triangles = sphere(30)
    at = places(points, cameras(2, 64, 64))
    seen = rasterise(at, triangles, 64, 64).seen
    runs = seen.int().diff(dim=-1).abs().sum(-1)
    assert int(runs.max()) == 2


@pytest.mark.usefixtures("way")
def test_a_floor_that_reaches_behind_the_camera_ends_at_the_horizon() -> None:
    camera = looking_at_origin(torch.zeros(1), torch.zeros(1), 64)
    floor = torch.tensor([[-2000.0, -0.5, -2000.0], [2000.0, -0.5, -2000.0], [0.0, -0.5, 3000.0]])
    at = places(floor, camera)
    assert bool((at[..., 2] < 0).any())
    fragments = rasterise(at, Triangles(torch.tensor([[0, 1, 2]], dtype=torch.int32), 3), 64, 64)
    # Half a unit below the eye: at depth d it is 0.5 / d below the middle, and the far edge is 2003 away.
    assert not fragments.seen[0, :32].any() and fragments.seen[0, 33:].all()
    below = (torch.arange(33, 64) + 0.5 - 32) / 32 * math.tan(math.radians(20))
    torch.testing.assert_close(fragments.depth[0, 33:, 20], 0.5 / below, rtol=1e-3, atol=0)


@pytest.mark.usefixtures("way")
def test_areas_are_those_of_the_picture_and_negative_from_behind() -> None:
    corners = torch.tensor([[0, 1, 2]], dtype=torch.int32)
    for turn, sign in ((corners, 1), (corners.flip(1), -1)):
        at = torch.tensor([[[4.0, 28.0, 2.0], [36.0, 28.0, 2.0], [4.0, 4.0, 2.0]]])
        fragments = rasterise(at, Triangles(turn, 3), 20, 20)
        assert fragments.area[fragments.seen].tolist() == pytest.approx([sign * 16 * 12] * int(fragments.seen.sum()))


def summed(points: Tensor, triangles: Triangles, camera: Cameras, weights: Tensor, finer: int = 1) -> Tensor:
    """Coverage of the mesh times weights: of the antialiased picture, or of one with many samples to a pixel."""
    at = places(points, replace(camera, height=camera.height * finer, width=camera.width * finer))
    fragments = rasterise(at, triangles, camera.height * finer, camera.width * finer)
    alpha = fragments.seen[..., None].to(points)
    if finer > 1:
        alpha = functional.avg_pool2d(alpha.permute(0, 3, 1, 2), finer).permute(0, 2, 3, 1)
    else:
        alpha = antialias(alpha, at, triangles, outline(at, triangles, fragments))
    return (alpha * weights).sum(dtype=torch.float64)


@needs_kernels
@pytest.mark.parametrize(("rows", "size"), [(31, 96), (31, 256), (70, 128), (158, 128)])
@pytest.mark.parametrize("seed", [0, 1])
def test_outlines_pull_as_a_supersampled_picture_does(rows: int, size: int, seed: int) -> None:
    """Moving and growing spheres of 3.8, 19.6 and 99.8 thousand faces, most of them smaller than a pixel."""
    points, triangles = sphere(rows)
    camera = looking_at_origin(torch.tensor([0.4]), torch.tensor([0.3]), size)
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
    triangles = Triangles(corners.int(), len(points))
    front = torch.arange(len(points))[:, None] < len(near.vertices)
    camera = looking_at_origin(torch.zeros(1), torch.zeros(1), 96)

    def red(points: Tensor, finer: int = 1) -> Tensor:
        view = replace(camera, height=96 * finer, width=96 * finer)
        at = places(points, view)
        fragments = rasterise(at, triangles, 96 * finer, 96 * finer)
        shown = blend(front.float(), triangles.corners, at, triangles, fragments)
        if finer == 1:
            shown = antialias(shown, at, triangles, outline(at, triangles, fragments))
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
    camera = looking_at_origin(torch.tensor([0.3]), torch.tensor([0.2]), 64)
    radius = math.tan(math.asin(0.7 / 3)) / math.tan(math.radians(20)) * 32
    covered = float(summed(points, triangles, camera, torch.ones(1, 64, 64, 1)))
    assert covered == pytest.approx(math.pi * radius**2, rel=4e-3)


def test_the_twin_has_the_gradients_of_its_pictures() -> None:
    """Autograd against finite differences in float64, weights, outlines, depths and textures together."""
    points, triangles = sphere(4)
    camera = looking_at_origin(torch.tensor([0.4]), torch.tensor([0.3]), 12)
    start = places(points.double(), camera).detach()
    fragments = rasterise(start, triangles, 12, 12)
    crossings = outline(start, triangles, fragments)
    uv = torch.rand(len(points), 2, generator=chance(0), dtype=torch.float64)
    detail = torch.full(fragments.face.shape, 0.4, dtype=torch.float64)

    def shown(at: Tensor, texture: Tensor) -> Tensor:
        where = blend(uv, triangles.corners, at, triangles, fragments)
        depth = blend(at[..., 2:], triangles.corners, at, triangles, fragments)
        paint = look_up(texture, where, detail, fragments.seen)
        return antialias(torch.cat([paint, depth], -1), at, triangles, crossings)

    texture = torch.rand(8, 8, 2, generator=chance(1), dtype=torch.float64)
    arguments = [start.clone().requires_grad_(), texture.requires_grad_()]
    assert torch.autograd.gradcheck(shown, arguments, eps=1e-7, atol=1e-4, rtol=1e-4)


@needs_kernels
@pytest.mark.parametrize("detail", [0.0, 0.3, 1.7, 5.0, -1.0])
def test_kernel_and_twin_look_up_the_same(detail: float) -> None:
    rng = chance(0)
    texture, uv = torch.rand(32, 32, 5, generator=rng), 1.4 * torch.rand(2, 9, 7, 2, generator=rng) - 0.2
    wanted, pull = torch.rand(2, 9, 7, generator=rng) > 0.3, torch.randn(2, 9, 7, 5, generator=rng)
    found = []
    for way, kind in ((mesh_kernels, torch.float32), (mesh_reference, torch.float64)):
        inputs = [texture.to(kind).requires_grad_(), uv.to(kind).requires_grad_()]
        levels = torch.full(wanted.shape, detail, dtype=kind)
        values = way.look_up(*inputs, levels, wanted, levels_of(32))
        found.append([values.detach(), *torch.autograd.grad((values * pull).sum(), inputs)])
    for single, double in zip(*found, strict=True):
        assert (single - double).norm() <= 1e-5 * double.norm()


@pytest.mark.usefixtures("way")
def test_a_texture_is_seen_where_its_coordinates_say() -> None:
    texture = torch.zeros(4, 4, 1)
    texture[0, 3] = 1  # the upper right corner
    uv = torch.tensor([[[[0.875, 0.125], [0.125, 0.125], [0.875, 0.875], [2.0, -1.0], [0.75, 0.125]]]])
    seen = torch.ones(1, 1, 5, dtype=torch.bool)
    assert look_up(texture, uv, torch.zeros(1, 1, 5), seen)[..., 0].tolist() == [[[1, 0, 0, 1, 0.5]]]
    assert look_up(texture, uv, torch.full((1, 1, 5), 1.0), seen)[0, 0, 3, 0] == 0.25
    assert not look_up(texture, uv, torch.zeros(1, 1, 5), ~seen).any()
    assert [levels_of(size) for size in (1024, 512, 96, 100, 6, 2, 33)] == [4, 4, 4, 3, 2, 1, 1]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("texels", [64, 128, 512])
def test_the_level_of_detail_is_texels_to_a_pixel(texels: int) -> None:
    """A square that fills 64 pixels with a whole texture."""
    at = torch.tensor([[[0.0, 0, 2], [128, 0, 2], [128, 128, 2], [0, 128, 2]]])
    triangles = Triangles(torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32), 4)
    detail = detail_of(rasterise(at, triangles, 64, 64), torch.ones(2), texels)
    torch.testing.assert_close(detail, torch.full((1, 64, 64), math.log2(texels / 64)))


@needs_kernels
def test_any_number_of_threads_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh_kernels, "_WORTH_THREADS", 0)
    points, triangles = sphere(24)
    camera = cameras(3, 50, 70)
    texture, uv = torch.rand(16, 16, 3, generator=chance(0)), torch.rand(len(points), 2, generator=chance(1))

    def everything() -> list[Tensor]:
        inputs = [points.clone().requires_grad_(), texture.clone().requires_grad_()]
        at = places(inputs[0], camera)
        fragments = rasterise(at, triangles, 50, 70)
        crossings = outline(at, triangles, fragments)
        where = blend(uv, triangles.corners, at, triangles, fragments)
        paint = look_up(inputs[1], where, torch.full(fragments.face.shape, 0.5), fragments.seen)
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
        triangles = Triangles(torch.from_numpy(rng.integers(0, 8, (20, 3)).astype(np.int32)), 8)
        at = at.requires_grad_()
        fragments = rasterise(at, triangles, *size)
        seen = fragments.seen
        assert int(fragments.face.max()) < 20 and int(fragments.face.min()) >= -1
        assert fragments.bary.isfinite().all() and fragments.bary.min() >= 0 and fragments.bary.max() <= 1
        assert fragments.depth.isfinite().all() and (fragments.depth[seen] >= 0.0099).all()
        values = torch.rand(8, 2, requires_grad=True)
        shown = blend(values, triangles.corners, at, triangles, fragments)
        crossings = outline(at, triangles, fragments)
        assert crossings.place.min() >= 0 and crossings.place.max() <= 1
        smooth = antialias(shown, at, triangles, crossings)
        assert smooth.isfinite().all()
        torch.autograd.grad(smooth.sum(), [at, values])


@pytest.mark.usefixtures("way")
def test_no_triangles_and_no_points_are_an_empty_picture() -> None:
    for count in (0, 5):
        triangles = Triangles(torch.zeros(0, 3, dtype=torch.int32), count)
        at = torch.ones(2, count, 3)
        fragments = rasterise(at, triangles, 4, 6)
        assert not fragments.seen.any() and not fragments.depth.any()
        crossings = outline(at, triangles, fragments)
        assert (crossings.edge == -1).all()
        assert not antialias(torch.zeros(2, 4, 6, 1), at, triangles, crossings).any()


@pytest.mark.usefixtures("way")
def test_wild_texture_places_find_a_texel() -> None:
    rng = np.random.default_rng(0)
    uv = rng.choice([0.0, np.nan, np.inf, -np.inf, 1e38, -7.0, 0.5, 1.0], (1, 20, 20, 2)).astype(np.float32)
    detail = torch.from_numpy(rng.choice([np.nan, np.inf, -np.inf, 0.0, 2.5], (1, 20, 20)).astype(np.float32))
    where = torch.from_numpy(uv)
    if native.library() is None:  # the twin's grid_sample may answer NaN with NaN
        where, detail = where.nan_to_num(), detail.nan_to_num()
    texture = torch.rand(16, 16, 3, requires_grad=True)
    values = look_up(texture, where.requires_grad_(), detail, torch.ones(1, 20, 20, dtype=torch.bool))
    assert values.isfinite().all()
    torch.autograd.grad(values.sum(), [texture, where])


def test_what_does_not_fit_together_is_refused() -> None:
    one = torch.tensor([[0, 1, 2]], dtype=torch.int32)
    with pytest.raises(ValueError, match="names point 3; there are 3"):
        Triangles(one + 1, 3)
    with pytest.raises(ValueError, match="names point -1; there are 3"):
        Triangles(one - 1, 3)
    triangles = Triangles(one, 3)
    with pytest.raises(ValueError, match="4 points are given, but the triangles join 3"):
        rasterise(torch.zeros(1, 4, 3), triangles, 8, 8)
    with pytest.raises(ValueError, match="pictures of 0 x 8 pixels"):
        rasterise(torch.zeros(1, 3, 3), triangles, 0, 8)
    fragments = rasterise(torch.zeros(1, 3, 3), triangles, 8, 8)
    with pytest.raises(ValueError, match="2 triangles have values, but there are 1"):
        blend(torch.zeros(3, 1), torch.cat([one, one]), torch.zeros(1, 3, 3), triangles, fragments)


def test_edges_know_their_triangles() -> None:
    _, triangles = sphere(8)
    edges = triangles.edges
    assert len(edges.ends) == len(triangles) * 3 // 2  # Euler: every edge of a closed surface has two triangles
    assert len(edges.neighbours) == len(edges.ends) and edges.crowded == 0
    wings = edges.wings.long().view(-1, 2)
    assert ((wings % 2).sum(1) == 1).all()  # which run through it in opposite directions
    for k in range(2):
        shared = (triangles.corners[wings[:, k] // 2][:, :, None] == edges.ends[:, None]).any(1)
        assert shared.all()
    fan = Triangles(torch.tensor([[0, 1, 2], [0, 1, 3], [0, 1, 4]], dtype=torch.int32), 5)
    assert fan.edges.crowded == 1 and len(fan.edges.neighbours) == 0


def test_pytorch3d_is_called_as_it_wants() -> None:
    pytest.importorskip("pytorch3d.renderer.mesh.rasterize_meshes", exc_type=ImportError)
    from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
    from pytorch3d.structures import Meshes

    points, triangles = sphere(6)
    batch = pytorch3d_backend.batch(places(points, cameras(1, 8, 8)), triangles, 8, 8)
    inspect.signature(Meshes).bind(**batch)
    inspect.signature(rasterize_meshes).bind(None, **pytorch3d_backend.settings(8, 8))


def test_triangles_numbered_through_all_pictures_come_back() -> None:
    """What PyTorch3D would answer, made from our own answer: the same weights, depths and areas."""
    points, triangles = sphere(10)
    at = places(points.double(), cameras(3, 20, 28))
    wanted = mesh_reference.rasterise(at, triangles, 20, 28)
    numbered = torch.where(wanted.seen, wanted.face + torch.arange(3)[:, None, None] * len(triangles), -1)
    found = pytorch3d_backend.fragments(numbered.long(), at, triangles)
    for name in ("face", "bary", "depth", "area"):
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name))
    verts = pytorch3d_backend.batch(at, triangles, 20, 28)["verts"]
    # The shorter side of the picture reaches from -1 to 1, x to the left and y up.
    flat = at[..., :2] / at[..., 2:]
    torch.testing.assert_close(flat, torch.tensor([14.0, 10.0]).double() - 10 * verts[..., :2])
    assert not bool(pytorch3d_backend.batch(at * torch.nan, triangles, 20, 28)["verts"].isnan().any())


@pytest.mark.cuda
def test_cuda_sees_what_the_cpu_sees() -> None:
    points, triangles = sphere(30)
    at = places(points, cameras(2, 64, 48))
    there = Triangles(triangles.corners.cuda(), triangles.points)
    on_gpu, on_cpu = rasterise(at.cuda(), there, 64, 48), rasterise(at, triangles, 64, 48)
    assert (on_gpu.face.cpu() != on_cpu.face).float().mean() < 1e-3
    alpha = [fragments.seen[..., None].float() for fragments in (on_gpu, on_cpu)]
    smooth = antialias(alpha[0], at.cuda(), there, outline(at.cuda(), there, on_gpu)).cpu()
    expected = antialias(alpha[1], at, triangles, outline(at, triangles, on_cpu))
    assert (smooth - expected).abs().mean() < 1e-3


def test_crossings_lie_beside_what_is_seen() -> None:
    points, triangles = sphere(12)
    at = places(points, cameras(1, 32, 32))
    fragments = mesh_raster.rasterise(at, triangles, 32, 32)
    crossings: Crossings = mesh_raster.outline(at, triangles, fragments)
    _, axis, row, column = (crossings.edge >= 0).nonzero(as_tuple=True)
    seen = fragments.seen[0]
    here, there = seen[row, column], seen[row + (axis == 1), column + (axis == 0)]
    assert bool((here != there).all())  # nothing stands in front of a lone ball: all its outlines are against nothing
