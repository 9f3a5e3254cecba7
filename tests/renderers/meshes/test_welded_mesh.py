"""The mesh under a scene: its penalties, normals and tangents, and the ball it begins as."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from renderers.meshes.mesh import Mesh, Surface
from renderers.meshes.welded_mesh import WeldedMesh, cube_sphere
from tests.support.renderers.mesh_scenes import GREY, chance


def test_kernels_for_shapes_agree_with_plain_torch() -> None:
    body = WeldedMesh.from_mesh(cube_sphere(0.6, 300, 16))
    points = body.points + 0.02 * torch.randn(body.points.shape, generator=chance())
    rest = 0.5 * body.dihedral_angles(body.points + 0.02 * torch.randn(body.points.shape, generator=chance(1)))
    pull = torch.randn(len(body.uv), 3, generator=chance(2))

    def values(points: Tensor, rest: Tensor) -> list[Tensor]:
        normals = (body.normals(points) * pull.to(points)).sum()
        return [body.laplacian_loss(points, 0.1), body.normal_consistency_loss(points, rest), normals]

    single, double = points.requires_grad_(), points.detach().double().requires_grad_()
    for fast, slow in zip(values(single, rest), values(double, rest.double()), strict=True):
        assert float(fast.detach()) == pytest.approx(float(slow.detach()), rel=1e-4)
        (a,), (b,) = torch.autograd.grad(fast, single), torch.autograd.grad(slow, double)
        assert float((a - b).norm()) < 1e-4 * float(b.norm())


def test_the_laplacian_and_the_creases_are_those_of_the_book() -> None:
    """A pyramid over a square, its top at height 1: the top is 1 above the mean of its neighbours."""
    vertices = np.array([[1, 0, 0], [0, 0, -1], [-1, 0, 0], [0, 0, 1], [0, 1, 0]], np.float32)
    faces = np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]], np.int32)
    mesh = Mesh(vertices, faces, Surface(vertices, faces).normals, np.zeros((5, 2), np.float32), GREY)
    body = WeldedMesh.from_mesh(mesh)
    top = int((body.points[:, 1] == 1).nonzero()[0, 0])
    assert body.laplacian(body.points)[top].tolist() == pytest.approx([0, 1, 0])
    # Slopes of equal triangles, each facing (+-1, 1, +-1): neighbours have a cosine of 1 / 3.
    assert body.dihedral_angles(body.points).tolist() == pytest.approx([2 / 3] * 4)
    assert body.normals(body.points)[body.weld_index == top].flatten().tolist() == pytest.approx([0, 1, 0], abs=1e-6)


@pytest.mark.parametrize("faces", [12, 300, 5000])
def test_the_ball_is_closed_round_and_unfolded_without_overlap(faces: int) -> None:
    mesh = cube_sphere(0.6, faces, 16)
    body = WeldedMesh.from_mesh(mesh)
    joined = Surface(body.points.numpy(), body.triangles.corners.numpy())
    assert joined.closed and joined.volume > 0
    assert len(mesh.faces) == pytest.approx(faces, rel=0.1)
    assert np.linalg.norm(mesh.vertices, axis=-1) == pytest.approx(np.full(len(mesh.vertices), 0.6), abs=1e-6)
    assert mesh.uv.min() > 0 and mesh.uv.max() < 1
    assert float(body.uv_areas().sum()) / 2 == pytest.approx(0.88**2, rel=1e-4)
    if faces > 1000:
        assert float((body.normals(body.points) - torch.from_numpy(mesh.normals)).abs().max()) < 0.1


def test_tangents_run_along_the_texture() -> None:
    mesh = cube_sphere(0.6, 5000, 16)
    body = WeldedMesh.from_mesh(mesh)
    tangents = body.tangents(body.points)
    front = torch.from_numpy(mesh.vertices)[:, 2] > 0.55
    # On the front side x of the texture runs to +X, and its upward direction to +Y: a right-handed frame.
    assert bool((tangents[front, 0] > 0.9).all()) and bool((tangents[:, 3] == 1).all())
    assert tangents[:, :3].norm(dim=-1).numpy() == pytest.approx(np.ones(len(tangents)), abs=1e-5)


def test_sharp_edges_keep_normals_of_their_own() -> None:
    corner = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    faces = np.array([[0, 1, 2], [3, 4, 5]], np.int32)
    normals = np.repeat(np.array([[0, 0, 1], [1, 0, 0]], np.float32), 3, 0)
    body = WeldedMesh.from_mesh(Mesh(corner, faces, normals, np.zeros((6, 2), np.float32), GREY))
    assert len(body.points) == 4
    torch.testing.assert_close(body.normals(body.points), torch.from_numpy(normals))


def test_meshes_that_cannot_be_drawn_are_refused() -> None:
    mesh = cube_sphere(0.6, 300, 16)
    with pytest.raises(ValueError, match="no triangles"):
        WeldedMesh.from_mesh(replace(mesh, faces=np.zeros((0, 3), np.int32)))
    broken = mesh.vertices.copy()
    broken[3] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        WeldedMesh.from_mesh(replace(mesh, vertices=broken))
    with pytest.raises(ValueError, match="names point"):
        WeldedMesh.from_mesh(replace(mesh, faces=mesh.faces + 1000))
