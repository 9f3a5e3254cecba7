"""How everything here is timed: ways take turns in one process, and ratios are taken within a round.

Other work on the machine slows the ways of a round alike and hardly changes their ratios. Where nothing else is said,
milliseconds are of this process's processor time, on one thread.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


def rounds(ways: dict[str, Callable[[], Result]], repeats: int, left_out: int = 1) -> dict[str, list[Result]]:
    """What each way says in each round; the first rounds, in which memory is got, are left out."""
    found: dict[str, list[Result]] = {name: [] for name in ways}
    for _ in range(left_out + repeats):
        for name, way in ways.items():
            found[name].append(way())
    return {name: results[left_out:] for name, results in found.items()}


def settle(way: Callable[[], float], close: float = 0.05, most: int = 6) -> None:
    """Calls it until two times in a row differ by less than the share `close`, `most` times at most."""
    last = way()
    for _ in range(most - 1):
        before, last = last, way()
        if abs(last - before) < close * before:
            return


def timed(work: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """Milliseconds."""
    began = clock()
    work()
    return 1e3 * (clock() - began)


def on_two_threads(name: str, work: Callable[[], object], repeats: int) -> dict[str, Any]:
    """What a second thread brings, by the clock on the wall: only an idle machine shows it."""

    def way(threads: int) -> float:
        torch.set_num_threads(threads)
        return timed(work, time.perf_counter)

    found = rounds({"one": lambda: way(1), "two": lambda: way(2)}, repeats, 2)
    torch.set_num_threads(1)
    gain = ratio(found["one"], found["two"])
    say(f"    a second thread brings {gain:4.2f}: {name}")
    return {"what": name, **{f"{one}_ms": statistics.median(times) for one, times in found.items()}, "gain": gain}


def told_of_threads(rows: list[dict[str, Any]]) -> list[str]:
    """Their table on the page."""
    lines = ["", "| a second thread | times as fast | bar |", "|---|---|---|"]
    return lines + [f"| {row['what']} | {row['gain']:.2f} | {row.get('bar') or ''} |" for row in rows]


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """How many times longer they take: the median over the rounds."""
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def multiply_adds() -> float:
    """How many one core does in a nanosecond, in float32, by a matrix product, which is nothing else."""
    a, b = torch.rand(768, 768), torch.rand(768, 768)
    return 768**3 / 1e6 / min(timed(lambda: a @ b) for _ in range(9))


def bytes_copied(size: int) -> float:
    """Bytes read and bytes written in a nanosecond where `size` bytes are copied over and over."""
    a, b = torch.rand(size // 4), torch.rand(size // 4)
    times = 200
    return 2 * size * times / 1e6 / min(timed(lambda: [b.copy_(a) for _ in range(times)]) for _ in range(9))


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
