"""Meshes on CUDA: PyTorch3D is called as it wants, and its answer is read as ours."""

from __future__ import annotations

import inspect

import pytest
import torch

from renderers.meshes import pytorch3d_backend, reference
from renderers.meshes.rasterization import antialias, find_silhouettes, rasterize
from renderers.meshes.triangles import Topology, project_points
from tests.support.renderers.triangle_soups import cameras, sphere


def test_pytorch3d_is_called_as_it_wants() -> None:
    pytest.importorskip("pytorch3d.renderer.mesh.rasterize_meshes", exc_type=ImportError)
    from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
    from pytorch3d.structures import Meshes

    points, triangles = sphere(6)
    batch = pytorch3d_backend.batch(project_points(points, cameras(1, 8, 8)), triangles, 8, 8)
    inspect.signature(Meshes).bind(**batch)
    inspect.signature(rasterize_meshes).bind(None, **pytorch3d_backend.settings(8, 8))


def test_triangles_numbered_through_all_pictures_come_back() -> None:
    """What PyTorch3D would answer, made from our own answer: the same weights, depths and areas."""
    points, triangles = sphere(10)
    at = project_points(points.double(), cameras(3, 20, 28))
    wanted = reference.rasterize(at, triangles, 20, 28)
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
    at = project_points(points, cameras(2, 64, 48))
    there = Topology(triangles.corners.cuda(), triangles.points)
    on_gpu, on_cpu = rasterize(at.cuda(), there, 64, 48), rasterize(at, triangles, 64, 48)
    assert (on_gpu.face.cpu() != on_cpu.face).float().mean() < 1e-3
    alpha = [fragments.seen[..., None].float() for fragments in (on_gpu, on_cpu)]
    smooth = antialias(alpha[0], at.cuda(), there, find_silhouettes(at.cuda(), there, on_gpu)).cpu()
    expected = antialias(alpha[1], at, triangles, find_silhouettes(at, triangles, on_cpu))
    assert (smooth - expected).abs().mean() < 1e-3
