"""How long volumes take to draw, and to draw and go back, beside other ways to do the same on one thread of a CPU.

    python benchmarks/renderers_volume.py [--repeats 7] [--size 128] [--samples 128]

A round body in a grid of 64^3 corners, with about 17 % of the samples in occupied cells of a 32^3 grid. All are timed
in turn in one process; printed are medians of its processor time, and medians of the ratios to the last way within a
round, which other work on the machine hardly changes. The hash grid is read at the same samples by both ways.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from torch import Tensor, nn
from torch.nn import functional

from renderers import volume_kernels
from renderers.cameras import looking_at_origin
from renderers.field import VoxelField, lattice_points
from renderers.hashed import HashField, decode_slowly, encode_slowly
from renderers.occupancy import Occupancy
from renderers.rays import March, Rays
from renderers.volume import draw

SCALE = 20.0


def body(resolution: int) -> VoxelField:
    """A ball of radius 0.46 or so, with bumps and colours."""
    points = lattice_points(resolution, torch.zeros(1))
    bumps = torch.sin(9 * points).prod(-1)
    density = 40 * (0.46 + 0.05 * bumps - points.norm(dim=-1))
    values = torch.cat([density[:, None].clamp(-12, 12), 2 * torch.sin(5 * points)], -1)
    return VoxelField(values.view(resolution, resolution, resolution, 4), SCALE)


class Others:
    """The same picture by library calls, every sample of a ray or only those in occupied cells."""

    def __init__(self, rays: Rays, occupancy: Occupancy, march: March, samples: int) -> None:
        self.rays, self.step, self.samples = rays, march.step, samples
        directions = rays.directions.reshape(-1, 3)
        origins = rays.origins.repeat_interleave(rays.height * rays.width, 0)
        near = origins.norm(dim=-1).mean() - 0.5 * samples * march.step
        start = near + torch.arange(samples) * march.step
        self.starts = start.expand(len(directions), -1).contiguous()
        middle = self.starts + 0.5 * march.step
        self.points = origins[:, None] + middle[..., None] * directions[:, None]
        inside = (self.points.norm(dim=-1) < 1).flatten()
        self.occupied = (occupancy.holds(self.points.view(-1, 3)) & inside).nonzero()[:, 0]

    def interpolated(self, values: Tensor, points: Tensor) -> Tensor:
        place = points.flip(-1).view(1, -1, 1, 1, 3)
        found = functional.grid_sample(values.permute(3, 0, 1, 2)[None], place, align_corners=True)
        return found.view(4, -1).T

    def nerfacc(self, values: Tensor) -> Tensor:
        """nerfacc's batched rendering of all samples."""
        from nerfacc import rendering

        shape = self.starts.shape

        def colours(*_: Tensor | None) -> tuple[Tensor, Tensor]:
            raw = self.interpolated(values, self.points.view(-1, 3))
            rgb = raw[:, 1:].sigmoid().view(*shape, 3)
            return rgb, SCALE * functional.softplus(raw[:, 0]).view(shape)

        rgb, *_ = rendering(self.starts, self.starts + self.step, rgb_sigma_fn=colours)
        return rgb

    def grid_sample(self, values: Tensor) -> Tensor:
        """Only the samples in occupied cells are interpolated."""
        raw = self.interpolated(values, self.points.view(-1, 3)[self.occupied])
        return self.composited(SCALE * functional.softplus(raw[:, 0]), raw[:, 1:].sigmoid())

    def hashed(self, field: HashField) -> Tensor:
        """The hash grid in plain torch, on the samples in occupied cells."""
        return self.composited(*self.looked_up(field, self.points.view(-1, 3)[self.occupied]))

    def looked_up(self, field: HashField, points: Tensor) -> tuple[Tensor, Tensor]:
        features = encode_slowly(points, field.tables, field.resolutions)
        return decode_slowly(features, field.hidden, field.out, field.blob(points), field.scale)

    def composited(self, density: Tensor, colour: Tensor) -> Tensor:
        count = self.starts.numel()
        depth = density.new_zeros(count).index_copy(0, self.occupied, density * self.step).view(self.starts.shape)
        passed = depth.cumsum(-1)
        weight = ((-(passed - depth)).exp() * -torch.expm1(-depth)).flatten()[self.occupied]
        rows = self.occupied // self.samples
        return colour.new_zeros(len(self.starts), 3).index_add(0, rows, weight[:, None] * colour)


def timed(work: Callable[[], Tensor], leaves: list[nn.Parameter], back: bool) -> float:
    for leaf in leaves:
        leaf.grad = None
    began = time.process_time()
    if back:
        work().square().sum().backward()
    else:
        with torch.no_grad():
            work()
    return 1e3 * (time.process_time() - began)


def compared(title: str, ways: dict[str, Callable[[], Tensor]], leaves: list[nn.Parameter], repeats: int) -> None:
    """The last of the ways is ours."""
    say(title)
    ours = list(ways)[-1]
    for back in (False, True):
        rounds = [{name: timed(work, leaves, back) for name, work in ways.items()} for _ in range(repeats + 1)][1:]
        say("  forward and backward" if back else "  forward")
        for name in ways:
            ratio = statistics.median(each[name] / each[ours] for each in rounds)
            say(f"    {name:<44} {statistics.median(each[name] for each in rounds):8.1f} ms {ratio:7.1f}")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def hide_compilers() -> None:
    """nerfacc starts a build of minutes as soon as it sees nvcc, even where no GPU could run it."""
    folders = os.environ["PATH"].split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join(folder for folder in folders if not (Path(folder) / "nvcc").exists())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--samples", type=int, default=128)
    given = parser.parse_args()
    hide_compilers()
    torch.set_num_threads(1)
    voxels(given.size, given.samples, given.repeats)
    hashes(64, 64, given.repeats)


def setting(size: int, samples: int, occupancy: Occupancy) -> tuple[Rays, March, Others]:
    march = March(step=2 / samples, normals=False)
    rays = Rays.of(looking_at_origin(torch.tensor([0.4]), torch.tensor([0.3]), size), torch.zeros(1))
    return rays, march, Others(rays, occupancy, march, samples)


def voxels(size: int, samples: int, repeats: int) -> None:
    field = body(64)
    occupancy = Occupancy.of(field.densest(32), 0.5)
    rays, march, others = setting(size, samples, occupancy)
    shaded = replace(march, normals=True, spread=True)
    share = len(others.occupied) / others.starts.numel()
    ways: dict[str, Callable[[], Tensor]] = {
        "grid_sample, all samples, nerfacc.rendering": lambda: others.nerfacc(field.values)
    }
    try:
        import nerfacc  # noqa: F401
    except ModuleNotFoundError:
        ways = {}
    ways |= {
        "grid_sample on occupied samples": lambda: others.grid_sample(field.values),
        "ours, with normals and distortion": lambda: volume_kernels.draw(field.values, SCALE, occupancy, rays, shaded)[
            0
        ],
        "ours": lambda: draw(field, occupancy, rays, march).colour,
    }
    title = f"voxels 64^3, {size} x {size} pixels, {samples} samples, {100 * share:.0f} % in occupied cells"
    compared(title, ways, [field.values], repeats)


def hashes(size: int, samples: int, repeats: int) -> None:
    field = HashField(torch.Generator().manual_seed(0), scale=SCALE)
    # The same body decides what is occupied, so that the work is that of a trained scene.
    body_cells = Occupancy.of(body(64).densest(32), 0.5)
    for where, occupancy in (("the ball", Occupancy.everywhere(32, "cpu")), ("occupied cells", body_cells)):
        rays, march, others = setting(size, samples, occupancy)
        share = len(others.occupied) / others.starts.numel()
        ways = {
            "torch, the same samples": lambda others=others: others.hashed(field),
            "ours": lambda occupancy=occupancy, rays=rays, march=march: draw(field, occupancy, rays, march).colour,
        }
        title = f"hash grid, {size} x {size} pixels, {samples} samples, {100 * share:.0f} % in {where}"
        compared(title, ways, list(field.parameters()), repeats)


if __name__ == "__main__":
    main()
