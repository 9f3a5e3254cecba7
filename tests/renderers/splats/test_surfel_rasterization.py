"""Surfels to pictures: the torch twin against closed forms and finite differences, the kernels against the twin."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from renderers.cameras import DISTANCE, look_at_origin
from renderers.splats import reference, surfel_reference
from renderers.splats.gaussians import CameraMatrices, Gaussians, RasterizationOptions
from renderers.splats.rasterization import rasterize
from tests.support.renderers.splat_clouds import NAMES, SCENES, cameras, cast, cloud, drawn

SURFELS = RasterizationOptions(surfels=True)
ALL = RasterizationOptions(surfels=True, return_normals=True, distortion=True)


def edge_on() -> Gaussians:
    """Discs whose planes run through the eye of the first camera, or nearly, as thin as rounding allows."""
    splats = cloud(60, 0.1)
    rays = splats.means - cameras().positions[0].double()
    across = torch.linalg.cross(rays, splats.means + 1.0)
    nearly = 1e-5 * torch.randn(60, 1, generator=torch.Generator().manual_seed(0)).double()
    normal = across / across.norm(dim=-1, keepdim=True) + nearly * rays
    half = normal / normal.norm(dim=-1, keepdim=True) + torch.tensor([0.0, 0.0, 1.0])
    return replace(splats, quats=torch.nn.functional.pad(half, (1, 0)))  # half a turn around it takes z to the normal


def thousands_on_one_pixel() -> Gaussians:
    splats = cloud(1500, 0.004, (0.02, 0.3))
    return replace(splats, means=0.003 * splats.means)


def two_sizes() -> Gaussians:
    splats = cloud(200)
    return replace(splats, scales=splats.scales * torch.logspace(-6, 1, 200, dtype=torch.float64)[:, None])


SURFEL_SCENES: dict[str, Callable[[], Gaussians]] = SCENES | {
    "edge on": edge_on,
    "thousands on one pixel": thousands_on_one_pixel,
    "all sizes": two_sizes,
}


# --- the kernels against the twin ---


@pytest.mark.parametrize("name", SURFEL_SCENES)
def test_kernels_agree_with_the_float64_twin(kernels: str, name: str) -> None:
    splats, looks = SURFEL_SCENES[name](), cameras(2, 32)
    fast, slow = drawn(splats, torch.float32, looks, ALL), drawn(splats, torch.float64, looks, ALL)
    assert slow.frame.alpha.max() > 0.01
    pictures = [(getattr(fast.frame, part), getattr(slow.frame, part), 1.0) for part in ("rgb", "alpha", "normal")]
    pictures.append((fast.frame.info.distortion, slow.frame.info.distortion, 6.0))  # of depths up to 3 apart
    for mine, wanted, most in pictures:
        assert (mine - wanted).abs().mean() < 1e-5
        assert (mine - wanted).abs().max() < most / 255  # where rounding decides whether a pixel takes one more
    radii, wanted = fast.frame.info.radii, slow.frame.info.radii
    assert torch.equal(radii > 0, wanted > 0)
    torch.testing.assert_close(radii, wanted, atol=1, rtol=1e-4)  # what is rounded up next to a whole number
    for part, gradient in slow.gradients.items():
        error = (fast.gradients[part].double() - gradient).norm() / gradient.norm().clamp_min(1e-6)
        assert error < 2e-3, f"{part}: relative error {error:.1e}"


def test_kernels_agree_with_the_twin_in_a_picture_that_is_no_multiple_of_a_tile(kernels: str) -> None:
    looks = replace(cameras(1), height=37, width=21)
    fast, slow = (drawn(cloud(200), kind, looks, SURFELS) for kind in (torch.float32, torch.float64))
    assert fast.frame.rgb.shape == (1, 37, 21, 3)
    torch.testing.assert_close(fast.frame.rgb.double(), slow.frame.rgb, atol=1e-5, rtol=0)
    torch.testing.assert_close(fast.gradients["means"].double(), slow.gradients["means"], atol=2e-3, rtol=1e-3)


def test_kernels_are_deterministic_whatever_the_threads(kernels: str) -> None:
    splats, looks = cloud(6000, 0.05), cameras(3, 48)
    before = torch.get_num_threads()
    runs = []
    for threads in (1, 1, 2, 3):
        torch.set_num_threads(threads)
        runs.append(drawn(splats, torch.float32, looks, ALL))
    torch.set_num_threads(before)
    for other in runs[1:]:
        assert torch.equal(runs[0].frame.rgb, other.frame.rgb)
        assert all(torch.equal(gradient, other.gradients[name]) for name, gradient in runs[0].gradients.items())


# --- laws of both ---


def disc(quat: list[float], scale: float, opacity: float = 0.7) -> Gaussians:
    red = torch.tensor([[1.0, 0.0, 0.0]])
    scales = torch.tensor([[scale, 0.6 * scale, 99.0]])
    return Gaussians(torch.zeros(1, 3), torch.tensor([quat]), scales, torch.tensor([opacity]), red)


def faintest_out(alpha: Tensor) -> Tensor:
    return torch.where(alpha >= 1 / 255, alpha, 0.0)


@pytest.mark.parametrize("quat", [[1.0, 0, 0, 0], [0.9, 0.3, -0.2, 0.1], [0.6, 0.5, 0.1, -0.7]])
def test_a_disc_shows_where_rays_meet_its_plane(kind: torch.dtype, quat: list[float]) -> None:
    """Rays and plane in space, by their equations; the wide disc hides its blur except near its middle."""
    size, splat = 33, disc(quat, 0.5)
    looks = look_at_origin(torch.tensor([0.4]), torch.tensor([-0.3]), size)
    frame = rasterize(cast(splat, kind), looks, torch.zeros(1, 3, dtype=kind), SURFELS)
    eye, rays = looks.positions[0].double(), looks.unproject(torch.ones(1, size, size, 1)).double()[0] - looks.positions
    axes = reference.rotations(splat.quats.double())[0]
    met = eye - rays * ((eye @ axes[:, 2]) / (rays @ axes[:, 2]))[..., None]
    u, v = (met @ axes[:, k] / splat.scales[0, k].double() for k in (0, 1))
    place = torch.arange(size).double() + 0.5 - size / 2
    blur = place[:, None] ** 2 + place**2  # the blur lies at most a pixel off the middle, where both are near 0
    alpha = faintest_out(0.7 * torch.exp(-torch.minimum(0.5 * (u * u + v * v), 4 * blur + 4)))
    torch.testing.assert_close(frame.alpha[0, ..., 0].double(), alpha, atol=2e-6, rtol=0)
    torch.testing.assert_close(frame.rgb[0, ..., 0], frame.alpha[0, ..., 0], atol=1e-6, rtol=0)
    depth = torch.where(alpha > 0, DISTANCE, 0.0).to(kind)
    torch.testing.assert_close(frame.depth[0, ..., 0], depth, atol=5e-5, rtol=0)


@pytest.mark.parametrize(("quat", "scale"), [([0.9, 0.3, -0.2, 0.1], 1e-5), ([1.0, 0.0, 1.0, 0.0], 0.02)])
def test_of_what_is_small_or_seen_from_its_edge_the_blur_is_left(
    kind: torch.dtype, quat: list[float], scale: float
) -> None:
    """A round Gaussian of variance 1/2 pixel^2, whatever the disc."""
    size = 12
    looks = look_at_origin(torch.zeros(1), torch.zeros(1), size)
    frame = rasterize(cast(disc(quat, scale), kind), looks, torch.zeros(1, 3, dtype=kind), SURFELS)
    place = torch.arange(size).double() + 0.5 - size / 2
    alpha = faintest_out(0.7 * torch.exp(-(place[:, None] ** 2 + place**2)))
    torch.testing.assert_close(frame.alpha[0, ..., 0].double(), alpha, atol=1e-5, rtol=0)


def test_the_third_scale_means_nothing(kind: torch.dtype) -> None:
    splats = cloud(100)
    other = replace(splats, scales=splats.scales * torch.tensor([1.0, 1.0, 30.0]))
    runs = [drawn(each, kind, cameras(), ALL) for each in (splats, other)]
    assert torch.equal(runs[0].frame.rgb, runs[1].frame.rgb)
    assert not runs[0].gradients["scales"][:, 2].any()


def test_two_discs_are_as_far_apart_as_their_depths(kind: torch.dtype) -> None:
    """Distortion 2 w w' |z - z'|, the nearer covering the farther; it does not matter which row comes first."""
    means = torch.tensor([[0.0, 0.0, -0.5], [0.0, 0.0, 0.5]])
    pair = Gaussians(
        means, torch.tensor([[1.0, 0, 0, 0]] * 2), torch.full((2, 3), 0.5), torch.tensor([0.8, 0.6]), torch.eye(3)[:2]
    )
    flipped = Gaussians(*(getattr(pair, name).flip(0) for name in NAMES))
    looks = look_at_origin(torch.zeros(1), torch.zeros(1), 33)
    for splats in (pair, flipped):
        frame = rasterize(cast(splats, kind), looks, torch.zeros(1, 3, dtype=kind), ALL)
        middle = frame.rgb[0, 16, 16]
        torch.testing.assert_close(middle, torch.tensor([0.4 * 0.8, 0.6, 0.0], dtype=kind), atol=1e-5, rtol=0)
        distortion = frame.info.distortion[0, 16, 16].item()
        assert distortion == pytest.approx(2 * 0.6 * 0.4 * 0.8, rel=1e-4)


def test_the_normal_is_the_third_axis_turned_to_the_camera(kind: torch.dtype) -> None:
    quat = [math.cos(0.4), 0.0, math.sin(0.4), 0.0]  # by 0.8 around y
    for azimuth, sign in ((0.5, 1.0), (0.5 + math.pi, -1.0)):
        looks = look_at_origin(torch.tensor([azimuth]), torch.zeros(1), 15)
        frame = rasterize(cast(disc(quat, 0.3), kind), looks, torch.zeros(1, 3, dtype=kind), ALL)
        assert frame.normal is not None
        wanted = sign * torch.tensor([math.sin(0.8), 0.0, math.cos(0.8)], dtype=kind) * frame.alpha
        torch.testing.assert_close(frame.normal, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("wish", [replace(ALL, distortion=False), replace(ALL, return_normals=False)])
def test_a_wish_changes_nothing_else(kind: torch.dtype, wish: RasterizationOptions) -> None:
    found = []
    for each in (SURFELS, wish):
        leaves = cast(cloud(150), kind)
        leaves.means.requires_grad_()
        frame = rasterize(leaves, cameras(2, 24), torch.zeros(2, 3, dtype=kind), each)
        frame.rgb.square().sum().backward()
        assert (frame.normal is not None) == each.return_normals
        assert (frame.info.distortion is not None) == each.distortion
        found.append((frame.rgb.detach(), leaves.means.grad))
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=1e-5)


def turned(splats: Gaussians, angle: float) -> Gaussians:
    """By an angle around +Y."""
    turn = torch.tensor([math.cos(angle / 2), 0.0, math.sin(angle / 2), 0.0], dtype=torch.float64)
    w, x, y, z = splats.quats.unbind(-1)
    a, b = turn[0], turn[2]
    quats = torch.stack([a * w - b * y, a * x + b * z, a * y + b * w, a * z - b * x], -1)
    return replace(splats, means=splats.means @ reference.rotations(turn[None])[0].T, quats=-3 * quats)


def test_turning_the_scene_is_turning_the_camera_back(kind: torch.dtype) -> None:
    """Length and sign of the quaternions changed on the way mean nothing."""
    black = torch.zeros(1, 3, dtype=kind)

    def seen(splats: Gaussians, azimuth: float) -> Tensor:
        looks = look_at_origin(torch.tensor([azimuth]), torch.tensor([0.1]), 48)
        return rasterize(cast(splats, kind), looks, black, SURFELS).rgb

    torch.testing.assert_close(seen(cloud(200), 0.2), seen(turned(cloud(200), 0.7), 0.9), atol=1e-4, rtol=0)


def nobody() -> Gaussians:
    return Gaussians(*(getattr(cloud(1), name)[:0] for name in NAMES))


def test_nothing_behind_the_camera_is_drawn(kind: torch.dtype) -> None:
    """A floor that runs on below the camera and behind it shows below the horizon only, though its plane is endless."""
    floor = disc([math.cos(math.pi / 4), math.sin(math.pi / 4), 0.0, 0.0], 2.9)  # normal along y
    floor.means[0, 1] = -0.5
    looks = look_at_origin(torch.zeros(1), torch.zeros(1), 33)
    alpha = rasterize(cast(floor, kind), looks, torch.zeros(1, 3, dtype=kind), SURFELS).alpha[0, ..., 0]
    assert (alpha[20:] > 0).any(-1).all()
    assert not alpha[:16].any()


def test_a_nan_surfel_spoils_no_other_gradient(kind: torch.dtype) -> None:
    for name in ("means", "quats", "scales", "opacities"):
        splats = cloud(60)
        getattr(splats, name)[7] = math.nan
        result = drawn(splats, kind, cameras(), ALL)
        assert result.frame.rgb.isfinite().all()
        assert not result.frame.info.radii[:, 7].any()
        others = torch.arange(60) != 7
        assert all(result.gradients[each][others].isfinite().all() for each in NAMES)


# --- the twin against mathematics ---


def test_gradients_of_the_twin_are_those_of_finite_differences() -> None:
    splats = cloud(5, 0.25, (0.3, 0.8), seed=4)
    looks = CameraMatrices.from_cameras(cameras(2, 8), splats.means)

    def layers(*leaves: Tensor) -> Tensor:
        colour, alpha, sighting = surfel_reference.draw(Gaussians(*leaves), looks, ALL)
        assert sighting.distortion is not None
        return torch.cat([colour, alpha, sighting.distortion], -1)

    leaves = [getattr(splats, name).clone().requires_grad_() for name in NAMES]
    assert torch.autograd.gradcheck(layers, leaves, eps=1e-7, atol=1e-4, rtol=1e-3, fast_mode=True)


def test_the_gradient_of_places_in_the_picture_moves_the_picture() -> None:
    """Moving the principal point by d pixels moves every surfel by d: the gradients sum to that of the shift."""
    splats, looks = cloud(30), CameraMatrices.from_cameras(cameras(1, 24), torch.zeros(1, dtype=torch.float64))
    weight = torch.randn(1, 24, 24, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    leaves = cast(splats, torch.float64)
    leaves.means.requires_grad_()
    colour, _, sighting = surfel_reference.draw(leaves, looks, SURFELS)
    (colour * weight).sum().backward()
    step, moved = 1e-5, []
    for sign in (-1, 1):
        intrinsics = looks.Ks.clone()
        intrinsics[:, 0, 2] += sign * step
        moved.append((surfel_reference.draw(splats, replace(looks, Ks=intrinsics), SURFELS)[0] * weight).sum())
    slope = (moved[1] - moved[0]) / (2 * step)
    assert sighting.means2d_grad[0, :, 0].sum().item() == pytest.approx(slope.item(), rel=1e-3)


@pytest.mark.parametrize(
    "wish", [{"surfels": True, "antialiased": True}, {"surfels": True, "absgrad": True}, {"distortion": True}]
)
def test_wishes_that_do_not_go_together_are_refused(wish: dict[str, bool]) -> None:
    with pytest.raises(ValueError, match="surfels"):
        RasterizationOptions(**wish)
