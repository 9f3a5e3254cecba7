"""Volumes by nerfacc: it composes as the twin does, and is called as it wants."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest
import torch
from torch import Tensor, nn

from renderers.volumes import reference, rendering
from renderers.volumes.hash_field import HashGridField
from renderers.volumes.occupancy import OccupancyGrid
from renderers.volumes.rays import MarchOptions, Rays, VolumeOutput
from renderers.volumes.rendering import render_rays
from renderers.volumes.voxel_field import Field, VoxelField
from tests.support.renderers.voxel_volumes import MARCH, cameras, cloud, rays_of, same_layers, seen, voxels


def test_gradients_of_the_twin_are_those_of_finite_differences() -> None:
    rays, march = rays_of(cameras(3, 2), torch.float64), MarchOptions(step=1 / 6, spread=True)

    def layers(values: Tensor) -> Tensor:
        field = VoxelField(torch.zeros_like(values), 3.0)
        del field.values
        field.values = values  # type: ignore[assignment]
        return reference.draw(field, OccupancyGrid.full(4, "cpu"), rays, march)[0]

    values = cloud(4, height=1.0).requires_grad_()
    assert torch.autograd.gradcheck(layers, [values], eps=1e-6, atol=1e-6, rtol=1e-4)


def test_composition_is_that_of_nerfacc() -> None:
    """nerfacc's batched rendering of the same samples: colour, alpha and distance, and their gradients."""
    nerfacc = pytest.importorskip("nerfacc")
    chance = torch.Generator().manual_seed(3)
    step, shape = 0.05, (50, 40)
    rays = Rays(
        *(torch.zeros(50, *rest) for rest in ((3,), (1, 1, 3), (1, 1))), torch.zeros(50).int(), torch.zeros(50, 3)
    )
    distances = (1 + torch.arange(40) * step).expand(shape).double()
    results = []
    for ours in (True, False):
        density = (4 * torch.rand(shape, generator=chance.manual_seed(3))).double().requires_grad_()
        colour = torch.rand(*shape, 3, generator=chance).double().requires_grad_()
        if ours:
            march = MarchOptions(step, normals=False)
            layers = reference.composite(density, colour, None, distances, rays, march)
            rgb, alpha, reach = layers[:, :3], layers[:, 3:4], layers[:, 4:5]
        else:
            ends = distances + step / 2
            rgb, alpha, depth, _ = nerfacc.rendering(
                ends - step, ends, rgb_sigma_fn=lambda *_, colour=colour, density=density: (colour, density)
            )
            reach = depth * alpha
        pull = torch.randn(50, 5, generator=torch.Generator().manual_seed(4)).double()
        (torch.cat([rgb, alpha, reach], -1) * pull).sum().backward()
        results.append((rgb, alpha, reach, density.grad, colour.grad))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-3)  # they take samples behind the last we take


# --- the door to CUDA ---


def test_nerfacc_takes_the_arguments_we_give_it() -> None:
    nerfacc = pytest.importorskip("nerfacc")
    made = inspect.signature(nerfacc.OccGridEstimator.__init__)
    made.bind(None, **rendering.grid_arguments(OccupancyGrid.full(4, "cpu")))
    sampled = inspect.signature(nerfacc.OccGridEstimator.sampling)
    arguments = rendering.sampling_arguments(MARCH, torch.zeros(1), torch.ones(1))
    assert set(arguments) <= set(sampled.parameters)
    sampled.bind(None, torch.zeros(1, 3), torch.zeros(1, 3), sigma_fn=None, **arguments)
    inspect.signature(nerfacc.render_weight_from_density).bind(1, 2, 3, ray_indices=4, n_rays=5)
    inspect.signature(nerfacc.accumulate_along_rays).bind(1, 2, ray_indices=3, n_rays=4)


@pytest.mark.parametrize("field", ["voxels", "hashed"])
def test_the_way_over_nerfacc_agrees_with_the_twin(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    """All but its two CUDA kernels, which are stood in for: the samples by our lattice, the weights by our rule."""
    nerfacc = pytest.importorskip("nerfacc")

    def sampling(
        self: nn.Module, rays_o: Tensor, rays_d: Tensor, *, t_min: Tensor, t_max: Tensor, **rest: object
    ) -> tuple[Tensor, Tensor, Tensor]:
        step = rest["render_step_size"]
        assert isinstance(step, float)
        count = int(((t_max - t_min) / step).max()) + 2
        starts = t_min[:, None] + step * torch.arange(count)
        middle = starts + step / 2
        cells = self.binaries.shape[1]
        places = rays_o[:, None] + middle[..., None] * rays_d[:, None]
        cell = ((places + 1) * (cells / 2)).long().clamp(0, cells - 1)
        kept = (middle < t_max[:, None]) & (t_max > t_min)[:, None] & self.binaries[0][cell.unbind(-1)]
        rows = kept.nonzero()[:, 0]
        density = rest["sigma_fn"](starts[kept], starts[kept] + step, rows)  # type: ignore[operator]
        before = rendering.summed_before(density[:, None] * step, rows)[:, 0]
        clear = torch.exp(-before) > 1e-4
        return rows[clear], starts[kept][clear], starts[kept][clear] + step

    def weights(t_starts: Tensor, t_ends: Tensor, sigmas: Tensor, **packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        depth = sigmas * (t_ends - t_starts)
        through = torch.exp(-rendering.summed_before(depth[:, None], packed["ray_indices"])[:, 0])
        alpha = -torch.expm1(-depth)
        return through * alpha, through, alpha

    monkeypatch.setattr(nerfacc.OccGridEstimator, "sampling", sampling)
    monkeypatch.setattr(nerfacc, "render_weight_from_density", weights)
    rays = rays_of(cameras(), torch.float64)
    pictured: Field = voxels(cloud(), torch.float64)
    if field == "hashed":
        pictured = HashGridField(torch.Generator().manual_seed(0), levels=2, log2_size=8, finest=16, width=4).double()
    occupancy = OccupancyGrid.from_density(pictured.max_density(10).float(), 0.5)
    slow = seen(pictured, rays, occupancy=occupancy)
    truth = [parameter.grad.clone() for parameter in pictured.parameters()]
    monkeypatch.setattr(reference, "draw", rendering.render_rays_nerfacc)
    same_layers(seen(pictured, rays, occupancy=occupancy), slow)
    for parameter, gradient in zip(pictured.parameters(), truth, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-4, rtol=1e-3)


@pytest.mark.cuda
def test_cuda_agrees_with_the_cpu() -> None:
    rays, values = rays_of(cameras(), torch.float32), cloud()
    near, far = voxels(values, torch.float32), voxels(values, torch.float32).cuda()
    occupancy = OccupancyGrid.from_density(near.max_density(10), 0.01)
    there = OccupancyGrid(occupancy.empty.cuda(), occupancy.radius)
    slow = seen(near, rays, occupancy=occupancy)
    fast = render_rays(far, there, Rays(*(getattr(rays, part.name).cuda() for part in fields(rays))), MARCH)
    same_layers(VolumeOutput(*(getattr(fast, part.name).cpu() for part in fields(VolumeOutput))), slow)
