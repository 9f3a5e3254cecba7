"""Splats to pictures: the torch twin against closed forms, the kernels against the twin."""

from __future__ import annotations

import ast
import importlib.util
import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from renderers import kernels as renderers_kernels
from renderers.cameras import DISTANCE, FOV, look_at_origin
from renderers.splats import gsplat_backend, reference
from renderers.splats.gaussians import CameraMatrices, Gaussians, RasterizationOptions
from renderers.splats.rasterization import rasterize
from tests.support.renderers.splat_clouds import NAMES, SCENES, cameras, cast, cloud, drawn

# --- the kernels against the twin ---


@pytest.mark.parametrize("name", SCENES)
def test_kernels_agree_with_the_float64_twin(kernels: str, name: str) -> None:
    splats, looks = SCENES[name](), cameras()
    fast, slow = drawn(splats, torch.float32, looks), drawn(splats, torch.float64, looks)
    assert slow.frame.alpha.max() > 0.01
    for part in ("rgb", "alpha"):
        error = (getattr(fast.frame, part) - getattr(slow.frame, part)).abs()
        assert error.mean() < 2e-6
        assert error.max() < 1 / 255  # where rounding decides whether a pixel takes one splat more
    torch.testing.assert_close(fast.frame.depth.double(), slow.frame.depth, atol=1e-3, rtol=1e-4)
    assert torch.equal(fast.frame.info.radii, slow.frame.info.radii)
    for part, gradient in slow.gradients.items():
        error = (fast.gradients[part].double() - gradient).norm() / gradient.norm().clamp_min(1e-6)
        assert error < 5e-4, f"{part}: relative error {error:.1e}"


def test_kernels_agree_with_the_twin_in_a_picture_that_is_no_multiple_of_a_tile(kernels: str) -> None:
    looks = replace(cameras(1), height=37, width=21)
    fast, slow = drawn(cloud(200), torch.float32, looks), drawn(cloud(200), torch.float64, looks)
    assert fast.frame.rgb.shape == (1, 37, 21, 3)
    torch.testing.assert_close(fast.frame.rgb.double(), slow.frame.rgb, atol=1e-5, rtol=0)
    torch.testing.assert_close(fast.gradients["means"].double(), slow.gradients["means"], atol=1e-3, rtol=1e-4)


def test_kernels_are_deterministic_whatever_the_threads(kernels: str) -> None:
    splats, looks = cloud(6000, 0.05), cameras(3, 64)
    before = torch.get_num_threads()
    runs = []
    for threads in (1, 1, 2, 3):
        torch.set_num_threads(threads)
        runs.append(drawn(splats, torch.float32, looks))
    torch.set_num_threads(before)
    for other in runs[1:]:
        assert torch.equal(runs[0].frame.rgb, other.frame.rgb)
        assert all(torch.equal(gradient, other.gradients[name]) for name, gradient in runs[0].gradients.items())


# --- laws of both ---


def test_one_round_splat_has_the_closed_form(kind: torch.dtype) -> None:
    size, scale, opacity = 33, 0.08, 0.7
    red = torch.tensor([[1.0, 0.0, 0.0]])
    splat = Gaussians(
        torch.zeros(1, 3), torch.tensor([[2.0, 0, 0, 0]]), torch.full((1, 3), scale), torch.tensor([opacity]), red
    )
    looks = look_at_origin(torch.tensor([0.4]), torch.tensor([-0.3]), size)
    frame = rasterize(cast(splat, kind), looks, torch.zeros(1, 3, dtype=kind))
    focal = 0.5 * size / math.tan(FOV / 2)
    variance = (focal * scale / DISTANCE) ** 2 + 0.3
    place = torch.arange(size, dtype=kind) + 0.5 - size / 2
    alpha = opacity * torch.exp(-(place[:, None] ** 2 + place**2) / (2 * variance))
    alpha = torch.where(alpha >= 1 / 255, alpha, 0.0)
    torch.testing.assert_close(frame.alpha[0, ..., 0], alpha, atol=2e-6, rtol=0)
    torch.testing.assert_close(frame.rgb[0, ..., 0], alpha, atol=2e-6, rtol=0)
    depth = torch.where(alpha > 0, DISTANCE, 0.0).to(kind)
    torch.testing.assert_close(frame.depth[0, ..., 0], depth, atol=5e-5, rtol=0)


def test_the_nearer_splat_covers_the_farther(kind: torch.dtype) -> None:
    """Front to back with opacity a, b: a in front, (1 - a) b behind; the order of the rows does not matter."""
    means = torch.tensor([[0.0, 0.0, -0.5], [0.0, 0.0, 0.5]])
    pair = Gaussians(
        means, torch.tensor([[1.0, 0, 0, 0]] * 2), torch.full((2, 3), 0.5), torch.tensor([0.8, 0.6]), torch.eye(3)[:2]
    )
    flipped = Gaussians(*(getattr(pair, name).flip(0) for name in NAMES))
    looks = look_at_origin(torch.zeros(1), torch.zeros(1), 33)
    for splats in (pair, flipped):
        middle = rasterize(cast(splats, kind), looks, torch.zeros(1, 3, dtype=kind)).rgb[0, 16, 16]
        torch.testing.assert_close(middle, torch.tensor([0.4 * 0.8, 0.6, 0.0], dtype=kind), atol=1e-5, rtol=0)


def test_a_background_shows_through_by_one_minus_alpha(kind: torch.dtype) -> None:
    splats, looks, background = cast(cloud(100), kind), cameras(), torch.rand(2, 3, dtype=kind)
    over, bare = rasterize(splats, looks, background), rasterize(splats, looks, torch.zeros_like(background))
    torch.testing.assert_close(over.rgb - bare.rgb, (1 - bare.alpha) * background[:, None, None], atol=1e-6, rtol=0)


def test_a_batch_is_its_views_one_by_one(kind: torch.dtype) -> None:
    splats, looks = cloud(200), cameras(3)
    together = drawn(splats, kind, looks)
    for view in range(3):
        alone = rasterize(cast(splats, kind), looks[view : view + 1], torch.full((1, 3), 0.3, dtype=kind))
        torch.testing.assert_close(together.frame.rgb[view], alone.rgb[0], atol=1e-6, rtol=0)
        assert torch.equal(together.frame.info.radii[view], alone.info.radii[0])


def test_length_and_sign_of_a_quaternion_mean_nothing(kind: torch.dtype) -> None:
    splats, looks, black = cloud(100), cameras(), torch.zeros(2, 3, dtype=kind)
    scaled = replace(splats, quats=-7.0 * splats.quats)
    a, b = (rasterize(cast(each, kind), looks, black).rgb for each in (splats, scaled))
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_turning_the_scene_is_turning_the_camera_back(kind: torch.dtype) -> None:
    """A turn by an angle around +Y, on means and on quaternions, and a camera that goes along."""
    splats, angle = cloud(200), 0.7
    turn = torch.tensor([math.cos(angle / 2), 0.0, math.sin(angle / 2), 0.0], dtype=torch.float64)
    matrix = reference.rotations(turn[None])[0]
    w, x, y, z = splats.quats.unbind(-1)
    a, b = turn[0], turn[2]
    turned = replace(
        splats,
        means=splats.means @ matrix.T,
        quats=torch.stack([a * w - b * y, a * x + b * z, a * y + b * w, a * z - b * x], -1),
    )
    black = torch.zeros(1, 3, dtype=kind)
    before = rasterize(cast(splats, kind), look_at_origin(torch.tensor([0.2]), torch.tensor([0.1]), 48), black)
    after = rasterize(cast(turned, kind), look_at_origin(torch.tensor([0.2 + angle]), torch.tensor([0.1]), 48), black)
    torch.testing.assert_close(before.rgb, after.rgb, atol=2e-5, rtol=0)


def nobody() -> Gaussians:
    return Gaussians(*(getattr(cloud(1), name)[:0] for name in NAMES))


@pytest.mark.parametrize(
    ("scene", "surfels"),
    [*product(("behind", "faint", "beside", "nobody"), (False, True)), ("around", True)],
)
def test_what_cannot_be_seen_leaves_the_background_and_gets_no_gradient(
    kind: torch.dtype, scene: str, surfels: bool
) -> None:
    looks = cameras(1)
    eye = looks.positions.double()
    splats = {
        "behind": lambda: replace(cloud(50), means=1.5 * eye + 0.1 * cloud(50).means),
        "faint": lambda: cloud(50, opacity=(0.0, 0.0039)),
        "beside": lambda: replace(cloud(50, 0.01), means=cloud(50).means + 40 * looks.c2w[:, :3, 0].double()),
        "around": lambda: replace(cloud(50), scales=1e4 * cloud(50).scales),  # within a deviation of the camera's plane
        "nobody": nobody,
    }[scene]()
    result = drawn(
        splats, kind, looks, RasterizationOptions(surfels=surfels, return_normals=surfels, distortion=surfels)
    )
    assert torch.equal(result.frame.rgb, torch.full_like(result.frame.rgb, 0.3))
    assert not result.frame.alpha.any()
    assert not result.frame.info.radii.any()
    assert all(not result.gradients[name].any() for name in [*NAMES, "means2d"])


def test_a_nan_splat_is_left_out_or_shows_but_spoils_no_other_gradient(kind: torch.dtype) -> None:
    splats = cloud(60)
    splats.means[7] = math.nan
    result = drawn(splats, kind, cameras())
    assert result.frame.rgb.isfinite().all()
    others = torch.arange(60) != 7
    assert all(result.gradients[name][others].isfinite().all() for name in NAMES)


# --- the twin against mathematics ---


def test_gradients_of_the_twin_are_those_of_finite_differences() -> None:
    splats = cloud(6, 0.25, (0.3, 0.8), seed=4)
    looks = CameraMatrices.from_cameras(cameras(2, 9), splats.means)

    def layers(*leaves: Tensor) -> Tensor:
        colour, alpha, _ = reference.draw(Gaussians(*leaves), looks)
        return torch.cat([colour, alpha], -1)

    leaves = [getattr(splats, name).clone().requires_grad_() for name in NAMES]
    assert torch.autograd.gradcheck(layers, leaves, eps=1e-7, atol=1e-4, rtol=1e-3)


def test_the_gradient_of_places_in_the_picture_moves_the_picture() -> None:
    """Moving the principal point by d pixels moves every splat by d: the gradients have to sum to that of the shift."""
    splats, looks = cloud(30), CameraMatrices.from_cameras(cameras(1, 24), torch.zeros(1, dtype=torch.float64))
    weight = torch.randn(1, 24, 24, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    leaves = cast(splats, torch.float64)
    leaves.means.requires_grad_()
    colour, _, sighting = reference.draw(leaves, looks)
    (colour * weight).sum().backward()
    step = 1e-5
    moved = []
    for sign in (-1, 1):
        intrinsics = looks.Ks.clone()
        intrinsics[:, 0, 2] += sign * step
        moved.append((reference.draw(splats, replace(looks, Ks=intrinsics))[0] * weight).sum())
    slope = (moved[1] - moved[0]) / (2 * step)
    assert sighting.means2d_grad[0, :, 0].sum().item() == pytest.approx(slope.item(), rel=1e-3)


# --- the door ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colors": torch.zeros(3, 5, 3)}, r"colors has shape \(3, 5, 3\); 5 splats and 2 cameras need \(5, 3\) or"),
        (
            {"scales": torch.zeros(5, 3, dtype=torch.float64)},
            "scales is torch.float64 on cpu, but means are torch.float32",
        ),
        ({"means": torch.zeros(5, 3, dtype=torch.float16)}, "means are torch.float16"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change: dict[str, Tensor], message: str) -> None:
    splats = replace(cast(cloud(5), torch.float32), **change)
    with pytest.raises(ValueError, match=message):
        rasterize(splats, cameras(2), torch.zeros(2, 3))


def test_unknown_kernels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDS3D_KERNELS", "sse9")
    with pytest.raises(ValueError, match="avx2, baseline, torch"):
        renderers_kernels.library()


def test_the_twin_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDS3D_KERNELS", "torch")
    assert renderers_kernels.library() is None
    assert "SDS3D_KERNELS" in renderers_kernels.why_missing()
    frame = rasterize(cast(cloud(20), torch.float32), cameras(1, 16), torch.zeros(1, 3))
    assert frame.rgb.dtype == torch.float32


def test_gsplat_takes_the_arguments_we_give_it() -> None:
    """Read from the source of the installed gsplat: importing it may start a compiler."""
    spec = importlib.util.find_spec("gsplat")
    if spec is None or spec.origin is None:
        pytest.skip("gsplat is not installed")
    tree = ast.parse((Path(spec.origin).parent / "rendering.py").read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "rasterization"]
    known = functions[0].args
    names = {argument.arg for argument in [*known.args, *known.kwonlyargs]}
    required = {argument.arg for argument in known.args[: len(known.args) - len(known.defaults)]}
    given = set(gsplat_backend.arguments(cloud(2), CameraMatrices.from_cameras(cameras(), torch.zeros(1))))
    assert required <= given <= names
