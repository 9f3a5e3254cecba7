"""Volumes to pictures: the kernels against the twin, and closed forms."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor, nn

from renderers.cameras import Cameras, look_at_origin
from renderers.volumes import cpu_kernels, reference
from renderers.volumes.hash_field import HashGridField
from renderers.volumes.occupancy import OccupancyGrid
from renderers.volumes.rays import FieldOutput, MarchOptions, Rays, ShadingMode
from renderers.volumes.rendering import render_rays
from renderers.volumes.voxel_field import Field, VoxelField, lattice_points
from tests.support.renderers.voxel_volumes import (
    MARCH,
    NAMES,
    SCALE,
    cameras,
    cloud,
    rays_of,
    same_layers,
    seen,
    voxels,
)


def inside() -> Cameras:
    """A camera in the middle of the content, one at its edge, one that looks away from it."""
    looks = cameras()
    c2w = looks.c2w.clone()
    c2w[0, :3, 3] *= 0.01
    c2w[1, :3, 3] *= 0.3
    c2w[2, :3, 3] *= -1
    return replace(looks, c2w=c2w)


def axis_parallel() -> Cameras:
    """Cameras on the axes, with rays that are exactly parallel to them."""
    azimuth = torch.tensor([0.0, math.pi / 2, 0.0])
    return look_at_origin(azimuth, torch.tensor([0.0, 0.0, math.pi / 2]), 15)


SCENES = {
    "cloud": (cloud(), cameras()),
    "solid": (cloud(height=30.0), cameras()),
    "thin": (cloud(height=-6.0), cameras()),
    "cameras inside": (cloud(), inside()),
    "odd size": (cloud(), replace(cameras(), height=13, width=21)),
    "along the axes": (cloud(), axis_parallel()),
    "two corners": (cloud(2, height=36.0), cameras()),
}


# --- the kernels against the twin ---


@pytest.mark.parametrize("name", SCENES)
def test_kernels_agree_with_the_float64_twin(kernels: str, name: str) -> None:
    values, looks = SCENES[name]
    fast, slow = voxels(values, torch.float32), voxels(values, torch.float64)
    occupancy = OccupancyGrid.from_density(slow.max_density(10), 0.01)
    layers = seen(fast, rays_of(looks, torch.float32), occupancy=occupancy)
    same_layers(layers, seen(slow, rays_of(looks, torch.float64), occupancy=occupancy))
    assert layers.alpha.max() > 0.01
    for channels in (slice(0, 1), slice(1, 4)):
        truth = slow.values.grad[..., channels]
        error = (fast.values.grad[..., channels] - truth).norm() / truth.norm()
        assert error < 1e-3, f"channels {channels}: relative error {error:.1e}"


@pytest.mark.parametrize("normals", [False, True])
def test_the_way_over_packed_samples_agrees_too(kernels: str, normals: bool) -> None:
    """The same voxels as a field of an unknown kind, which the kernels cannot look into."""

    class Unknown(Field):
        def __init__(self, within: VoxelField) -> None:
            super().__init__()
            self.within = within

        def query(self, points: Tensor, normals: bool) -> FieldOutput:
            return self.within.query(points, normals)

        def max_density(self, cells: int) -> Tensor:
            return self.within.max_density(cells)

    march, rays = replace(MARCH, normals=normals), rays_of(cameras(), torch.float32)
    occupancy = OccupancyGrid.from_density(voxels(cloud(), torch.float32).max_density(10), 0.1)
    known, unknown = voxels(cloud(), torch.float32), Unknown(voxels(cloud(), torch.float32))
    one, other = seen(known, rays, march, occupancy), seen(unknown, rays, march, occupancy)
    for name in NAMES:
        torch.testing.assert_close(getattr(one, name), getattr(other, name), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(known.values.grad, unknown.within.values.grad, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", ["voxels", "hashed"])
def test_kernels_are_deterministic_whatever_the_threads(kernels: str, kind: str) -> None:
    rays, march = rays_of(cameras(3, 40), torch.float32), MarchOptions(step=1 / 32, spread=True)
    hashed = HashGridField(torch.Generator().manual_seed(0), levels=4, log2_size=10, finest=32, width=8)
    field: Field = hashed if kind == "hashed" else voxels(cloud(), torch.float32)
    before, runs = torch.get_num_threads(), []
    for threads in (1, 1, 2, 3):
        torch.set_num_threads(threads)
        layers = seen(field, rays, march)
        runs.append([getattr(layers, name).detach() for name in NAMES])
        runs[-1] += [parameter.grad.clone() for parameter in field.parameters()]
    torch.set_num_threads(before)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


# --- laws of both ---


def even(raw: float, kind: torch.dtype) -> VoxelField:
    """The same everywhere: a ball of one density, and of one colour."""
    values = torch.tensor([raw, 1.0, 0.0, -1.0], dtype=kind).expand(5, 5, 5, 4)
    return VoxelField(values.clone(), 1.0)


def test_an_even_ball_has_the_closed_form(kind: torch.dtype) -> None:
    """Alpha is 1 - exp(-density * chord), and the light comes from the exponential along it."""
    looks = look_at_origin(torch.tensor([0.4]), torch.tensor([-0.3]), 15)
    rays = Rays.from_cameras(looks, torch.zeros(1, dtype=kind))
    field, step = even(0.5, kind), 1e-3
    with torch.no_grad():
        layers = render_rays(field, OccupancyGrid.full(4, "cpu"), rays, MarchOptions(step, normals=False, spread=True))
    density = math.log1p(math.exp(0.5))
    middle = -(rays.origins[0] * rays.directions[0]).sum(-1)
    half = (middle.square() - rays.origins[0].square().sum() + 1).clamp_min(0).sqrt()
    alpha = 1 - torch.exp(-2 * density * half)
    torch.testing.assert_close(layers.alpha[0, ..., 0], alpha, atol=3e-3, rtol=0)
    colour = torch.tensor([1.0, 0.0, -1.0], dtype=kind).sigmoid()
    torch.testing.assert_close(layers.rgb, layers.alpha * colour, atol=1e-5, rtol=1e-4)
    # The mean distance of an exponential that is cut off, and the mean distance of two draws from it.
    chord = 2 * half
    mean = 1 / density - chord * torch.exp(-density * chord) / alpha.clamp_min(1e-9)
    reach = torch.where(half > 0, alpha * (middle - half + mean), 0.0)
    torch.testing.assert_close(layers.distance[0, ..., 0], reach, atol=1e-2, rtol=0)
    kept = torch.exp(-density * chord)
    spread = (1 - kept.square()) / density - 2 * kept * chord
    torch.testing.assert_close(layers.distortion[0, ..., 0], spread, atol=1e-2, rtol=0)


def test_distortion_is_the_sum_over_all_pairs() -> None:
    chance = torch.Generator().manual_seed(2)
    weight, distances = torch.rand(4, 9, generator=chance), torch.rand(4, 9, generator=chance).sort(-1).values
    pairs = weight[:, :, None] * weight[:, None] * (distances[:, :, None] - distances[:, None]).abs()
    truth = pairs.sum((1, 2)) + (weight.square() * 0.1 / 3).sum(-1)
    torch.testing.assert_close(reference.distortion(weight, distances, 0.1), truth)


def test_a_batch_is_its_views_one_by_one(kind: torch.dtype) -> None:
    field, rays = voxels(cloud(), kind), rays_of(cameras(), kind)
    together = seen(field, rays)
    for view in range(3):
        one = Rays(*(getattr(rays, part.name)[view : view + 1] for part in fields(rays)))
        alone = seen(field, one)
        for name in NAMES:
            torch.testing.assert_close(getattr(together, name)[view], getattr(alone, name)[0], atol=1e-6, rtol=1e-5)


def test_what_is_skipped_would_not_have_been_seen(kind: torch.dtype) -> None:
    """Two small dense lumps far apart: cells without them are skipped, and neither picture nor gradient changes."""
    points = lattice_points(24, torch.zeros(1, dtype=kind))
    centres = torch.tensor([[0.5, 0.1, 0.2], [-0.4, -0.3, -0.5]], dtype=kind)
    lumps = torch.cdist(points, centres).amin(-1)
    values = torch.cat([100 * (0.15 - lumps)[:, None].clamp_min(-0.5), torch.randn(len(points), 3).to(kind)], -1)
    field = VoxelField(values.view(24, 24, 24, 4), SCALE)
    occupancy = OccupancyGrid.from_density(field.max_density(16), 1e-6)
    assert 0.01 < occupancy.occupied_fraction < 0.3
    rays = rays_of(cameras(3, 32), kind)
    sparse, gradient = seen(field, rays, occupancy=occupancy), field.values.grad.clone()
    full = seen(field, rays)
    assert sparse.num_samples.sum() < 0.5 * full.num_samples.sum()
    for name in NAMES:
        torch.testing.assert_close(getattr(sparse, name), getattr(full, name), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(gradient, field.values.grad, atol=1e-4, rtol=1e-3)


def test_an_empty_volume_shows_nothing_and_gets_no_gradient(kind: torch.dtype) -> None:
    field = voxels(cloud(), kind)
    nowhere = OccupancyGrid.from_mask(torch.zeros(8, 8, 8, dtype=torch.bool))
    layers = seen(field, rays_of(cameras(), kind), occupancy=nowhere)
    assert not any(getattr(layers, name).any() for name in [*NAMES, "num_samples"])
    assert not field.values.grad.any()


def test_a_ray_that_is_stopped_takes_no_more_samples(kind: torch.dtype) -> None:
    solid = seen(even(200.0, kind), rays_of(cameras(), kind), MarchOptions(step=1 / 8))
    assert solid.alpha[solid.alpha > 0].min() > 0.999
    assert solid.alpha.max() <= 1.0001


def test_normals_of_a_ball_point_outward_and_light_falls_from_its_side(kind: torch.dtype) -> None:
    points = lattice_points(48, torch.zeros(1, dtype=kind))
    raw = 40 * (0.6 - points.norm(dim=-1))
    field = VoxelField(torch.cat([raw[:, None], torch.zeros(len(points), 3).to(kind)], -1).view(48, 48, 48, 4), SCALE)
    rays = replace(
        rays_of(cameras(1, 33), kind), shades=torch.tensor([int(ShadingMode.TEXTURELESS)], dtype=torch.int32)
    )
    lights = 3 * look_at_origin(torch.tensor([math.pi / 2]), torch.zeros(1), 3).positions.to(kind)
    rays = replace(rays, lights=lights)
    layers = render_rays(field, OccupancyGrid.full(8, "cpu"), rays, replace(MARCH, ambient=0.0))
    front = layers.alpha[0, ..., 0] > 0.99
    place = rays.origins[:, None, None] + rays.directions * layers.distance / layers.alpha.clamp_min(1e-6)
    facing = (nn.functional.normalize(place, dim=-1) * layers.normal).sum(-1)[0]
    assert facing[front].min() > 0.9
    share = nn.functional.cosine_similarity(place, lights - place, dim=-1)[0].clamp_min(0)
    torch.testing.assert_close(layers.rgb[0, ..., 0][front], share[front], atol=0.12, rtol=0)
    assert layers.orientation_loss.max() < 0.02  # hardly any of what is seen faces away


def test_albedo_needs_no_light_and_textureless_no_colour(kind: torch.dtype) -> None:
    rays = rays_of(cameras(3), kind)
    for shade, channel in ((ShadingMode.ALBEDO, None), (ShadingMode.TEXTURELESS, slice(1, 4))):
        same = replace(rays, shades=torch.full_like(rays.shades, int(shade)))
        field, other = voxels(cloud(), kind), voxels(cloud(), kind)
        moved = same
        if channel is None:
            moved = replace(same, lights=-same.lights)
        else:
            other.values.data[..., channel] += 1
        torch.testing.assert_close(seen(field, same).rgb, seen(other, moved).rgb)


# --- the door ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"jitter": torch.zeros(3, 4, 5)}, r"jitter has shape \(3, 4, 5\); directions of shape"),
        (
            {"lights": torch.zeros(3, 3, dtype=torch.float64)},
            "lights is torch.float64 on cpu; a field of torch.float32",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change: dict[str, Tensor], message: str) -> None:
    rays = rays_of(cameras(), torch.float32)
    for name, tensor in change.items():
        object.__setattr__(rays, name, tensor)  # past the shapes that are checked while tests run
    with pytest.raises(ValueError, match=message):
        render_rays(voxels(cloud(), torch.float32), OccupancyGrid.full(4, "cpu"), rays, MARCH)


def test_cameras_that_are_not_finite_are_refused() -> None:
    looks = cameras()
    c2w = looks.c2w.clone()
    c2w[1, 0, 3] = math.nan
    with pytest.raises(ValueError, match="a pose or a field of view that is not finite"):
        Rays.from_cameras(replace(looks, c2w=c2w), torch.zeros(1))


@pytest.mark.parametrize("where", [math.nan, math.inf, 1e30, 1e5, -1e30])
def test_no_ray_leads_the_kernels_astray(kernels: str, where: float) -> None:
    rays = rays_of(cameras(), torch.float32)
    rays.origins[0] = where
    rays.directions[1, :5] = where
    rays.jitter[2] = where
    layers, _ = cpu_kernels.draw(cloud().float(), SCALE, OccupancyGrid.full(4, "cpu"), rays, MARCH)
    assert layers.shape == (3, 20, 20, 10)


def test_a_nan_voxel_spoils_no_ray_that_does_not_meet_it(kind: torch.dtype) -> None:
    values = cloud()
    values[10, 10, 10] = math.nan
    layers = seen(voxels(values, kind), rays_of(cameras(), kind))
    assert layers.rgb.isfinite().float().mean() > 0.5


def test_the_twin_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDS3D_KERNELS", "torch")
    layers = seen(voxels(cloud(), torch.float32), rays_of(cameras(), torch.float32))
    assert layers.rgb.dtype == torch.float32


@pytest.mark.parametrize(("change", "message"), [({"step": 0.0}, "step is 0.0"), ({"ambient": 1.1}, "ambient is 1.1")])
def test_a_march_out_of_range_is_named(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(MARCH, **change)
