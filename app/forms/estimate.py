"""How long a run will take, from runs that were measured on this machine, or from a few steps of it."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.jobs.job import Full
from app.jobs.progress import document
from configs.registry import objective_name, scene_name
from configs.run import RunConfig
from configs.serialization import glance
from sds3d.console import in_words
from sds3d.runs.provenance import versions

RECENT = 100
"""Runs that are looked at, the newest first."""
LONGEST = 180.0
"""Seconds that a measurement may take."""
FEWEST, MOST = 50, 20_000
"""Steps that a time budget may become."""
_AFTER = 15.0
"""Seconds for the mesh and its pictures, where they were never measured."""
_OPENING = 4.0
"""Seconds to start Python and open the embedded prior."""
_one = threading.Lock()


@dataclass(frozen=True)
class Estimate:
    """What a step and all around the steps take."""

    step: float
    """Seconds."""
    around: float
    """Seconds before and after the steps."""
    source: str
    """Where that is known from, in words."""

    def told(self, steps: int) -> str:
        """As words."""
        whole = in_words(self.around + steps * self.step)
        return f"About {whole} for {steps:,} steps at {1000 * self.step:.0f} ms, from {self.source}."

    def within(self, minutes: float) -> int:
        """Steps that fit in a time budget."""
        return max(FEWEST, min(MOST, int((60 * minutes - self.around) / self.step)))


def kept(config: RunConfig, folders: Sequence[Path]) -> Estimate | None:
    """From finished runs with the same prior, objective, kind of scene and views; None where there are none."""
    kind = (config.prior, objective_name(config.objective), scene_name(config.scene), config.views, config.particles)
    machine = versions()
    found: list[tuple[float, float]] = []
    for folder in folders[:RECENT]:
        report = document(folder / "report.json")
        same = all(report.get("versions", {}).get(key) == machine.get(key) for key in ("machine", "kernels"))
        if not (same and _kind(folder) == kind):
            continue
        seconds, steps = report.get("seconds"), report.get("steps")
        if not isinstance(seconds, dict) or not isinstance(steps, int) or steps < 20:
            continue
        spent = float(seconds.get("optimisation", 0.0))
        found.append((spent / steps, sum(map(float, seconds.values())) - spent))
    if not found:
        return None
    runs = "1 run like it" if len(found) == 1 else f"{len(found)} runs like it"
    step, after = (statistics.median(column) for column in zip(*found, strict=True))
    return Estimate(step, after + _OPENING, f"{runs} on this machine")


def measured(words: Sequence[str]) -> Estimate:
    """From a few steps of the run itself, taken in a process of their own.

    Raises:
        Full: another measurement goes on.
        ValueError: in one line, why there is no such run.
    """
    if not _one.acquire(blocking=False):
        raise Full("another measurement goes on; try again in a moment")
    try:
        command = [sys.executable, "-m", "sds3d", "plan", *words, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(f"five steps took more than {LONGEST:.0f} s; this run is too much for this machine") from None
    finally:
        _one.release()
    for line in done.stdout.splitlines():
        row = json.loads(line) if line.startswith("{") else {}
        if "step_seconds" in row:
            return Estimate(float(row["step_seconds"]), _AFTER + _OPENING, "four steps, measured just now")
    reason = (done.stderr.strip().splitlines() or ["the measurement gave nothing"])[-1]
    raise ValueError(reason.removeprefix("sds3d: ")[:400])


def _kind(folder: Path) -> tuple[object, ...] | None:
    """What decides how long a step of a run takes, as far as that is easily told."""
    row = glance(folder / "run.yaml", ("prior", "objective", "scene", "views", "particles"))
    try:
        kind = (row["prior"], row["objective"]["kind"], row.get("scene", {}).get("kind", "splats"))
    except (KeyError, TypeError, AttributeError):
        return None
    return (*kind, row.get("views"), row.get("particles", 1))
