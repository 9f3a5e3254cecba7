"""Triangles to draw: spheres, and soups of random ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from renderers import kernels
from renderers.cameras import Cameras, look_at_origin
from renderers.meshes.triangles import Fragments, Topology
from tests.support.renderers.known_shapes import ball

needs_kernels = pytest.mark.skipif(kernels.library() is None, reason=kernels.why_missing())
Shape = tuple[Tensor, Topology]


def chance(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sphere(rows: int, radius: float = 0.7) -> Shape:
    surface = ball(radius, rows)
    return torch.from_numpy(surface.vertices), Topology(torch.from_numpy(surface.faces), len(surface.vertices))


def soup(count: int, seed: int) -> Shape:
    """Random triangles, many of them through one another."""
    rng = chance(seed)
    corners = torch.randint(0, count, (2 * count, 3), generator=rng, dtype=torch.int32)
    return 0.7 * torch.randn(count, 3, generator=rng), Topology(corners, count)


def cameras(views: int, height: int, width: int, distance: float = 3.0) -> Cameras:
    square = look_at_origin(torch.linspace(0.4, 2, views), torch.full((views,), 0.3), height, distance)
    return replace(square, width=width)


def in_double(fragments: Fragments) -> Fragments:
    return Fragments(fragments.face, fragments.bary.double(), fragments.depth.double(), fragments.area.double())
