"""From splats to a mesh that looks like them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from renderers.meshes.mesh import StaticMeshScene, agreement, fibonacci_cameras, iou, rasterize_surface
from renderers.meshing.extraction import MeshExtractionConfig, Silhouettes, extract_mesh, fit_iso_level, silhouettes
from renderers.meshing.isosurface import marching_surface
from renderers.scene import Scene
from renderers.splats.config import SplatConfig
from renderers.splats.density_grid import density
from renderers.splats.scene import SplatScene
from tests.support.renderers.known_shapes import Painted, ball, chair, covered, snowman, unwrapped

QUICK = MeshExtractionConfig(faces=4000, texture_size=256, resolution=72, silhouette_size=72, texture_render_size=192)


@pytest.mark.parametrize(("scene", "iou", "psnr"), [(snowman, 0.95, 22), (chair, 0.92, 22)])
def test_a_mesh_looks_like_its_splats(scene: type[SplatScene], iou: float, psnr: float) -> None:
    """Round bodies and thin legs, from all around."""
    splats = scene()
    mesh = extract_mesh(splats, QUICK)
    match = agreement(splats, mesh)
    assert match.iou > iou
    assert match.psnr > psnr
    merged = np.unique(mesh.vertices, axis=0, return_inverse=True)
    assert replace(mesh.surface, vertices=merged[0], faces=merged[1].reshape(-1)[mesh.faces]).closed
    assert mesh.texture.shape == (256, 256, 3)
    assert 3000 < len(mesh.faces) <= 4000


def test_no_other_level_fits_better() -> None:
    """The level that the search finds, against a fine comb of others."""
    splats = snowman()
    grid, wanted = density(splats, 56), silhouettes(splats, 6, 64)
    chosen, level = fit_iso_level(grid, wanted)
    assert chosen is grid  # a solid scene is not blurred

    def fit(at: float) -> float:
        return iou(torch.from_numpy(rasterize_surface(marching_surface(grid, at), wanted.cameras).seen), wanted.inside)

    assert fit(level) >= max(fit(float(at)) for at in np.geomspace(0.05, 3, 25)) - 0.003


def test_blur_is_taken_only_where_it_helps() -> None:
    """A lattice of specks far apart, seen as one ball: sharp there are only specks, blurred there is the ball."""
    lattice = np.stack(np.meshgrid(*[np.linspace(-0.6, 0.6, 13)] * 3, indexing="ij"), -1).reshape(-1, 3)
    specks = lattice[np.linalg.norm(lattice, axis=-1) < 0.6]
    sharp = density(covered([(specks, (0.5, 0.5, 0.5), 0.02)]), 44)
    cameras = fibonacci_cameras(4, 48)
    wanted = Silhouettes(cameras, Painted(ball(0.6)).render(cameras, torch.zeros(4, 3)).alpha[..., 0] > 0.5)
    grid, level = fit_iso_level(sharp, wanted)
    assert grid is not sharp
    assert marching_surface(grid, level).volume == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=0.15)


def test_a_level_of_ones_own_is_kept() -> None:
    splats = snowman()
    large, small = (extract_mesh(splats, replace(QUICK, iso_level=level)).surface.volume for level in (0.1, 1.0))
    assert small < 0.95 * large


def test_levels_above_the_densest_point_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no surface at density 1e\+03: the level must be above 0 and below"):
        extract_mesh(snowman(), replace(QUICK, iso_level=1000.0))


def transparent(logit: float) -> SplatScene:
    scene = SplatConfig(init_count=200, cap_max=200).build("cpu", torch.Generator().manual_seed(0))
    scene.logit_opacities = nn.Parameter(torch.full((200,), logit))
    return scene


def test_empty_and_faint_scenes_are_refused() -> None:
    with pytest.raises(ValueError, match="the scene is empty"):
        extract_mesh(transparent(-20.0), QUICK)
    with pytest.raises(ValueError, match=r"too faint for a mesh: its most opaque pixel has alpha 0\.[0-4]"):
        extract_mesh(transparent(-4.5), QUICK)


def test_scenes_without_splats_are_refused_by_name() -> None:
    scene: Scene = StaticMeshScene(unwrapped(ball(), np.zeros((4, 4, 3), np.uint8)))
    with pytest.raises(ValueError, match="a StaticMeshScene has none"):
        extract_mesh(scene, QUICK)


@pytest.mark.parametrize(
    "name", ["faces", "texture_size", "resolution", "views", "silhouette_size", "texture_render_size"]
)
def test_knobs_out_of_range_are_named(name: str) -> None:
    for value in (0, 10**8):
        with pytest.raises(ValueError, match=f"{name} is {value}; it lies between"):
            replace(QUICK, **{name: value})
