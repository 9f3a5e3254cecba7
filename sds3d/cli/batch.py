"""`sds3d batch FILE`: an asset for every line of a file, several at once, which share the passes of the network."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from configs.run import RunConfig
from guidance.priors.base import Prior
from sds3d.cli import arguments as flags
from sds3d.cli.arguments import parser
from sds3d.console import Console
from sds3d.models.loading import load_prior
from sds3d.runs.run_directory import RunDirectory
from sds3d.training.batched_prior import BatchedPrior, PriorBatcher
from sds3d.training.finalize import finalize
from sds3d.training.guidance_models import check_requirements, needs_critic
from sds3d.training.loop import StopSignal, device_of, handle_signals, train
from sds3d.training.trainer import Trainer

AT_ONCE = 4


@dataclass
class Job:
    """One of the runs, and how it went."""

    config: RunConfig
    record: RunDirectory
    seconds: float = 0.0
    run: Trainer | None = None
    trouble: Exception | None = field(default=None, repr=False)


def batch(words: list[str]) -> int:
    """Runs the command; 1 where some prompt came to nothing. Raises as `generate`."""
    p = parser("sds3d batch", "An asset for every line of a file; every flag of sds3d generate goes with it.")
    p.add_argument("file", type=Path, metavar="FILE", help="prompts, one a line")
    p.add_argument("--at-once", type=int, default=AT_ONCE, metavar="N", help=f"runs at once (default: {AT_ONCE})")
    p.add_argument("--out", type=Path, default=Path("runs/batch"), metavar="FOLDER", help="has a folder for each run")
    given, rest = p.parse_known_args(words)
    if given.at_once < 1:
        raise ValueError(f"at-once is {given.at_once}; expected 1 or more runs")
    prompts = prompts_of(given.file)
    asked = flags.generate([prompts[0], *rest])
    config, console = asked.config, asked.console
    if needs_critic(config):
        raise ValueError("an objective with a critic makes one asset at a time; use: sds3d generate")
    prior = load_prior(config.prior, device_of(config), config.prior_options)
    check_requirements(config, prior)
    runs = [replace(config, prompt=prompt) for prompt in prompts]
    for number, run in enumerate(runs, 1):  # What cannot be read is refused before the first step.
        try:
            run.build_prompt()
            if remark := prior.validate_prompt(run.prompt):
                console.log(f"{run.prompt}: {remark}")
            prior.encode_prompt([run.prompt])
        except ValueError as error:
            raise ValueError(f"{given.file}, prompt {number}: {error}") from None
    jobs = [Job(run, RunDirectory.new(given.out / f"{number:03d}", run)) for number, run in enumerate(runs, 1)]
    stop = StopSignal()
    with handle_signals(stop):
        for first in range(0, len(jobs), given.at_once):
            if not stop.requested:
                made_together(jobs[first : first + given.at_once], prior, console, stop)
    failed = [job for job in jobs if job.trouble is not None]
    for job in failed:
        console.log(f"{job.record.folder}: {job.config.prompt}: {job.trouble}")
    return 1 if failed or stop.requested else 0


def prompts_of(file: Path) -> list[str]:
    """Lines of a file that say something. Raises OSError or ValueError."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; expected a text file with a prompt on each line")
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError:
        raise ValueError(f"{file} is no text in UTF-8; expected a prompt on each line") from None
    if not (prompts := [line for line in lines if line]):
        raise ValueError(f"{file} has no prompt; expected one on each line")
    return prompts


def made_together(jobs: Sequence[Job], prior: Prior, console: Console, stop: StopSignal) -> int:
    """Makes the assets of some jobs; returns the passes of the network that it took. What goes wrong with one job is
    noted in it and leaves the others alone.
    """
    meeting = PriorBatcher(prior, len(jobs))
    console.log(f"{len(jobs)} at once: " + ", ".join(job.config.prompt for job in jobs))
    threads = [
        threading.Thread(target=_optimised, args=(job, BatchedPrior(meeting, place), meeting, stop))
        for place, job in enumerate(jobs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for job in jobs:
        if job.run is None or job.trouble is not None:
            continue
        try:
            asset = finalize(job.run.result, job.record, Console("quiet"), job.seconds)
            console.log(f"{job.config.prompt}: {asset}", asset=str(asset))
        except (ValueError, OSError) as trouble:
            job.trouble = trouble
    return meeting.passes


def _optimised(job: Job, door: BatchedPrior, meeting: PriorBatcher, stop: StopSignal) -> None:
    """One run to its last step, in a thread of its own."""
    try:
        job.run = Trainer(job.config, door, device_of(job.config))
        job.seconds = train(job.run, job.record, Console("quiet"), stop)
    except Exception as trouble:  # told when all are done
        job.trouble = trouble
    finally:
        meeting.close()
