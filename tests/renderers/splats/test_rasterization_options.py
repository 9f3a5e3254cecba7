"""Antialiased splats, their normals, and sizes of gradients: the kernels against the twin, the twin against laws."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from renderers import kernels as renderers_kernels
from renderers.cameras import DISTANCE, FOV, look_at_origin
from renderers.splats import reference
from renderers.splats.gaussians import CameraMatrices, Gaussians, RasterizationOptions, normals
from renderers.splats.rasterization import rasterize
from tests.support.renderers.splat_clouds import NAMES, SCENES, cameras, cast, cloud, drawn

ALL = RasterizationOptions(antialiased=True, return_normals=True, absgrad=True)


# --- the kernels against the twin ---


@pytest.mark.parametrize("name", ["opaque", "huge", "one", "needles", "around the camera", "colours per camera"])
def test_kernels_agree_with_the_float64_twin(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    splats, looks = SCENES[name](), cameras(2, 24)
    if name == "needles":  # the area of a splat much thinner than a pixel is lost to rounding in float32
        splats = replace(splats, scales=splats.scales.clamp_min(0.01))
    slow = drawn(splats, torch.float64, looks, ALL)
    assert slow.frame.normal is not None
    assert slow.frame.normal.abs().max() > 0.01
    for kernels in _kernels():
        monkeypatch.setenv("SDS3D_KERNELS", kernels)
        fast = drawn(splats, torch.float32, looks, ALL)
        assert fast.frame.normal is not None
        for ours, theirs in [(fast.frame.rgb, slow.frame.rgb), (fast.frame.normal, slow.frame.normal)]:
            assert (ours - theirs).abs().mean() < 1e-5
            assert (ours - theirs).abs().max() < 1 / 255
        assert set(slow.gradients) > {"means2d, absolute"}
        for part, gradient in slow.gradients.items():
            error = (fast.gradients[part].double() - gradient).norm() / gradient.norm().clamp_min(1e-6)
            assert error < 1e-3, f"{part}: relative error {error:.1e}"


def _kernels() -> list[str]:
    if renderers_kernels.library() is None:
        pytest.skip(renderers_kernels.why_missing())
    capability = torch.backends.cpu.get_cpu_capability()
    return ["baseline"] + ["avx2"] * capability.startswith("AVX") + ["avx512"] * (capability == "AVX512")


@pytest.mark.parametrize(
    "wish",
    [
        RasterizationOptions(return_normals=True),
        RasterizationOptions(absgrad=True),
        RasterizationOptions(return_normals=True, absgrad=True),
    ],
)
def test_a_wish_changes_nothing_else(kind: torch.dtype, wish: RasterizationOptions) -> None:
    """The picture is the same, bit by bit in the kernels; so are gradients that do not come from the wish."""
    splats, looks, black = cloud(150), cameras(2, 24), torch.zeros(2, 3, dtype=kind)
    found = []
    for each in (RasterizationOptions(), wish):
        leaves = cast(splats, kind)
        leaves.means.requires_grad_()
        frame = rasterize(leaves, looks, black, each)
        frame.rgb.square().sum().backward()
        assert (frame.normal is not None) == each.return_normals
        assert (frame.info.means2d_absgrad is not None) == each.absgrad
        found.append((frame.rgb.detach(), leaves.means.grad))
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=1e-5)


def test_options_are_deterministic_whatever_the_threads() -> None:
    if renderers_kernels.library() is None:
        pytest.skip(renderers_kernels.why_missing())
    splats, looks = cloud(6000, 0.05), cameras(3, 48)
    before = torch.get_num_threads()
    runs = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        runs.append(drawn(splats, torch.float32, looks, ALL))
    torch.set_num_threads(before)
    for other in runs[1:]:
        assert all(torch.equal(gradient, other.gradients[name]) for name, gradient in runs[0].gradients.items())


# --- laws ---


def test_a_round_splat_fades_by_the_area_that_the_blur_adds(kind: torch.dtype) -> None:
    """Of variance v, its opacity is multiplied by v / (v + 0.3): what it covers in all stays."""
    size, scale, opacity = 33, 0.01, 0.7
    splat = Gaussians(
        torch.zeros(1, 3),
        torch.tensor([[1.0, 0, 0, 0]]),
        torch.full((1, 3), scale),
        torch.tensor([opacity]),
        torch.ones(1, 3),
    )
    looks = look_at_origin(torch.zeros(1), torch.zeros(1), size)
    frame = rasterize(cast(splat, kind), looks, torch.zeros(1, 3, dtype=kind), RasterizationOptions(antialiased=True))
    variance = (0.5 * size / math.tan(FOV / 2) * scale / DISTANCE) ** 2
    assert frame.alpha.max().item() == pytest.approx(opacity * variance / (variance + 0.3), rel=1e-4)


def test_a_flat_splat_shows_its_shortest_axis_turned_to_the_camera(kind: torch.dtype) -> None:
    """A disc in the plane x = y, seen from both sides; its normal times alpha, whatever the sign of its axis."""
    turn = torch.tensor([[math.cos(math.pi / 8), 0.0, 0.0, math.sin(math.pi / 8)]])  # by 45 degrees around z
    disc = Gaussians(torch.zeros(1, 3), turn, torch.tensor([[0.01, 0.4, 0.4]]), torch.tensor([0.9]), torch.ones(1, 3))
    for azimuth, sign in ((1.2, 1.0), (1.2 + math.pi, -1.0)):
        looks = look_at_origin(torch.tensor([azimuth]), torch.zeros(1), 21)
        frame = rasterize(
            cast(disc, kind), looks, torch.zeros(1, 3, dtype=kind), RasterizationOptions(return_normals=True)
        )
        assert frame.normal is not None
        wanted = sign * torch.tensor([0.5**0.5, 0.5**0.5, 0.0], dtype=kind) * frame.alpha
        torch.testing.assert_close(frame.normal, wanted, atol=1e-5, rtol=0)


def test_normals_are_of_unit_length_and_face_every_camera() -> None:
    splats, looks = cloud(200), cameras(3)
    lenses = CameraMatrices.from_cameras(looks, splats.means)
    found = normals(splats, lenses)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(3, 200, dtype=torch.float64))
    toward = looks.positions[:, None].double() - splats.means
    assert ((found * toward).sum(-1) >= -1e-9).all()


def test_sizes_of_gradients_are_no_smaller_than_gradients(kind: torch.dtype) -> None:
    found = drawn(cloud(150), kind, cameras(2, 24), RasterizationOptions(absgrad=True)).gradients
    assert (found["means2d, absolute"] >= found["means2d"].abs() - 1e-5).all()
    assert found["means2d, absolute"].sum() > 1.2 * found["means2d"].abs().sum()


def test_sizes_of_gradients_are_sums_over_pixels_drawn_alone(kind: torch.dtype) -> None:
    """The gradient of each pixel by itself, its size, and the sum."""
    size, splats = 7, cloud(4, 0.3, (0.4, 0.8), seed=2)
    looks = cameras(1, size)
    total = torch.zeros(1, 4, 2, dtype=kind)
    for pixel in range(size * size):
        leaves = cast(splats, kind)
        leaves.means.requires_grad_()
        frame = rasterize(leaves, looks, torch.zeros(1, 3, dtype=kind))
        frame.rgb.flatten(0, 2)[pixel].sum().backward()
        total += frame.info.means2d_grad.abs()
    leaves = cast(splats, kind)
    leaves.means.requires_grad_()
    frame = rasterize(leaves, looks, torch.zeros(1, 3, dtype=kind), RasterizationOptions(absgrad=True))
    frame.rgb.sum().backward()
    torch.testing.assert_close(frame.info.means2d_absgrad, total, atol=1e-4, rtol=1e-4)


def test_gradients_of_the_twin_are_those_of_finite_differences() -> None:
    splats = cloud(5, 0.25, (0.3, 0.8), seed=4)
    looks = CameraMatrices.from_cameras(cameras(2, 8), splats.means)

    def layers(*leaves: Tensor) -> Tensor:
        colour, alpha, _ = reference.draw(Gaussians(*leaves), looks, ALL)
        return torch.cat([colour, alpha], -1)

    leaves = [getattr(splats, name).clone().requires_grad_() for name in NAMES]
    assert torch.autograd.gradcheck(layers, leaves, eps=1e-7, atol=1e-4, rtol=1e-3)


def test_a_picture_too_wide_is_refused() -> None:
    looks = replace(cameras(1), width=40_000)
    with pytest.raises(ValueError, match="48 x 40000 pixels cannot be drawn; either side has 1 to 32768"):
        rasterize(cast(cloud(2), torch.float32), looks, torch.zeros(1, 3))
