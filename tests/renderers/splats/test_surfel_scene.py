"""The scene of surfels: it learns, grows in every way, and becomes a mesh and a file."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import Adam

from renderers import kernels
from renderers.cameras import Cameras, look_at_origin
from renderers.meshes.mesh import agreement
from renderers.meshing.extraction import MeshExtractionConfig, extract_mesh
from renderers.meshing.interior import fill_interior
from renderers.scene import RenderOutput
from renderers.splats.config import SplatConfig
from renderers.splats.density_grid import density
from renderers.splats.gaussians import Gaussians
from renderers.splats.normal_consistency import depth_normals, normal_consistency
from renderers.splats.rasterization import rasterize
from renderers.splats.reference import rotations
from renderers.splats.scene import SplatScene
from renderers.splats.surfel_thickness import THICKNESS, inflate_surfels
from sds3d.formats.splat_ply import read_splats, write_splats
from tests.renderers.splats.test_scene import looks, psnr, train

SMALL = SplatConfig(init_count=400, cap_max=900, primitive="surfels", lambda_normal=0.0, lambda_distortion=0.0)


@pytest.fixture(autouse=True)
def _kernels() -> None:
    if kernels.library() is None:
        pytest.skip(kernels.why_missing())


def built(knobs: SplatConfig = SMALL) -> tuple[SplatScene, Adam]:
    scene = knobs.build("cpu", torch.Generator().manual_seed(1))
    return scene, Adam(scene.param_groups(0.0), fused=True)


def thin(scene: SplatScene) -> bool:
    return bool((scene.log_scales[:, 2] == math.log(scene.knobs.min_scale)).all())


def shell() -> SplatScene:
    """A ball of opaque surfels that lie in its surface, red above and green below."""
    scene, _ = built(replace(SMALL, init_count=800))
    with torch.no_grad():
        height = 1 - (2 * torch.arange(800) + 1) / 800  # a Fibonacci lattice leaves no holes
        angle = torch.arange(800) * math.pi * (3 - math.sqrt(5))
        level = (1 - height.square()).sqrt()
        outward = torch.stack([level * angle.cos(), height, level * angle.sin()], -1)
        scene.means.copy_(0.6 * outward)
        half = functional.normalize(outward + torch.tensor([0.0, 0.0, 1.0]), dim=-1)  # half a turn: z to outward
        scene.quats.copy_(functional.pad(half, (1, 0)))
        scene.log_scales[:, :2] = math.log(0.06)
        scene.logit_opacities.fill_(2.0)
        red = (outward[:, 1] > 0).float()
        scene.sh[:, 0] = torch.stack([red, 1 - red, 0 * red], -1) * 2 - 1
    return scene


# --- training ---


def test_it_learns_a_shape_from_its_pictures() -> None:
    scene, adam = built()
    before = psnr(scene)
    train(scene, adam, range(120), 120)
    assert before < 20
    assert psnr(scene) > 26
    assert scene.failure_reason() is None
    assert thin(scene)


@pytest.mark.parametrize("growth", ["share", "threshold", "mcmc"])
def test_every_way_grows_to_the_cap_and_never_beyond(growth: Literal["share", "threshold", "mcmc"]) -> None:
    scene, adam = built(replace(SMALL, strategy=growth, grow_grad2d=1e-6))
    train(scene, adam, range(40), 40)
    assert 850 < len(scene) <= 900
    assert thin(scene)
    assert scene.failure_reason() is None


def test_no_picture_moves_the_third_axis() -> None:
    scene, _ = built()
    scene.render(looks(torch.Generator().manual_seed(0)), torch.zeros(4, 3)).rgb.square().sum().backward()
    assert scene.log_scales.grad is not None
    assert scene.log_scales.grad[:, :2].any()
    assert not scene.log_scales.grad[:, 2].any()


# --- penalties ---


def tilted_plane(tilt: float) -> tuple[RenderOutput, Cameras, Tensor]:
    """What cameras see of a plane through the origin: its depths, and normals that are off by an angle around y."""
    cameras = look_at_origin(torch.tensor([0.2, -0.5]), torch.tensor([0.3, 0.1]), 24)
    normal = functional.normalize(torch.tensor([0.2, 0.5, 1.0]), dim=0)
    rays = cameras.unproject(torch.ones(2, 24, 24, 1)) - cameras.positions[:, None, None]
    depth = -((cameras.positions @ normal)[:, None, None] / (rays @ normal))[..., None]
    off = rotations(torch.tensor([[math.cos(tilt / 2), 0.0, math.sin(tilt / 2), 0.0]]))[0] @ normal
    alpha = torch.full_like(depth, 0.8)
    return RenderOutput(torch.zeros(2, 24, 24, 3), alpha, depth, normal=alpha * off), cameras, normal


def test_normals_of_depths_are_those_of_the_surface() -> None:
    frame, cameras, normal = tilted_plane(0.0)
    torch.testing.assert_close(depth_normals(frame.depth, cameras), normal.expand(2, 22, 22, 3), atol=1e-4, rtol=0)


@pytest.mark.parametrize("tilt", [0.0, 0.4])
def test_unevenness_is_alpha_times_one_minus_the_cosine(tilt: float) -> None:
    frame, cameras, normal = tilted_plane(tilt)
    assert frame.normal is not None
    cosine = float(frame.normal[0, 0, 0] @ normal) / 0.8
    found = normal_consistency(frame, cameras)
    inner = torch.full((2, 22, 22, 1), 0.8 * (1 - cosine))
    torch.testing.assert_close(found[:, 1:-1, 1:-1], inner, atol=1e-4, rtol=0)
    assert not found[:, [0, -1]].any()
    assert not found[:, :, [0, -1]].any()


def test_pixels_beside_faint_ones_are_not_uneven() -> None:
    frame, cameras, _ = tilted_plane(0.4)
    alpha = frame.alpha.clone()
    alpha[:, 10, 10] = 0.4
    found = normal_consistency(replace(frame, alpha=alpha), cameras)
    assert not found[:, [9, 11], [10, 10]].any()
    assert not found[:, [10, 10], [9, 11]].any()
    assert (found[:, 12, 12] > 0.01).all()


@pytest.mark.parametrize(("unevenness", "distortion"), [(1.0, 0.0), (0.0, 1.0)])
def test_penalties_make_less_of_what_they_weigh(unevenness: float, distortion: float) -> None:
    """From turned surfels in a shell that is a little thick, by the penalty alone."""
    scene = shell()
    with torch.no_grad():
        chance = torch.Generator().manual_seed(3)
        scene.quats.add_(0.15 * torch.randn(800, 4, generator=chance))
        scene.means.mul_(1 + 0.05 * torch.randn(800, 1, generator=chance))
    scene.knobs = replace(scene.knobs, lambda_anisotropy=0.0, lambda_normal=unevenness, lambda_distortion=distortion)
    adam, cameras = Adam(scene.parameters(), lr=2e-3), looks(torch.Generator().manual_seed(4))
    values = []
    for _ in range(15):
        loss = scene.regularization_loss(scene.render(cameras, torch.zeros(4, 3)))
        adam.zero_grad()
        loss.backward()
        adam.step()
        values.append(loss.item())
    assert values[0] > 1e-3
    assert values[-1] < 0.8 * values[0]


def test_penalties_cost_nothing_where_nothing_is_learned() -> None:
    scene, _ = built(replace(SMALL, lambda_normal=1.0, lambda_distortion=1.0))
    with torch.no_grad():
        frame = scene.render(looks(torch.Generator()), torch.zeros(4, 3))
    assert frame.normal is None
    assert frame.info.distortion is None
    assert frame.info.normal_loss is None


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"primitive": "surfels", "antialiased": True}, "primitive is surfels; only gaussians can be antialiased"),
        ({"primitive": "surfels", "absgrad": True}, "primitive is surfels; only gaussians can be absgrad"),
        (
            {"primitive": "surfels", "lambda_distortion": -1.0},
            "lambda_distortion is -1.0; it is a number from 0 upwards",
        ),
    ],
)
def test_knobs_that_do_not_go_together_are_refused(knobs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SplatConfig(**knobs)  # type: ignore[arg-type]


def test_gaussians_have_no_such_penalties() -> None:
    scene, _ = built(
        replace(SMALL, primitive="gaussians", lambda_normal=1.0, lambda_distortion=1.0, lambda_anisotropy=0.0)
    )
    frame = scene.render(looks(torch.Generator()), torch.zeros(4, 3))
    assert frame.normal is None
    assert not scene.regularization_loss(frame)


# --- what is made of it ---


def test_what_no_picture_sees_is_filled() -> None:
    """A skin of a density, seen as a ball: the level reaches inward, and nowhere outward."""
    scene = shell()
    skin = density(inflate_surfels(scene), 48)
    whole = fill_interior(skin, 0.3, scene)
    axes = [skin.origin[d] + skin.spacing * np.arange(n) for d, n in enumerate(skin.values.shape)]
    reach = np.linalg.norm(np.stack(np.meshgrid(*axes, indexing="ij"), -1), axis=-1)
    assert skin.values[reach < 0.3].max() < 0.3
    assert (whole.values[reach < 0.5] > 0.3).all()
    assert np.array_equal(whole.values[reach > 0.6], skin.values[reach > 0.6])


def test_a_shell_of_surfels_becomes_a_mesh_that_looks_like_it() -> None:
    scene = shell()
    mesh = extract_mesh(
        scene,
        MeshExtractionConfig(
            faces=3000, texture_size=256, resolution=56, views=6, silhouette_size=64, texture_render_size=128
        ),
    )
    assert mesh.surface.volume == pytest.approx(4 / 3 * math.pi * 0.6**3, rel=0.2)
    match = agreement(scene, mesh)
    assert match.iou > 0.95
    assert match.psnr > 20


def test_surfels_are_thickened_and_gaussians_are_not() -> None:
    scene = shell()
    thick = inflate_surfels(scene)
    torch.testing.assert_close(thick.log_scales[:, 2].exp(), torch.full((800,), THICKNESS * 0.06))
    assert torch.equal(thick.log_scales[:, :2], scene.log_scales[:, :2])
    assert thin(scene)
    gaussians = replace(SMALL, primitive="gaussians").build("cpu", torch.Generator())
    assert inflate_surfels(gaussians) is gaussians


def test_viewers_of_gaussians_show_the_file_as_it_was(tmp_path: Path) -> None:
    scene = shell()
    write_splats(tmp_path / "splats.ply", scene)
    cloud, cameras = read_splats(tmp_path / "splats.ply"), looks(torch.Generator().manual_seed(5), 4, 96)
    colours = scene.gaussians(cameras).colors.detach()
    opacities = cloud.logit_opacities.sigmoid()
    with torch.no_grad():
        shown = rasterize(
            Gaussians(cloud.means, cloud.quats, cloud.log_scales.exp(), opacities, colours), cameras, torch.zeros(4, 3)
        )
        wanted = scene.render(cameras, torch.zeros(4, 3))
    assert -10 * functional.mse_loss(shown.rgb, wanted.rgb).log10() > 27
