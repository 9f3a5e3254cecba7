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

from app.jobs.job import LimitReached
from app.jobs.progress import read_json
from configs.registry import objective_name, scene_name
from configs.run import RunConfig
from configs.serialization import read_fields
from sds3d.console import approximate_duration
from sds3d.runs.provenance import versions

MAX_RUNS = 100
"""Runs that are looked at, the newest first."""
TIMEOUT_S = 180.0
"""Seconds that a measurement may take."""
MIN_STEPS, MAX_STEPS = 50, 20_000
"""Steps that a time budget may become."""
_EXPORT_S = 15.0
"""Seconds for the mesh and its pictures, where they were never measured."""
_STARTUP_S = 4.0
"""Seconds to start Python and open the embedded prior."""
_lock = threading.Lock()


@dataclass(frozen=True)
class Estimate:
    """What a step and all around the steps take."""

    step_s: float
    """Seconds."""
    overhead_s: float
    """Seconds before and after the steps."""
    source: str
    """Where that is known from, in words."""

    def describe(self, steps: int) -> str:
        """As words."""
        duration = approximate_duration(self.overhead_s + steps * self.step_s)
        return f"About {duration} for {steps:,} steps at {1000 * self.step_s:.0f} ms, from {self.source}."

    def steps_within(self, minutes: float) -> int:
        """Steps that fit in a time budget."""
        return max(MIN_STEPS, min(MAX_STEPS, int((60 * minutes - self.overhead_s) / self.step_s)))


def from_history(config: RunConfig, folders: Sequence[Path]) -> Estimate | None:
    """From finished runs with the same prior, objective, kind of scene and views; None where there are none."""
    kind = (
        config.prior,
        objective_name(config.objective),
        scene_name(config.scene),
        config.batch_size,
        config.particles,
    )
    machine = versions()
    found: list[tuple[float, float]] = []
    for folder in folders[:MAX_RUNS]:
        report = read_json(folder / "report.json")
        same = all(report.get("versions", {}).get(key) == machine.get(key) for key in ("machine", "kernels"))
        if not (same and _cost_key(folder) == kind):
            continue
        seconds, steps = report.get("seconds"), report.get("steps")
        if not isinstance(seconds, dict) or not isinstance(steps, int) or steps < 20:
            continue
        step_seconds = float(seconds.get("optimisation", 0.0))
        found.append((step_seconds / steps, sum(map(float, seconds.values())) - step_seconds))
    if not found:
        return None
    runs = "1 run like it" if len(found) == 1 else f"{len(found)} runs like it"
    step, overhead = (statistics.median(column) for column in zip(*found, strict=True))
    return Estimate(step, overhead + _STARTUP_S, f"{runs} on this machine")


def measure_run(args: Sequence[str]) -> Estimate:
    """From a few steps of the run itself, taken in a process of their own.

    Raises:
        Full: another measurement goes on.
        ValueError: in one line, why there is no such run.
    """
    if not _lock.acquire(blocking=False):
        raise LimitReached("another measurement goes on; try again in a moment")
    try:
        command = [sys.executable, "-m", "sds3d", "plan", *args, "--json"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"five steps took more than {TIMEOUT_S:.0f} s; this run is too much for this machine"
        ) from None
    finally:
        _lock.release()
    for line in result.stdout.splitlines():
        row = json.loads(line) if line.startswith("{") else {}
        if "step_seconds" in row:
            return Estimate(float(row["step_seconds"]), _EXPORT_S + _STARTUP_S, "four steps, measured just now")
    reason = (result.stderr.strip().splitlines() or ["the measurement gave nothing"])[-1]
    raise ValueError(reason.removeprefix("sds3d: ")[:400])


def _cost_key(folder: Path) -> tuple[object, ...] | None:
    """What decides how long a step of a run takes, as far as that is easily told."""
    row = read_fields(folder / "run.yaml", ("prior", "objective", "scene", "batch_size", "particles"))
    try:
        kind = (row["prior"], row["objective"]["kind"], row.get("scene", {}).get("kind", "splats"))
    except (KeyError, TypeError, AttributeError):
        return None
    return (*kind, row.get("batch_size"), row.get("particles", 1))
