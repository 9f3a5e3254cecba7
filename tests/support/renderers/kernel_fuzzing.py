"""Feeds the kernels every kind of number there is, and asks of their answers only what must always hold.

Run by test_wild.py, in a process of its own: were a kernel to crash, the other tests should not end with it.
"""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from renderers import kernels
from renderers.meshes import rasterization, regularizer_kernels
from renderers.meshes.triangles import Topology
from renderers.volumes import cpu_kernels, hash_kernels
from renderers.volumes.occupancy import OccupancyGrid
from renderers.volumes.rays import FieldOutput, MarchOptions, Rays, ShadingMode
from renderers.volumes.voxel_field import Blob

STRANGE = [0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, -1e-30, 1e-7, 1e5, 2.0**31, -3e9, 1e30, 3.4e38, -3.4e38]
STRANGE += [float("nan"), float("inf"), float("-inf")]
SIDES = st.integers(1, 12)
wild = settings(
    max_examples=40, database=None, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


class Numbers:
    """Tensors of sane numbers among which strange ones are strewn."""

    def __init__(self, seed: int, share: float) -> None:
        self.rng, self.share = torch.Generator().manual_seed(seed), share

    def __call__(self, *shape: int) -> Tensor:
        sane = torch.randn(*shape, generator=self.rng)
        odd = torch.tensor(STRANGE)[self.below(len(STRANGE), *shape).long()]
        return torch.where(torch.rand(*shape, generator=self.rng) < self.share, odd, sane)

    def below(self, limit: int, *shape: int) -> Tensor:
        return torch.randint(0, limit, shape, generator=self.rng, dtype=torch.int32)


NUMBERS = st.builds(Numbers, st.integers(0, 2**31), st.sampled_from([0.0, 0.02, 0.3, 1.0]))


@wild
@given(NUMBERS, st.integers(2, 20), st.integers(1, 9), SIDES, SIDES, st.sampled_from([0.03, 0.1, 1.0]))
def volumes(numbers: Numbers, resolution: int, cells: int, height: int, width: int, step: float) -> None:
    """Voxels along rays, and samples of a walk put together, with gradients."""
    rays = Rays(
        numbers(2, 3),
        functional.normalize(numbers(2, height, width, 3), dim=-1),
        numbers(2, height, width),
        numbers.below(len(ShadingMode), 2),
        numbers(2, 3),
    )
    occupancy = OccupancyGrid.from_mask(numbers.below(2, cells, cells, cells) == 0)
    march = MarchOptions(step, True, True)
    values = numbers(resolution, resolution, resolution, 4).requires_grad_()
    layers, taken = cpu_kernels.draw(values, 20.0, occupancy, rays, march)
    assert layers.shape == (2, height, width, 10)
    assert int(taken.min()) >= 0
    (layers * numbers(*layers.shape)).sum().backward()
    along = cpu_kernels.march_rays(occupancy, rays, march)
    assert len(along.points) == int(along.num_samples.sum()) == int(along.starts[-1])
    for points in (along.points[:5000].contiguous(), numbers(height * width, 3)):
        weights = numbers(2, 16, 2).requires_grad_(), numbers(8, 4), numbers(4, 8)
        density, albedo = hash_kernels.query_hash_field(points, Blob(), weights, [3, 9], numbers(2), 20.0)
        assert density.shape == (len(points),)
        (density.sum() + (albedo * numbers(len(points), 3)).sum()).backward()
    total = len(along.points)
    found = FieldOutput(numbers(total).requires_grad_(), numbers(total, 3), numbers(total, 3))
    cpu_kernels.composite(found, along, occupancy, rays, march).sum().backward()


@wild
@given(NUMBERS, st.integers(1, 40), st.integers(0, 60), SIDES, SIDES)
def meshes(numbers: Numbers, points: int, faces: int, height: int, width: int) -> None:
    """Triangles, outlines, colours and penalties, with gradients; triangles may have a corner twice."""
    triangles = Topology(numbers.below(points, faces, 3), points)
    places = (numbers(2, points, 3) * torch.tensor([float(width), float(height), 1.0])).requires_grad_()
    fragments = rasterization.rasterize(places.detach(), triangles, height, width)
    assert int(fragments.face.min()) >= -1
    assert int(fragments.face.max()) < max(faces, 1)
    crossings = rasterization.find_silhouettes(places.detach(), triangles, fragments)
    assert int(crossings.edge.max()) < max(len(triangles.edges.vertices), 1)
    colours = numbers(points, 4).requires_grad_()
    picture = rasterization.interpolate(colours, triangles.corners, places, triangles, fragments)
    smooth = rasterization.antialias(picture, places, triangles, crossings)
    assert smooth.shape == (2, height, width, 4)
    (smooth * numbers(*smooth.shape)).sum().backward()
    free = numbers(points, 3).requires_grad_()
    rest = numbers(len(triangles.edges.neighbours))
    total = regularizer_kernels.laplacian_loss(free, triangles, 0.1) + regularizer_kernels.normal_consistency_loss(
        free, triangles, rest
    )
    total = total + regularizer_kernels.summed(free, triangles, triangles.corners, points).sum()
    total.backward()


@wild
@given(NUMBERS, st.sampled_from([1, 2, 8, 48]), SIDES, SIDES)
def textures(numbers: Numbers, size: int, height: int, width: int) -> None:
    """A texture at places far outside it, of levels that do not exist."""
    texture, uv = numbers(size, size, 3).requires_grad_(), numbers(1, height, width, 2).requires_grad_()
    wanted = numbers.below(4, 1, height, width) > 0
    values = rasterization.texture_lookup(texture, uv, numbers(1, height, width), wanted)
    assert not values[~wanted].any()
    (values * numbers(*values.shape)).sum().backward()


if __name__ == "__main__":
    assert kernels.library() is not None
    torch.set_num_threads(2)
    for feed in (volumes, meshes, textures):
        feed()
