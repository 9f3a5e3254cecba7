"""From a prompt, or a run that was stopped, to a folder with the finished asset."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor

from configs.registry import scene_name
from configs.run import RunConfig
from guidance.priors.base import Prior
from sds3d.console import Console, EtaEstimator, format_duration, memory_mb
from sds3d.mesh_import.load import LoadedMesh, load_mesh
from sds3d.runs.result import Result
from sds3d.runs.run_directory import RunDirectory
from sds3d.training.device_usage import gpu_memory_mb
from sds3d.training.previews import Previewer, unless_it_fails
from sds3d.training.trainer import StepResult, Trainer

CHECKPOINT_SECONDS = 60.0
"""Time between two checkpoints, at least."""
FIRST_CHECKPOINT_SECONDS = 10.0
"""Time until the first."""


@dataclass
class StopSignal:
    """Set by the first Ctrl-C; the second ends the program as usual."""

    requested: bool = False
    _now: bool = False

    @contextmanager
    def interrupt_immediately(self) -> Iterator[None]:
        """Inside, the first Ctrl-C ends the program too: for what takes long and leaves nothing that could be kept.
        Raises KeyboardInterrupt."""
        self._now = True
        try:
            if self.requested:
                raise KeyboardInterrupt
            yield
        finally:
            self._now = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """What a signal does."""
        leaving, self.requested = self.requested or self._now, True
        if leaving:
            raise KeyboardInterrupt


@contextmanager
def handle_signals(stop: StopSignal) -> Iterator[None]:
    """Has `stop` hear interrupts and requests to terminate."""
    before = {number: signal.signal(number, stop.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def device_of(config: RunConfig) -> torch.device:
    """The device a run asks for. Raises ValueError where CUDA is asked for and there is none."""
    if config.device.startswith("cuda"):
        name, number = config.device, int(config.device.partition(":")[2] or 0)
        if not torch.cuda.is_available():
            raise ValueError(
                f"device is {name}, but torch sees no CUDA device here; use --device cpu or see: sds3d doctor"
            )
        if number >= (count := torch.cuda.device_count()):
            raise ValueError(f"device is {name}, but there are {count} here, the first of which is cuda:0")
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(config.device)


def train(run: Trainer, record: RunDirectory, console: Console, stop: StopSignal) -> float:
    """Runs until the last step or until `stop`; returns the seconds it took. Leaves a checkpoint in any case.

    Raises:
        Unhealthy: the scene went wrong; the last checkpoint is from before.
        ValueError: the memory ran out, and smaller parts of a step did not help.
        KeyboardInterrupt: it was stopped before its first step.
    """
    pace, began, preview = EtaEstimator(run.config.steps), time.monotonic(), ""
    saved = began - CHECKPOINT_SECONDS + FIRST_CHECKPOINT_SECONDS
    watch, fronts = Previewer.for_run(run), None
    run.make_kernels_ready(console.log)
    try:
        if not run.guidance.ready:
            _prepare(run, record, console, stop)
        for step in run.steps():
            pace.update(step.seconds)
            if watch.is_due(step.number):
                preview = _preview(step, watch, record, console)
            counted = _counted(step, watch, console)
            fronts = fronts if counted is None else counted
            _report_step(step, run, record, console, pace, preview, fronts)
            if step.warnings:
                console.log("; ".join(step.warnings))
                _save(run, record, console)
            if stop.requested:
                break
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                _save(run, record, console)
                saved = time.monotonic()
    except torch.OutOfMemoryError:
        if run.guidance.ready:
            _save(run, record, console)
        hint = f"see: sds3d plan; go on with: sds3d resume {record.folder}"
        raise ValueError(
            f"the memory of {run.device} ran out at step {run.step + 1}, picture by picture; {hint}"
        ) from None
    _save(run, record, console)
    return time.monotonic() - began


def _preview(step: StepResult, watch: Previewer, record: RunDirectory, console: Console) -> str:
    """Writes the preview of a step and returns its path; one that cannot be written is told, and the run goes on."""
    made = unless_it_fails(
        f"preview of step {step.number}", lambda: record.preview(step.number, watch.render(step)), console
    )
    return "" if made is None else str(made)


def _counted(step: StepResult, watch: Previewer, console: Console) -> int | None:
    """How many fronts there are after a step, where that is due and goes well."""
    return unless_it_fails(f"count of fronts at step {step.number}", lambda: watch.fronts(step.number), console)


def _prepare(run: Trainer, record: RunDirectory, console: Console, stop: StopSignal) -> None:
    """What comes once before the first step, and may take minutes; a run that is stopped there goes on from before it.

    Raises KeyboardInterrupt where it is.
    """
    _save(run, record, console)
    try:
        with stop.interrupt_immediately():
            run.prepare()
    except KeyboardInterrupt:
        console.log(f"go on with: sds3d resume {record.folder}")
        raise


def resumed(record: RunDirectory, config: RunConfig, prior: Prior, console: Console, strict: bool = False) -> Trainer:
    """The run of a folder, at its newest whole checkpoint, or at its beginning where none was written yet.

    Raises ValueError, FileNotFoundError.
    """
    if not record.started:
        console.log("there is no checkpoint yet; the run begins anew")
        return Trainer(
            config,
            prior,
            device_of(config),
            load_source(config, console, record.trust),
            load_init_mesh(config, console),
        )
    run = Trainer(config, prior, device_of(config), load_source(config, console, record.trust))
    run.load_training_state(load_latest_checkpoint(record, console, strict))
    return run


def load_source(config: RunConfig, console: Console, trust: bool = False) -> Result | None:
    """What a run starts from and edits, if anything. Raises ValueError, FileNotFoundError."""
    if not config.source_run:
        return None
    before = RunDirectory.open(Path(config.source_run), trust)
    found = Result.from_state(load_latest_checkpoint(before, console), before.config())
    if type(found.config.scene) is not type(config.scene):
        raise ValueError(
            f"{config.source_run} is a scene of another kind; give --scene {scene_name(found.config.scene)}"
        )
    return found


def load_init_mesh(config: RunConfig, console: Console) -> LoadedMesh | None:
    """The model a run starts from, if any; tells what was mended. Raises ValueError, OSError."""
    if not config.init_mesh:
        return None
    loaded = load_mesh(Path(config.init_mesh))
    for remark in loaded.warnings:
        console.log(f"{config.init_mesh}: {remark}")
    return loaded


def load_latest_checkpoint(record: RunDirectory, console: Console, strict: bool = False) -> dict[str, Tensor]:
    """The newest whole checkpoint; tells which newer ones are not.

    Raises ValueError, where `strict` for any that is damaged, and FileNotFoundError.
    """
    state, remarks = record.latest()
    if strict and remarks:
        raise ValueError(f"{', '.join(remarks)}; without --strict the checkpoint before is taken")
    for remark in remarks:
        console.log(f"{remark}; taking the one before")
    return state


def _save(run: Trainer, record: RunDirectory, console: Console) -> None:
    """A checkpoint in passing: a full disk is told, but does not end the run."""
    try:
        record.checkpoint(run.step, run.training_state())
    except OSError as error:
        console.log(f"no checkpoint at step {run.step} ({error}); the one before is kept")


def _report_step(
    step: StepResult,
    run: Trainer,
    record: RunDirectory,
    console: Console,
    pace: EtaEstimator,
    preview: str,
    fronts: int | None,
) -> None:
    """The step as a line on the screen and in metrics.jsonl."""
    now, _ = memory_mb()
    on_gpu = gpu_memory_mb(run.device)
    facts: dict[str, float | int | str] = {
        "step": step.number,
        "gradient": round(step.grad_rms, 6),
        "seconds": round(step.seconds, 4),
        "prior_seconds": round(step.prior_seconds, 4),
        "scene": step.scene_summary,
        "memory_mb": round(now),
        **{name: round(value, 6) for name, value in step.logs.items()},
    }
    if on_gpu is not None:
        facts |= {"gpu_memory_mb": round(on_gpu[0]), "gpu_peak_memory_mb": round(on_gpu[1])}
    if fronts is not None:
        facts["fronts"] = fronts
    record.log(facts)
    text = (
        f"step {step.number}/{run.config.steps}  {format_duration(pace.remaining(step.number))} left  "
        f"{1000 * pace.seconds:.0f} ms/step  "
        f"gradient {step.grad_rms:.3f}  {step.scene_summary}  "
        + (f"{now:.0f} MB" if on_gpu is None else f"GPU {on_gpu[0]:.0f} MB, {on_gpu[1]:.0f} at most")
    )
    console.progress(
        f"{text}  {preview}" if preview else text, {**facts, "left_seconds": round(pace.remaining(step.number), 1)}
    )
