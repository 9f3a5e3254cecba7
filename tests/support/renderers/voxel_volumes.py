"""Volumes to look at: clouds of voxels, rays and lights."""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor

from renderers.cameras import Cameras, look_at_origin
from renderers.volumes.occupancy import OccupancyGrid
from renderers.volumes.rays import MarchOptions, Rays, ShadingMode, VolumeOutput
from renderers.volumes.rendering import render_rays
from renderers.volumes.voxel_field import Field, VoxelField, lattice_points

SCALE = 20.0


NAMES = [field.name for field in fields(VolumeOutput) if field.name != "num_samples"]


MARCH = MarchOptions(step=1 / 24, spread=True)


def cloud(resolution: int = 20, seed: int = 0, height: float = 2.0) -> Tensor:
    """Random float64 voxels, dense in the middle, next to nothing at the edge of the ball."""
    chance = torch.Generator().manual_seed(seed)
    points = lattice_points(resolution, torch.zeros(1, dtype=torch.float64))
    values = torch.randn(resolution, resolution, resolution, 4, generator=chance).double()
    values[..., 0] += (height - 12 * points.square().sum(-1)).view(values.shape[:3])
    return values


def cameras(views: int = 3, size: int = 20) -> Cameras:
    return look_at_origin(torch.arange(views) * 1.7, torch.linspace(-0.6, 0.8, views), size)


def rays_of(looks: Cameras, kind: torch.dtype) -> Rays:
    """Jittered rays; the views are lit in turn by every kind of light."""
    chance = torch.Generator().manual_seed(1)
    rays = Rays.from_cameras(looks, torch.zeros(1, dtype=kind))
    jitter = torch.rand(rays.jitter.shape, generator=chance).to(kind)
    lights = 2 * torch.randn(len(looks), 3, generator=chance).to(kind)
    shades = torch.arange(len(looks), dtype=torch.int32) % len(ShadingMode)
    return replace(rays, jitter=jitter, lights=lights, shades=shades)


def seen(field: Field, rays: Rays, march: MarchOptions = MARCH, occupancy: OccupancyGrid | None = None) -> VolumeOutput:
    """The layers, with the gradients of a fixed random function of all of them in the field's parameters."""
    field.zero_grad()
    layers = render_rays(field, occupancy or OccupancyGrid.full(8, "cpu"), rays, march)
    chance = torch.Generator().manual_seed(5)
    total = rays.origins.new_zeros(())
    for name in NAMES:
        layer = getattr(layers, name)
        total = total + (layer * torch.randn(layer.shape, generator=chance).to(layer)).sum()
    total.backward()
    return layers


def voxels(values: Tensor, kind: torch.dtype) -> VoxelField:
    return VoxelField(values.to(kind), SCALE)


def same_layers(fast: VolumeOutput, slow: VolumeOutput) -> None:
    for name in NAMES:
        error = (getattr(fast, name).double() - getattr(slow, name)).abs()
        assert error.mean() < 1e-5, name
        assert error.max() < 2e-3, name  # where rounding decides whether a ray takes one sample more
