"""How long splats take to draw, and to draw and go back, beside the same in plain torch.

    python benchmarks/renderers_splats.py [--quick] [--repeats 9]

The scene: a ball of splats of random shape, each about half as wide as they lie apart, seen by one camera; all of its
gradients are asked for. Kernels and torch take turns in one process on one thread; printed are medians of its processor
time and medians of the ratios within a round, which other work on the machine hardly changes. Torch, written for this
comparison (`sparse_splats.py`), draws only the pairs of a splat and a pixel that show. A pair that shows is also what
the nanoseconds are divided by.

The least that a pair could cost: counted by hand, a register of pixels takes 29 instructions one way (5 for the place,
8 for the exponent and for alpha, 10 for the power of two, 6 for what is let through) with colour and depth, and 55 on
the way back, which works out alpha again. If each cost no more than a multiply-add, no lane were idle, and lists,
projection and memory were free, a pair would take 84 / R ns, where R is how many multiply-adds of single floats this
core does in a nanosecond; a matrix product says that. Where it uses registers of sixteen floats, half of the distance
to this bound is that the kernels use eight.

The second thread is measured by the clock on the wall: only an idle machine shows it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from sparse_splats import draw, live_pairs
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


def compared(case: Case, repeats: int, least: float) -> None:
    """One line: kernels, torch, and the ratio."""
    pairs = case.pairs()
    with_torch = pairs <= TORCH_UP_TO or (case.size, case.count) in BARS
    case.timed(case.kernels, time.process_time)
    ours, theirs = [], []
    for _ in range(repeats if pairs <= TORCH_UP_TO else max(1, repeats // 3)):
        # A call of ours is short: the median of some that follow each other.
        some = [case.timed(case.kernels, time.process_time) for _ in range(5)]
        ours.append(tuple(statistics.median(column) for column in zip(*some, strict=True)))
        if with_torch:
            theirs.append(case.timed(case.torch, time.process_time))
    forward, both = (statistics.median(column) for column in zip(*ours, strict=True))
    line = f"{case.size:>4} px {case.count:>7}  {forward:7.2f} {both:7.2f} ms"
    line += f"  {1e6 * forward / pairs:6.2f} {1e6 * both / pairs:6.2f} ns/pair"
    line += f"  {1e6 * both / pairs / least:4.1f} x the least"
    if theirs:
        ratios = [statistics.median(t[k] / o[k] for t, o in zip(theirs, ours, strict=True)) for k in (0, 1)]
        line += f"  torch {statistics.median(t[1] for t in theirs):7.0f} ms  {ratios[0]:5.0f} {ratios[1]:5.0f} times"
        bar = BARS.get((case.size, case.count))
        line += f"  (bar {bar}: {'met' if ratios[1] >= bar else 'missed'})" if bar else ""
    say(line)


def options(case: Case, repeats: int) -> None:
    """What the wishes add."""
    wishes = {
        "plain": Wish(),
        "antialiased": Wish(antialiased=True),
        "normals": Wish(normals=True),
        "sizes of gradients": Wish(absolute=True),
        "all": Wish(True, True, True),
    }
    rounds = [
        {name: case.timed(lambda wish=wish: plain(case, wish), time.process_time)[1] for name, wish in wishes.items()}
        for _ in range(3 * repeats)
    ]
    for name in wishes:
        ratio = statistics.median(each[name] / each["plain"] for each in rounds)
        say(f"    {name:<20} {statistics.median(each[name] for each in rounds):7.2f} ms {ratio:5.2f}")


def plain(case: Case, wish: Wish) -> tuple[Tensor, Tensor]:
    """A wish's normals are drawn and get a gradient of their own, by the sum with the colour."""
    colour, alpha = case.kernels(wish)
    if colour.shape[-1] > 4:
        colour = torch.cat([colour[..., :3] + colour[..., 4:], colour[..., 3:4]], -1)
    return colour, alpha


def second_thread(repeats: int) -> None:
    say("both ways by the clock on the wall: one thread, two, gain")
    for size, count, views in ((256, 20_000, 1), (128, 20_000, 1), (512, 100_000, 1), (64, 5_000, 8)):
        case = Case.of(size, count, views)
        found: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(3 * repeats):
            for threads, times in found.items():
                torch.set_num_threads(threads)
                times.append(case.timed(case.kernels, time.perf_counter)[1])
        torch.set_num_threads(1)
        one, two = (statistics.median(times[2:]) for times in found.values())
        gain = statistics.median(a / b for a, b in zip(found[1][2:], found[2][2:], strict=True))
        bar = (
            f"  (bar {SECOND_THREAD}: {'met' if gain >= SECOND_THREAD else 'missed'})"
            if (size, views) == (256, 1)
            else ""
        )
        say(f"{size:>4} px {count:>7} x {views} cameras {one:7.2f} {two:7.2f} ms  {gain:4.2f}{bar}")


def several_cameras(repeats: int) -> None:
    """Eight small pictures in one call, and in eight."""
    case = Case.of(64, 5_000, 8)
    alone = [Case(case.size, case.count, case.splats, one(case.lenses, k), case.pull[k : k + 1]) for k in range(8)]
    together, apart = [], []
    for _ in range(3 * repeats):
        together.append(case.timed(case.kernels, time.process_time)[1])
        apart.append(sum(each.timed(each.kernels, time.process_time)[1] for each in alone))
    ratio = statistics.median(a / b for a, b in zip(apart, together, strict=True))
    say(f"eight cameras, 64 px, 5000 splats: {statistics.median(together):.2f} ms; in eight calls {ratio:.2f} x")


def one(lenses: Lenses, k: int) -> Lenses:
    viewmats, intrinsics = lenses.viewmats[k : k + 1].contiguous(), lenses.intrinsics[k : k + 1].contiguous()
    return Lenses(viewmats, intrinsics, lenses.height, lenses.width)


def least_of_a_pair() -> float:
    """Nanoseconds, both ways, by the rate of a matrix product, which is all multiply-adds."""
    a, b = torch.rand(768, 768), torch.rand(768, 768)
    times = []
    for _ in range(9):
        began = time.process_time()
        a @ b
        times.append(time.process_time() - began)
    rate = 768**3 / min(times) / 1e9
    least = INSTRUCTIONS / rate
    say(f"multiply-adds of one core: {rate:.0f} per ns; the least for a pair, both ways: {least:.2f} ns")
    return least


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only the cases with a bar, their neighbours, and threads")
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    repeats = min(given.repeats, 5) if given.quick else given.repeats
    torch.set_num_threads(1)
    least = least_of_a_pair()
    say("forward, and both ways; the same per pair that shows; torch both ways; times as long, forward and both ways")
    sizes, counts = ((128, 256), (5_000, 20_000)) if given.quick else (SIZES, COUNTS)
    for size in sizes:
        for count in counts:
            compared(Case.of(size, count), repeats, least)
    say("what else can be drawn, both ways, 128 px, 20000 splats")
    options(Case.of(128, 20_000), repeats)
    several_cameras(repeats)
    second_thread(repeats)


if __name__ == "__main__":
    main()
