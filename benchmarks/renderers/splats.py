"""Splats, forward and back, beside the same in plain torch.

The scene: a ball of splats of random shape, each about half as wide as they lie apart, seen by one camera; all of its
gradients are asked for. Torch, written for this comparison (`sparse_splats.py`), draws only the pairs of a splat and a
pixel that show. A pair that shows is also what the nanoseconds are divided by.

The least that a pair could cost: counted by hand, a register of pixels takes 29 instructions one way (5 for the place,
8 for the exponent and for alpha, 10 for the power of two, 6 for what is let through) with colour and depth, and 55 on
the way back, which works out alpha again. If each cost no more than a multiply-add, no lane were idle, and lists,
projection and memory were free, a pair would take 84 / R ns, where R is how many multiply-adds of single floats this
core does in a nanosecond; a matrix product says that. Where it uses registers of sixteen floats, half of the distance
to this bound is that the kernels use eight.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from sparse_splats import draw, live_pairs
from timing import multiply_adds, on_two_threads, ratio, rounds, say, told_of_threads
from torch import Tensor
from torch.nn import functional

from renderers import splat_kernels
from renderers.cameras import looking_at_origin
from renderers.gaussians import Gaussians, Lenses, Wish
from renderers.splat_reference import project

SIZES = (64, 128, 256, 512)
COUNTS = (1_000, 5_000, 20_000, 100_000)
TORCH_UP_TO = 2_000_000
"""Pairs above which torch is left out: it takes half a minute and gigabytes."""
BARS = {(128, 20_000): 90, (256, 20_000): 300}
"""Pixels along a side and splats: how many times longer torch has to take for both ways."""
SECOND_THREAD = 1.7
ON_TWO_THREADS = ((256, 20_000, 1), (128, 20_000, 1), (512, 100_000, 1), (64, 5_000, 8))
"""Pixels along a side, splats, cameras."""
INSTRUCTIONS = 84
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
    lenses: Lenses
    pull: Tensor

    @classmethod
    def of(cls, size: int, count: int, views: int = 1) -> Case:
        splats = ball(count)
        turns = torch.arange(views) * 2.4
        cameras = looking_at_origin(0.3 + turns, torch.full((views,), 0.2), size, 2.5, 0.87)
        pull = torch.randn(views, size, size, 5, generator=torch.Generator().manual_seed(1))
        return cls(size, count, splats, Lenses.of(cameras, splats.means), pull)

    def pairs(self) -> int:
        """Pairs of a splat and a pixel that show."""
        with torch.no_grad():
            return len(live_pairs(self.splats.opacities, project(self.splats, self.lenses), self.lenses)[0])

    def kernels(self, wish: Wish | None = None) -> tuple[Tensor, Tensor]:
        return splat_kernels.draw(self.splats, self.lenses, wish or Wish())[:2]

    def torch(self) -> tuple[Tensor, Tensor]:
        return draw(self.splats, self.lenses)

    def timed(self, way: Callable[[], tuple[Tensor, Tensor]], clock: Callable[[], float]) -> tuple[float, float]:
        """Milliseconds forward, and forward and back."""
        for leaf in vars(self.splats).values():
            leaf.grad = None
        began = clock()
        colour, alpha = way()
        drawn = clock()
        pull = self.pull.view(*colour.shape[:-1], 5)
        torch.autograd.backward([colour[..., :4], alpha], [pull[..., :4].contiguous(), pull[..., 4:].contiguous()])
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


def options(case: Case, repeats: int) -> dict[str, float]:
    """How many times as long both ways take with what else can be drawn."""
    wishes = {
        "antialiasing": Wish(antialiased=True),
        "normals": Wish(normals=True),
        "sizes of gradients": Wish(absolute=True),
        "all three": Wish(True, True, True),
        "plain": Wish(),
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


def plain(case: Case, wish: Wish) -> tuple[Tensor, Tensor]:
    """A wish's normals are drawn and get a gradient of their own, by the sum with the colour."""
    colour, alpha = case.kernels(wish)
    if colour.shape[-1] > 4:
        colour = torch.cat([colour[..., :3] + colour[..., 4:], colour[..., 3:4]], -1)
    return colour, alpha


def second_thread(case: Case, repeats: int) -> dict[str, Any]:
    views = f", {len(case.pull)} cameras" if len(case.pull) > 1 else ""
    name = f"{case.size} px, {case.count:,} splats{views}"
    row = on_two_threads(name, lambda: case.timed(case.kernels, time.perf_counter), 3 * repeats)
    return {**row, "bar": SECOND_THREAD if case.size == 256 else None}


def several_cameras(repeats: int) -> dict[str, float]:
    """Eight small pictures in one call, and in eight."""
    case = Case.of(64, 5_000, 8)
    alone = [Case(case.size, case.count, case.splats, one(case.lenses, k), case.pull[k : k + 1]) for k in range(8)]
    ways = {
        "together": lambda: case.timed(case.kernels, time.process_time)[1],
        "apart": lambda: sum(each.timed(each.kernels, time.process_time)[1] for each in alone),
    }
    found = rounds(ways, 3 * repeats)
    told = {"together_ms": statistics.median(found["together"]), "apart": ratio(found["apart"], found["together"])}
    say(f"eight cameras, 64 px, 5000 splats: {told['together_ms']:.2f} ms; in eight calls {told['apart']:.2f} x")
    return told


def one(lenses: Lenses, k: int) -> Lenses:
    viewmats, intrinsics = lenses.viewmats[k : k + 1].contiguous(), lenses.intrinsics[k : k + 1].contiguous()
    return Lenses(viewmats, intrinsics, lenses.height, lenses.width)


def measured(quick: bool, repeats: int) -> dict[str, Any]:
    """All figures; `quick`: only the cases with a bar and their neighbours, and threads."""
    repeats = min(repeats, 5) if quick else repeats
    least = INSTRUCTIONS / multiply_adds()
    say(f"splats: the least for a pair, both ways: {least:.2f} ns")
    sizes, counts = ((128, 256), (5_000, 20_000)) if quick else (SIZES, COUNTS)
    cases = [compared(Case.of(size, count), repeats, least) for size in sizes for count in counts]
    wishes = options(Case.of(128, 20_000), repeats)
    cameras = several_cameras(repeats)
    threads = [second_thread(Case.of(*each), repeats) for each in ON_TWO_THREADS]
    return {"least_ns": least, "cases": cases, "options": wishes, "eight_cameras": cameras, "threads": threads}


def told(data: dict[str, Any]) -> list[str]:
    """The section of the page."""
    lines = [
        "Forward and backward, all gradients; torch is a sparse twin written for the comparison "
        "(`benchmarks/renderers/sparse_splats.py`), which draws only the pairs of a splat and a pixel that show. What "
        "the least is that a pair could cost, and how it was counted, stands at the top of "
        "`benchmarks/renderers/splats.py`.",
        "",
        "Torch's time is that of large tensors, one number for each pair, and so of how the system hands out memory: "
        "on one day five runs gave 70 to 95 times for 20,000 splats at 128 px and six 243 to 319 at 256 px, so that "
        "the bars are met in some and missed in others; where the allocator was told to keep all memory "
        "(`MALLOC_MMAP_THRESHOLD_`, `MALLOC_TRIM_THRESHOLD_`), 62 and 110. Ours stayed within 7 %, or 10 % there.",
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
    wishes = ", ".join(f"{name} {100 * (times - 1):.0f} %" for name, times in data["options"].items())
    lines += [
        "",
        f"What else can be drawn takes longer by: {wishes}. Eight cameras of 64 pixels in eight calls take "
        f"{data['eight_cameras']['apart']:.2f} times as long as in one, on one thread.",
    ]
    lines += told_of_threads(data["threads"])
    return lines
