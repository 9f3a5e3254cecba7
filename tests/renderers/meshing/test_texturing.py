"""Unfolding and painting: every texel has its place, and a known colouring comes back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from renderers.cameras import Cameras
from renderers.meshes.mesh import StaticMeshScene, Surface, agreement, sample
from renderers.meshing.texturing import bake_texture, texels, unwrap_uv
from renderers.scene import RenderOutput, Scene
from tests.support.renderers.known_shapes import Painted, ball, rainbow


@pytest.fixture(scope="module")
def surface() -> Surface:
    """A ball and a small one in its lee, so that some of both is hidden from many sides."""
    large, small = ball(0.55, 24), ball(0.15, 12)
    moved = small.vertices + np.float32([0.0, 0.0, 0.8])
    return Surface(
        np.concatenate([large.vertices, moved]), np.concatenate([large.faces, small.faces + len(large.vertices)])
    )


def test_pieces_keep_the_surface_and_do_not_overlap(surface: Surface) -> None:
    flat = unwrap_uv(surface)
    assert (flat.source[flat.faces] == surface.faces).all()
    assert flat.uv.min() >= 0
    assert flat.uv.max() <= 1
    a, b, c = flat.uv[flat.faces].transpose(1, 0, 2).astype(np.float64)
    area = 0.5 * np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
    used = len(texels(surface, surface.normals, flat, 512).rows) / 512**2
    assert used == pytest.approx(area.sum(), rel=0.02)  # where pieces overlapped, less would be used
    assert used > 0.4


def test_texels_lie_on_the_surface_where_their_coordinates_say(surface: Surface) -> None:
    points = texels(surface, surface.normals, unwrap_uv(surface), 256)
    centre = np.where(points.positions[:, 2:] > 0.6, [[0.0, 0.0, 0.8]], [[0.0, 0.0, 0.0]])
    radius = np.where(points.positions[:, 2] > 0.6, 0.15, 0.55)
    away = points.positions - centre
    assert np.linalg.norm(away, axis=-1) == pytest.approx(radius, rel=0.02)
    assert points.normals == pytest.approx(away / radius[:, None], abs=0.05)


def test_a_smooth_colouring_is_painted_back(surface: Surface) -> None:
    """Over the whole surface: also next to seams, at the outlines of the small ball, and between the two."""
    mesh = bake_texture(surface, Painted(surface), 512, 256)
    generator = np.random.default_rng(0)
    weights = generator.dirichlet([1, 1, 1], (4, len(mesh.faces)))[..., None]
    uv = (mesh.uv[mesh.faces] * weights).sum(2).reshape(-1, 2)
    positions = (mesh.vertices[mesh.faces] * weights).sum(2).reshape(-1, 3)
    error = np.abs(sample(torch.from_numpy(mesh.texture).permute(2, 0, 1) / 255.0, uv) - rainbow(positions))
    assert error.mean() < 0.01
    assert np.quantile(error, 0.99) < 0.04
    assert agreement(Painted(surface), mesh).psnr > 30


def test_normals_are_shared_across_seams(surface: Surface) -> None:
    mesh = bake_texture(surface, Painted(surface), 64, 64)
    _, first, group = np.unique(mesh.vertices, axis=0, return_index=True, return_inverse=True)
    assert len(mesh.vertices) > len(surface.vertices) == len(first)
    assert (mesh.normals == mesh.normals[first][group.reshape(-1)]).all()


def test_what_is_behind_does_not_take_the_colour_of_what_is_in_front(surface: Surface) -> None:
    """The small ball is red and the large one green; nothing but red and green is painted, each in its place."""

    def colouring(positions: np.ndarray) -> np.ndarray:
        return np.where(positions[:, 2:] > 0.6, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])

    mesh = bake_texture(surface, Painted(surface, colouring), 256, 256)
    colours = mesh.vertex_colors().astype(float) / 255
    assert colours == pytest.approx(colouring(mesh.vertices), abs=0.02)


class Veiled(Scene):
    """Another scene through haze: half of everything is let through."""

    def __init__(self, behind: Scene) -> None:
        super().__init__()
        self.behind = behind

    def render(self, cameras: Cameras, background: torch.Tensor) -> RenderOutput:
        clear = self.behind.render(cameras, background)
        return RenderOutput(0.5 * (clear.rgb + background[:, None, None]), 0.5 * clear.alpha, clear.depth)


def test_half_transparent_pictures_do_not_darken_the_texture(surface: Surface) -> None:
    clear, veiled = (bake_texture(surface, scene, 128, 128) for scene in (Painted(surface), Veiled(Painted(surface))))
    assert np.abs(clear.texture.astype(int) - veiled.texture).mean() < 1


def test_painting_a_mesh_of_its_own_pictures_keeps_it(surface: Surface) -> None:
    mesh = bake_texture(surface, Painted(surface), 256, 256)
    again = bake_texture(surface, StaticMeshScene(mesh), 256, 256)
    assert np.abs(mesh.vertex_colors().astype(int) - again.vertex_colors()).mean() < 3


class Nothing(Scene):
    def render(self, cameras: Cameras, background: torch.Tensor) -> RenderOutput:
        shape = (len(cameras), cameras.height, cameras.width)
        return RenderOutput(background[:, None, None].expand(*shape, 3), torch.zeros(*shape, 1), torch.zeros(*shape, 1))


def test_pictures_of_nothing_are_refused(surface: Surface) -> None:
    with pytest.raises(ValueError, match="show nothing of the surface"):
        bake_texture(surface, Nothing(), 32, 32)
