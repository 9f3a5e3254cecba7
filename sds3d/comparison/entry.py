"""One run of a comparison: an objective and a seed with so much time, so many steps or answers of the prior."""

from __future__ import annotations

import copy
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from configs import serialization
from configs.run import RunConfig
from guidance.priors.base import Condition, Prior
from sds3d.atomic_files import write_bytes
from sds3d.comparison.sheet import write_front, write_views
from sds3d.console import Console, format_duration
from sds3d.evaluation.image_metrics import contrast, render_views, saturation, sharpness
from sds3d.evaluation.scene_evaluation import evaluate_scene
from sds3d.export.turntable import write_turntable
from sds3d.runs.provenance import provenance
from sds3d.runs.run_directory import RunDirectory
from sds3d.training.loop import StopSignal, device_of, load_source
from sds3d.training.previews import unless_it_fails
from sds3d.training.trainer import Trainer, TrainingFailed

Unit = Literal["minutes", "steps", "answers"]
RESULT = "result.json"
"""The file that marks a run as finished; it is written last."""
BEHIND = (0.92, 0.92, 0.93)
"""Colour behind the films."""
FRAMES = 120
"""Pictures in a film of one turn."""
_MOST_STEPS = 1_000_000


@dataclass(frozen=True)
class Budget:
    """What every run may spend."""

    unit: Unit
    """`minutes` of wall-clock, `steps`, or `answers` of the prior: conditions times pictures."""
    amount: float

    def __post_init__(self) -> None:
        if not 0 < self.amount < float("inf"):
            raise ValueError(f"{self.unit} is {self.amount}; expected a number above 0")

    def told(self) -> str:
        """As words, such as `2 minutes`."""
        return f"{self.amount:g} {self.unit if self.amount != 1 else self.unit[:-1]}"

    def share(self, spent: Usage) -> float:
        """How much of it is spent; 1 is all."""
        match self.unit:
            case "minutes":
                return spent.seconds / (60 * self.amount)
            case "steps":
                return spent.steps / self.amount
            case "answers":
                return spent.prior_calls / self.amount

    def last_step(self, spent: Usage) -> int:
        """The step that is going to be the last, if the rest goes as what is behind: a run's progress follows it."""
        if self.unit == "steps":
            return max(1, round(self.amount))
        guess = spent.steps / max(self.share(spent), 1e-9)
        return min(max(round(guess), spent.steps + 1), _MOST_STEPS)


@dataclass
class Usage:
    """What a run has used up so far."""

    began: float = field(default_factory=lambda: time.monotonic())
    seconds: float = 0.0
    """Of optimisation, with all that comes before the first step, such as the making of a critic."""
    steps: int = 0
    prior_calls: int = 0
    """Of the prior: conditions times pictures. A critic's own answers are not counted."""


@dataclass(frozen=True)
class Entry:
    """One run of a comparison."""

    objective: str
    """The name it goes by."""
    config: RunConfig

    @property
    def seed(self) -> int:
        return self.config.seed

    @property
    def told(self) -> str:
        return f"{self.objective}, seed {self.seed}"

    def folder(self, runs: Path) -> Path:
        """Its folder among those of all runs."""
        safe = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in self.objective)
        return runs / f"{safe}-seed-{self.seed}"

    def asked(self) -> str:
        """All that decides what comes out, as text: a run that was finished with the same is not done again."""
        return serialization.to_yaml(replace(self.config, steps=1))


def count_calls(prior: Prior, spent: Usage) -> Prior:
    """The same prior, but its answers are counted; the one given is left as it is."""
    watched = copy.copy(prior)

    def predict_noise(
        x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], conditions: list[Condition]
    ) -> Float[Tensor, "K B C h w"]:
        spent.prior_calls += len(conditions) * len(x_t)
        return prior.predict_noise(x_t, t, conditions)

    object.__setattr__(watched, "predict_noise", predict_noise)
    return watched


def finished(entry: Entry, runs: Path) -> dict[str, Any] | None:
    """The numbers of a run that is done, or None if it was never finished or something else was asked then."""
    try:
        row: dict[str, Any] = json.loads((entry.folder(runs) / RESULT).read_text(encoding="utf-8"))
        return row if row["asked"] == entry.asked() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def run_entry(
    entry: Entry, prior: Prior, budget: Budget, runs: Path, console: Console, stop: StopSignal
) -> dict[str, Any] | None:
    """Does one run and writes its folder; returns its numbers, or None if it was stopped, which leaves nothing.

    A scene that goes wrong beyond repair is a result too: `trouble` says how, and what came before is measured.

    Raises:
        ValueError, ImportError: the objective can not be run like this.
        OSError: the disk refuses.
    """
    spent = Usage()
    config = entry.config
    run = Trainer(config, count_calls(prior, spent), device_of(config), load_source(config, console))
    trouble = None
    try:
        if not _spend(run, budget, spent, stop, lambda: _tell(entry, budget, spent, console)):
            return None
    except TrainingFailed as error:
        trouble = str(error)
    return _written(entry, run, spent, trouble, runs)


def _spend(run: Trainer, budget: Budget, spent: Usage, stop: StopSignal, tell: Callable[[], None]) -> bool:
    """Runs until the budget is spent; False if it was stopped before. Raises Unhealthy."""
    try:
        with stop.interrupt_immediately():
            run.prepare()
    except KeyboardInterrupt:
        stop.requested = True
        return False
    run.config = replace(run.config, steps=budget.last_step(spent))
    for step in run.steps():
        spent.steps, spent.seconds = step.number, time.monotonic() - spent.began
        tell()
        if budget.share(spent) >= 1:
            break
        if stop.requested:
            return False
        run.config = replace(run.config, steps=budget.last_step(spent))
    return True


def _tell(entry: Entry, budget: Budget, spent: Usage, console: Console) -> None:
    share = min(1.0, budget.share(spent))
    left = spent.seconds * (1 - share) / share
    pace = spent.seconds / spent.steps
    console.progress(
        f"{entry.told}: step {spent.steps}, {100 * share:.0f} % of {budget.told()}, {format_duration(left)} left, "
        f"{1000 * pace:.0f} ms/step",
        {
            "objective": entry.objective,
            "seed": entry.seed,
            "step": spent.steps,
            "share": round(share, 4),
            "left_seconds": round(left, 1),
        },
    )


@torch.no_grad()
def _written(entry: Entry, run: Trainer, spent: Usage, trouble: str | None, runs: Path) -> dict[str, Any]:
    """The folder of a finished run: what `sds3d export` and the page need, and its numbers, which are returned."""
    folder = entry.folder(runs)
    if folder.exists():
        shutil.rmtree(folder)
    done = max(1, run.step)
    record = RunDirectory.new(folder, replace(entry.config, steps=done))
    row: dict[str, Any] = {
        "objective": entry.objective,
        "seed": entry.seed,
        "prompt": entry.config.prompt,
        "trouble": trouble,
        "steps": run.step,
        "seconds": round(spent.seconds, 2),
        "seconds_per_step": round(spent.seconds / done, 5),
        "answers": spent.prior_calls,
        "answers_per_step": round(spent.prior_calls / done, 3),
        "size": run.scene.describe(),
        **_marks(run, folder, trouble),
        "folder": f"{runs.name}/{folder.name}",
        "asked": entry.asked(),
    }
    record.checkpoint(run.step, run.training_state())
    write_bytes(folder / RESULT, (json.dumps(row, indent=1) + "\n").encode())
    return row


def _marks(run: Trainer, folder: Path, trouble: str | None) -> dict[str, Any]:
    """What is measured of the scene, and its pictures in the folder; None for all where it went wrong."""
    if trouble is not None:
        return {"judge": None, "saturation": None, "contrast": None, "sharpness": None}
    views = render_views(run.scene)
    write_views(folder, views)
    write_front(folder, run.scene, BEHIND)
    write_turntable(folder / "turntable.mp4", run.scene, FRAMES, background=BEHIND, facts=provenance(run.result))
    return {
        "judge": unless_it_fails("verdict", lambda: evaluate_scene(run.scene, run.config.prompt), Console("quiet")),
        "saturation": round(saturation(views), 5),
        "contrast": round(contrast(views), 5),
        "sharpness": round(sharpness(views), 5),
    }
