"""Volumes, forward and back, beside other ways to do the same.

A round body in a grid of 64^3 corners, with about 17 % of the samples in occupied cells of a 32^3 grid. The hash grid
is read at the same samples by both ways, and drawn twice: with the ball full of samples, and with those of the body.

The least that a point in the hash tables could cost: its network is so many multiply-adds, there and back (the neurons
are worked out again on the way back), at the rate of a matrix product; and of every table eight entries of eight bytes
are read, and read and written again on the way back, at the rate at which one table is copied over and over.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from timing import bytes_copied, multiply_adds, on_two_threads, ratio, rounds, say, timed, told_of_threads
from torch import Tensor, nn
from torch.nn import functional

from renderers.cameras import look_at_origin
from renderers.volumes import cpu_kernels
from renderers.volumes.hash_field import HashGridField, decode_reference, encode_reference
from renderers.volumes.occupancy import OccupancyGrid
from renderers.volumes.rays import MarchOptions, Rays
from renderers.volumes.rendering import render_rays
from renderers.volumes.voxel_field import Field, VoxelField, lattice_points

SCALE = 20.0
NERFACC, ALL, SHADED, OURS = (
    "voxels: grid_sample at all samples, nerfacc's batched functions",
    "voxels: grid_sample at occupied samples",
    "voxels, ours, with normals and distortion",
    "voxels, ours",
)
BARS = {NERFACC: 15, ALL: 6}
"""How many times longer other ways have to take than ours, there and back."""
HASH_BAR = 10


def body(resolution: int) -> VoxelField:
    """A ball of radius 0.46 or so, with bumps and colours."""
    points = lattice_points(resolution, torch.zeros(1))
    bumps = torch.sin(9 * points).prod(-1)
    density = 40 * (0.46 + 0.05 * bumps - points.norm(dim=-1))
    values = torch.cat([density[:, None].clamp(-12, 12), 2 * torch.sin(5 * points)], -1)
    return VoxelField(values.view(resolution, resolution, resolution, 4), SCALE)


class Others:
    """The same picture by library calls, every sample of a ray or only those in occupied cells."""

    def __init__(self, rays: Rays, occupancy: OccupancyGrid, march: MarchOptions, samples: int) -> None:
        self.rays, self.step, self.samples = rays, march.step, samples
        directions = rays.directions.reshape(-1, 3)
        origins = rays.origins.repeat_interleave(rays.height * rays.width, 0)
        near = origins.norm(dim=-1).mean() - 0.5 * samples * march.step
        start = near + torch.arange(samples) * march.step
        self.starts = start.expand(len(directions), -1).contiguous()
        middle = self.starts + 0.5 * march.step
        self.points = origins[:, None] + middle[..., None] * directions[:, None]
        inside = (self.points.norm(dim=-1) < 1).flatten()
        self.occupied = (occupancy.contains(self.points.view(-1, 3)) & inside).nonzero()[:, 0]

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

    def hashed(self, field: HashGridField) -> Tensor:
        """The hash grid in plain torch, on the samples in occupied cells."""
        return self.composited(*self.looked_up(field, self.points.view(-1, 3)[self.occupied]))

    def looked_up(self, field: HashGridField, points: Tensor) -> tuple[Tensor, Tensor]:
        features = encode_reference(points, field.tables, field.resolutions, field.level_weights)
        return decode_reference(features, field.hidden, field.out, field.blob(points), field.scale)

    def composited(self, density: Tensor, colour: Tensor) -> Tensor:
        count = self.starts.numel()
        depth = density.new_zeros(count).index_copy(0, self.occupied, density * self.step).view(self.starts.shape)
        passed = depth.cumsum(-1)
        weight = ((-(passed - depth)).exp() * -torch.expm1(-depth)).flatten()[self.occupied]
        rows = self.occupied // self.samples
        return colour.new_zeros(len(self.starts), 3).index_add(0, rows, weight[:, None] * colour)


def there_and_back(work: Callable[[], Tensor], leaves: list[nn.Parameter]) -> float:
    """Milliseconds of a picture and all its gradients."""
    for leaf in leaves:
        leaf.grad = None
    return timed(lambda: work().square().sum().backward())


@torch.no_grad()
def there(work: Callable[[], Tensor]) -> float:
    """Milliseconds of a picture."""
    return timed(work)


def compared(
    title: str, ways: dict[str, Callable[[], Tensor]], leaves: list[nn.Parameter], repeats: int
) -> list[dict[str, Any]]:
    """A row for each way; the last of them is ours."""
    say(title)
    ours = list(ways)[-1]
    forward = rounds({name: lambda work=work: there(work) for name, work in ways.items()}, repeats)
    both = rounds({name: lambda work=work: there_and_back(work, leaves) for name, work in ways.items()}, repeats)
    rows = []
    for name in ways:
        ms = {"forward_ms": statistics.median(forward[name]), "both_ms": statistics.median(both[name])}
        times = {"forward_ratio": ratio(forward[name], forward[ours]), "both_ratio": ratio(both[name], both[ours])}
        rows.append({"way": name, **ms, **times})
        say(f"    {name:<64} {ms['forward_ms']:8.1f} {ms['both_ms']:8.1f} ms {times['both_ratio']:7.1f}")
    return rows


def hide_compilers() -> None:
    """nerfacc starts a build of minutes as soon as it sees nvcc, even where no GPU could run it."""
    folders = os.environ["PATH"].split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join(folder for folder in folders if not (Path(folder) / "nvcc").exists())


def setting(size: int, samples: int, occupancy: OccupancyGrid) -> tuple[Rays, MarchOptions, Others]:
    march = MarchOptions(step=2 / samples, normals=False)
    rays = Rays.from_cameras(look_at_origin(torch.tensor([0.4]), torch.tensor([0.3]), size), torch.zeros(1))
    return rays, march, Others(rays, occupancy, march, samples)


def voxels(size: int, samples: int, repeats: int) -> list[dict[str, Any]]:
    field = body(64)
    occupancy = OccupancyGrid.from_density(field.max_density(32), 0.5)
    rays, march, others = setting(size, samples, occupancy)
    shaded = replace(march, normals=True, spread=True)
    ways: dict[str, Callable[[], Tensor]] = {NERFACC: lambda: others.nerfacc(field.values)}
    try:
        import nerfacc  # noqa: F401
    except ModuleNotFoundError:
        ways = {}
    ways |= {
        ALL: lambda: others.grid_sample(field.values),
        SHADED: lambda: cpu_kernels.draw(field.values, SCALE, occupancy, rays, shaded)[0],
        OURS: lambda: render_rays(field, occupancy, rays, march).rgb,
    }
    share = 100 * len(others.occupied) / others.starts.numel()
    title = f"voxels 64^3, {size} x {size} pixels, {samples} samples, {share:.0f} % in occupied cells"
    rows = compared(title, ways, [field.values], repeats)
    return [{**row, "bar": BARS.get(row["way"])} for row in rows]


def hashes(size: int, samples: int, repeats: int) -> list[dict[str, Any]]:
    field = HashGridField(torch.Generator().manual_seed(0), scale=SCALE)
    # The same body decides what is occupied, so that the work is that of a trained scene.
    body_cells = OccupancyGrid.from_density(body(64).max_density(32), 0.5)
    rows = []
    for occupancy in (OccupancyGrid.full(32, "cpu"), body_cells):
        rays, march, others = setting(size, samples, occupancy)
        share = f"{100 * len(others.occupied) / others.starts.numel():.0f} % of the samples"
        ways = {
            f"hash grid, torch, {share}": lambda others=others: others.hashed(field),
            f"hash grid, ours, {share}": lambda occupancy=occupancy, rays=rays, march=march: (
                render_rays(field, occupancy, rays, march).rgb
            ),
        }
        found = compared(f"hash grid, {size} x {size} pixels, {share}", ways, list(field.parameters()), repeats)
        found[0]["bar"] = HASH_BAR
        rows += found
    return rows


def point_in_tables(repeats: int) -> dict[str, float]:
    """Nanoseconds of a point, there and back, beside the least that it could cost."""
    field = HashGridField(torch.Generator().manual_seed(0), scale=SCALE)
    rays, march, _ = setting(64, 64, OccupancyGrid.full(32, "cpu"))
    points = cpu_kernels.march_rays(OccupancyGrid.full(32, "cpu"), rays, march).points
    pull = torch.randn(len(points), 4)

    def both() -> float:
        field.zero_grad(set_to_none=True)
        return timed(lambda: (said() * pull).sum().backward())

    def said() -> Tensor:
        found = field.query(points, False)
        return torch.cat([found.density[:, None], found.albedo], -1)

    found = rounds({"both": both}, 3 * repeats)
    neurons, features = field.hidden.shape
    adds = 4 * neurons * features + 3 * 4 * neurons
    numbers = 8 * 8 * len(field.tables) * 3
    told = {
        "both_ns": 1e6 * statistics.median(found["both"]) / len(points),
        "multiply_adds": adds,
        "network_ns": adds / multiply_adds(),
        "bytes": numbers,
        "tables_ns": numbers / bytes_copied(4 * field.tables[0].numel()),
    }
    say("a point in the tables: " + ", ".join(f"{name} {value:.1f}" for name, value in told.items()))
    return told


def second_thread(repeats: int) -> list[dict[str, Any]]:
    """Voxels and hash tables, there and back."""
    rows = []
    fields: dict[str, Field] = {
        "voxels": body(64),
        "hash grid": HashGridField(torch.Generator().manual_seed(0), scale=SCALE),
    }
    for name, field in fields.items():
        size, samples = (128, 128) if name == "voxels" else (64, 64)
        occupancy = OccupancyGrid.from_density(body(64).max_density(32), 0.5)
        rays, march, _ = setting(size, samples, occupancy)

        def work(
            field: Field = field, occupancy: OccupancyGrid = occupancy, rays: Rays = rays, march: MarchOptions = march
        ) -> None:
            render_rays(field, occupancy, rays, march).rgb.square().sum().backward()

        rows.append(on_two_threads(f"{name}, {size} px, {samples} samples", work, 3 * repeats))
    return rows


def measured(quick: bool, repeats: int) -> dict[str, Any]:
    """All figures; `quick`: fewer rounds."""
    hide_compilers()
    repeats = min(repeats, 5) if quick else repeats
    rows = {"voxels": voxels(128, 128, repeats), "hashed": hashes(64, 64, repeats)}
    return {**rows, "point": point_in_tables(repeats), "threads": second_thread(repeats)}


def told(data: dict[str, Any]) -> list[str]:
    """The section of the page."""
    lines = [
        "128 x 128 pixels, 128 samples, voxels of 64^3; hash grids with 64 x 64 pixels and 64 samples, both ways at "
        "the same samples.",
        "",
        "| forward and backward | time | times ours | bar |",
        "|---|---|---|---|",
    ]
    for row in [*data["voxels"], *data["hashed"]]:
        times = f"{row['both_ratio']:.1f}" if row["both_ratio"] != 1 else "1"
        lines.append(f"| {row['way']} | {row['both_ms']:.3g} ms | {times} | {row.get('bar') or ''} |")
    point = data.get("point")
    if point:
        least = point["network_ns"] + point["tables_ns"]
        lines += [
            "",
            f"A point in the hash tables takes {point['both_ns']:.0f} ns, there and back. Of these, "
            f"{point['network_ns']:.0f} ns would be left if the {point['multiply_adds']:.0f} multiply-adds of its "
            f"network went at the rate of a matrix product, and {point['tables_ns']:.0f} ns if its "
            f"{point['bytes']:.0f} bytes of the tables went at the rate at which one table is copied: "
            f"it takes {point['both_ns'] / least:.1f} times the least.",
        ]
    return lines + told_of_threads(data["threads"]) if "threads" in data else lines
