"""Splats, forward and back, beside the same in plain torch.

The scene: a ball of splats of random shape, each about half as wide as they lie apart, seen by one camera; all of its
gradients are asked for. Torch, written for this comparison (`sparse_splats.py`), draws only the pairs of a splat and a
pixel that show. A pair that shows is also what the nanoseconds are divided by.

The least that a pair could cost: counted by hand, a register of pixels takes 23 instructions one way (2 for the place,
2 for the exponent, 8 for the power of two, 2 for alpha, 5 for what is let through, 4 for colour and depth), and 41 on
the way back, which works out alpha again (14; 4 for what is let through, 8 for colour and depth, 7 for the gradient of
the exponent, 8 for its sums). If each cost no more than a multiply-add, no lane were idle, and lists, projection and
memory were free, a pair would take 64 / R ns, where R is how many multiply-adds of single floats this core does in a
nanosecond; a matrix product says that. So it is counted for AVX-512; for AVX2 the power of two takes 10.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from sparse_splats import draw, live_pairs, live_surfels
from timing import multiply_adds, on_two_threads, ratio, rounds, say, settle, told_of_threads
from torch import Tensor
from torch.nn import functional

from renderers.cameras import look_at_origin
from renderers.splats import cpu_kernels
from renderers.splats.gaussians import CameraMatrices, Gaussians, RasterizationOptions
from renderers.splats.reference import project

SIZES = (64, 128, 256, 512)
COUNTS = (1_000, 5_000, 20_000, 100_000)
TORCH_UP_TO = 2_000_000
"""Pairs above which torch is left out: it takes half a minute and gigabytes."""
BARS = {(128, 20_000): 90, (256, 20_000): 300}
"""Pixels along a side and splats: how many times longer torch has to take for both ways."""
SECOND_THREAD = 1.7
ON_TWO_THREADS = ((256, 20_000, 1), (128, 20_000, 1), (512, 100_000, 1), (64, 5_000, 8))
"""Pixels along a side, splats, cameras."""
INSTRUCTIONS = 64
"""For a register of pixels, both ways."""


def ball(count: int) -> Gaussians:
    """Splats in the unit ball, as leaves."""
    rng = torch.Generator().manual_seed(0)
    directions = functional.normalize(torch.randn(count, 3, generator=rng), dim=-1)
    apart = (4 / 3 * torch.pi / count) ** (1 / 3)
    values = [
        directions * torch.rand(count, 1, generator=rng) ** (1 / 3),
        torch.randn(count, 4, generator=rng),
        0.5 * apart * torch.exp(0.4 * torch.randn(count, 3, generator=rng)),
        0.05 + 0.9 * torch.rand(count, generator=rng),
        torch.rand(count, 3, generator=rng),
    ]
    return Gaussians(*(value.requires_grad_() for value in values))


@dataclass(frozen=True)
class Case:
    """One scene in pictures of one size."""

    size: int
    count: int
    splats: Gaussians
    lenses: CameraMatrices
    pulls: tuple[Tensor, Tensor]
    """Gradients of colour and depth, and of alpha."""

    @classmethod
    def of(cls, size: int, count: int, views: int = 1) -> Case:
        splats = ball(count)
        turns = torch.arange(views) * 2.4
        cameras = look_at_origin(0.3 + turns, torch.full((views,), 0.2), size, 2.5, 0.87)
        pull = torch.randn(views, size, size, 5, generator=torch.Generator().manual_seed(1))
        pulls = pull[..., :4].contiguous(), pull[..., 4:].contiguous()
        return cls(size, count, splats, CameraMatrices.from_cameras(cameras, splats.means), pulls)

    def pairs(self) -> int:
        """Pairs of a splat and a pixel that show."""
        with torch.no_grad():
            return len(live_pairs(self.splats.opacities, project(self.splats, self.lenses), self.lenses)[0])

    def kernels(self, wish: RasterizationOptions | None = None) -> tuple[Tensor, Tensor]:
        return cpu_kernels.draw(self.splats, self.lenses, wish or RasterizationOptions())[:2]

    def torch(self) -> tuple[Tensor, Tensor]:
        return draw(self.splats, self.lenses)

    def timed(self, way: Callable[[], tuple[Tensor, Tensor]], clock: Callable[[], float]) -> tuple[float, float]:
        """Milliseconds forward, and forward and back."""
        for leaf in vars(self.splats).values():
            leaf.grad = None
        began = clock()
        colour, alpha = way()
        drawn = clock()
        pull, of_alpha = (each.view(*colour.shape[:-1], -1) for each in self.pulls)
        torch.autograd.backward([colour, alpha], [pull, of_alpha])
        return 1e3 * (drawn - began), 1e3 * (clock() - began)


def median_of(case: Case, calls: int) -> tuple[float, float]:
    """A call of ours is short: the median of some that follow each other."""
    some = [case.timed(case.kernels, time.process_time) for _ in range(calls)]
    forward, both = (statistics.median(column) for column in zip(*some, strict=True))
    return forward, both


def compared(case: Case, repeats: int, least: float) -> dict[str, Any]:
    """One row: kernels, torch, and the ratio."""
    pairs = case.pairs()
    bar = BARS.get((case.size, case.count))
    ways = {"ours": lambda: median_of(case, 5)}
    if pairs <= TORCH_UP_TO or bar:
        ways["torch"] = lambda: case.timed(case.torch, time.process_time)
        settle(lambda: ways["torch"]()[1])
    found = rounds(ways, repeats if pairs <= TORCH_UP_TO else max(1, repeats // 3))
    forward, both = (statistics.median(column) for column in zip(*found["ours"], strict=True))
    row = {"pixels": case.size, "splats": case.count, "forward_ms": forward, "both_ms": both}
    row |= {"ns_per_pair": 1e6 * both / pairs, "of_the_least": 1e6 * both / pairs / least, "bar": bar}
    line = f"{case.size:>4} px {case.count:>7}  {forward:7.2f} {both:7.2f} ms  {row['ns_per_pair']:6.2f} ns/pair"
    line += f"  {row['of_the_least']:4.1f} x the least"
    if "torch" in found:
        theirs, ours = ([one[1] for one in found[name]] for name in ("torch", "ours"))
        row |= {"torch_both_ms": statistics.median(theirs), "torch_ratio": ratio(theirs, ours)}
        line += f"  torch {row['torch_both_ms']:7.0f} ms  {row['torch_ratio']:5.0f} times"
        line += f"  (bar {bar}: {'met' if row['torch_ratio'] >= bar else 'missed'})" if bar else ""
    say(line)
    return row


def surfels(case: Case, repeats: int) -> dict[str, Any]:
    """One row: the same splats as flat discs."""
    pairs = live_surfels(case.splats, case.lenses)
    some = [
        case.timed(lambda: case.kernels(RasterizationOptions(surfels=True)), time.process_time)
        for _ in range(5 * repeats)
    ]
    forward, both = (statistics.median(column) for column in zip(*some[repeats:], strict=True))
    row = {"pixels": case.size, "splats": case.count, "forward_ms": forward, "both_ms": both}
    row["ns_per_pair"] = 1e6 * both / pairs
    say(f"surfels {case.size:>4} px {case.count:>7}  {forward:7.2f} {both:7.2f} ms  {row['ns_per_pair']:6.2f} ns/pair")
    return row


def options(case: Case, repeats: int) -> dict[str, float]:
    """How many times as long both ways take with what else can be drawn."""
    wishes = {
        "antialiasing": RasterizationOptions(antialiased=True),
        "normals": RasterizationOptions(return_normals=True),
        "sizes of gradients": RasterizationOptions(absgrad=True),
        "all three": RasterizationOptions(True, True, True),
        "plain": RasterizationOptions(),
    }
    ways = {
        name: lambda wish=wish: case.timed(lambda: plain(case, wish), time.process_time)[1]
        for name, wish in wishes.items()
    }
    found = rounds(ways, 3 * repeats)
    ratios = {name: ratio(times, found["plain"]) for name, times in found.items() if name != "plain"}
    for name, times in ratios.items():
        say(f"    {name:<20} {times:5.2f} times as long")
    return ratios


def plain(case: Case, wish: RasterizationOptions) -> tuple[Tensor, Tensor]:
    """A wish's normals are drawn and get a gradient of their own, by the sum with the colour."""
    colour, alpha = case.kernels(wish)
    if colour.shape[-1] > 4:
        colour = torch.cat([colour[..., :3] + colour[..., 4:], colour[..., 3:4]], -1)
    return colour, alpha


def second_thread(case: Case, repeats: int) -> dict[str, Any]:
    views = f", {len(case.pulls[0])} cameras" if len(case.pulls[0]) > 1 else ""
    name = f"{case.size} px, {case.count:,} splats{views}"
    row = on_two_threads(name, lambda: case.timed(case.kernels, time.perf_counter), 3 * repeats)
    return {**row, "bar": SECOND_THREAD if case.size == 256 else None}


def several_cameras(repeats: int) -> dict[str, float]:
    """Eight small pictures in one call, and in eight."""
    case = Case.of(64, 5_000, 8)
    pulls = zip(*(each.split(1) for each in case.pulls), strict=True)
    alone = [Case(case.size, case.count, case.splats, one(case.lenses, k), pull) for k, pull in enumerate(pulls)]
    ways = {
        "together": lambda: case.timed(case.kernels, time.process_time)[1],
        "apart": lambda: sum(each.timed(each.kernels, time.process_time)[1] for each in alone),
    }
    found = rounds(ways, 3 * repeats)
    told = {"together_ms": statistics.median(found["together"]), "apart": ratio(found["apart"], found["together"])}
    say(f"eight cameras, 64 px, 5000 splats: {told['together_ms']:.2f} ms; in eight calls {told['apart']:.2f} x")
    return told


def one(lenses: CameraMatrices, k: int) -> CameraMatrices:
    viewmats, intrinsics = lenses.viewmats[k : k + 1].contiguous(), lenses.Ks[k : k + 1].contiguous()
    return CameraMatrices(viewmats, intrinsics, lenses.height, lenses.width)


def measured(quick: bool, repeats: int) -> dict[str, Any]:
    """All figures; `quick`: only the cases with a bar and their neighbours, and threads."""
    repeats = min(repeats, 5) if quick else repeats
    least = INSTRUCTIONS / multiply_adds()
    say(f"splats: the least for a pair, both ways: {least:.2f} ns")
    sizes, counts = ((128, 256), (5_000, 20_000)) if quick else (SIZES, COUNTS)
    cases = [compared(Case.of(size, count), repeats, least) for size in sizes for count in counts]
    discs = [surfels(Case.of(size, 20_000), repeats) for size in (128, 256)]
    wishes = options(Case.of(128, 20_000), repeats)
    cameras = several_cameras(repeats)
    threads = [second_thread(Case.of(*each), repeats) for each in ON_TWO_THREADS]
    told = {"least_ns": least, "cases": cases, "surfels": discs, "options": wishes}
    return told | {"eight_cameras": cameras, "threads": threads, "waiting": os.environ["OMP_WAIT_POLICY"]}


def told(data: dict[str, Any]) -> list[str]:
    """The section of the page."""
    lines = [
        "Forward and backward, all gradients; torch is a sparse twin written for the comparison "
        "(`benchmarks/renderers/sparse_splats.py`), which draws only the pairs of a splat and a pixel that show. What "
        "the least is that a pair could cost, and how it was counted, stands at the top of "
        "`benchmarks/renderers/splats/config.py`.",
        "",
        "Torch is called before the rounds until two calls in a row differ by less than 5 %, or six times. Its time is "
        "that of large tensors, one number for each pair, and so of how the system hands out memory, which is left as "
        "it comes: from one run to the next it varies by 30 %.",
        "",
        "| picture, splats | forward | both ways | ns per pair | of the least | torch both ways | torch / ours | bar |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in data["cases"]:
        theirs = (
            [f"{row['torch_both_ms'] / 1e3:.2g} s", f"{row['torch_ratio']:.0f}"] if "torch_ratio" in row else ["", ""]
        )
        ours = [f"{row['forward_ms']:.1f} ms", f"{row['both_ms']:.1f} ms", f"{row['ns_per_pair']:.1f}"]
        cells = [
            f"{row['pixels']} px, {row['splats']:,}",
            *ours,
            f"{row['of_the_least']:.1f}",
            *theirs,
            str(row["bar"] or ""),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    discs = data.get("surfels", [])
    if discs:
        lines += ["", "| surfels (flat discs) | forward | both ways | ns per pair |", "|---|---|---|---|"]
    for row in discs:
        times = f"{row['forward_ms']:.1f} ms | {row['both_ms']:.1f} ms | {row['ns_per_pair']:.1f}"
        lines.append(f"| {row['pixels']} px, {row['splats']:,} | {times} |")
    wishes = ", ".join(f"{name} {100 * (times - 1):.0f} %" for name, times in data["options"].items())
    lines += [
        "",
        f"What else can be drawn takes longer by: {wishes}. Eight cameras of 64 pixels in eight calls take "
        f"{data['eight_cameras']['apart']:.2f} times as long as in one, on one thread.",
    ]
    lines += told_of_threads(data["threads"])
    lines += [
        "",
        f"Measured with `OMP_WAIT_POLICY={data['waiting']}`. A thread that waits actively, as OpenMP has it for a "
        "while by itself, is there at once; one that sleeps between the parts of a pass has to be woken: with "
        "`passive`, three runs on one day gave 1.07, 1.53 and 1.66 for 20,000 splats at 256 px.",
    ]
    return lines
