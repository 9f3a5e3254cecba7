"""Textures looked up: kernel against twin, levels of detail, wild places."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from renderers import kernels
from renderers.meshes import cpu_kernels, reference
from renderers.meshes.rasterization import mip_level, num_mip_levels, rasterize, texture_lookup
from renderers.meshes.triangles import Topology
from tests.support.renderers.triangle_soups import chance, needs_kernels


@needs_kernels
@pytest.mark.parametrize("detail", [0.0, 0.3, 1.7, 5.0, -1.0])
def test_kernel_and_twin_look_up_the_same(detail: float) -> None:
    rng = chance(0)
    texture, uv = torch.rand(32, 32, 5, generator=rng), 1.4 * torch.rand(2, 9, 7, 2, generator=rng) - 0.2
    wanted, pull = torch.rand(2, 9, 7, generator=rng) > 0.3, torch.randn(2, 9, 7, 5, generator=rng)
    found = []
    for way, kind in ((cpu_kernels, torch.float32), (reference, torch.float64)):
        inputs = [texture.to(kind).requires_grad_(), uv.to(kind).requires_grad_()]
        levels = torch.full(wanted.shape, detail, dtype=kind)
        values = way.texture_lookup(*inputs, levels, wanted, num_mip_levels(32))
        found.append([values.detach(), *torch.autograd.grad((values * pull).sum(), inputs)])
    for single, double in zip(*found, strict=True):
        assert (single - double).norm() <= 1e-5 * double.norm()


@pytest.mark.usefixtures("way")
def test_a_texture_is_seen_where_its_coordinates_say() -> None:
    texture = torch.zeros(4, 4, 1)
    texture[0, 3] = 1  # the upper right corner
    uv = torch.tensor([[[[0.875, 0.125], [0.125, 0.125], [0.875, 0.875], [2.0, -1.0], [0.75, 0.125]]]])
    seen = torch.ones(1, 1, 5, dtype=torch.bool)
    assert texture_lookup(texture, uv, torch.zeros(1, 1, 5), seen)[..., 0].tolist() == [[[1, 0, 0, 1, 0.5]]]
    assert texture_lookup(texture, uv, torch.full((1, 1, 5), 1.0), seen)[0, 0, 3, 0] == 0.25
    assert not texture_lookup(texture, uv, torch.zeros(1, 1, 5), ~seen).any()
    assert [num_mip_levels(size) for size in (1024, 512, 96, 100, 6, 2, 33)] == [4, 4, 4, 3, 2, 1, 1]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("texels", [64, 128, 512])
def test_the_level_of_detail_is_texels_to_a_pixel(texels: int) -> None:
    """A square that fills 64 pixels with a whole texture."""
    at = torch.tensor([[[0.0, 0, 2], [128, 0, 2], [128, 128, 2], [0, 128, 2]]])
    triangles = Topology(torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32), 4)
    detail = mip_level(rasterize(at, triangles, 64, 64), torch.ones(2), texels)
    torch.testing.assert_close(detail, torch.full((1, 64, 64), math.log2(texels / 64)))


@pytest.mark.usefixtures("way")
def test_wild_texture_places_find_a_texel() -> None:
    rng = np.random.default_rng(0)
    uv = rng.choice([0.0, np.nan, np.inf, -np.inf, 1e38, -7.0, 0.5, 1.0], (1, 20, 20, 2)).astype(np.float32)
    detail = torch.from_numpy(rng.choice([np.nan, np.inf, -np.inf, 0.0, 2.5], (1, 20, 20)).astype(np.float32))
    where = torch.from_numpy(uv)
    if kernels.library() is None:  # the twin's grid_sample may answer NaN with NaN
        where, detail = where.nan_to_num(), detail.nan_to_num()
    texture = torch.rand(16, 16, 3, requires_grad=True)
    values = texture_lookup(texture, where.requires_grad_(), detail, torch.ones(1, 20, 20, dtype=torch.bool))
    assert values.isfinite().all()
    torch.autograd.grad(values.sum(), [texture, where])
