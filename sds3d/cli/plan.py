"""`sds3d plan PROMPT`: what a run will cost, measured on the run itself before it is made."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import torch

from configs.run import RunConfig
from guidance.priors.base import Prior, views_per_group
from guidance.priors.diffusers.prior import DiffusersPrior
from sds3d.cli import arguments as flags
from sds3d.console import Console, format_duration, memory_mb
from sds3d.models.loading import load_prior
from sds3d.training.loop import device_of, load_init_mesh, load_source
from sds3d.training.trainer import Trainer

STEPS = 4
"""Measured, beside one before them that warms up."""
ROOM = 0.9
"""Share of a GPU's memory that a run may take: scenes grow."""


@dataclass(frozen=True)
class Cost:
    """What a few steps of a run took."""

    step: float
    """Seconds of one."""
    prior: float
    """Of them, in the prior."""
    peak_mb: float
    memory_mb: float
    """Of the device; 0 where it is not known."""
    allocated_mb: float = 0.0
    """Of the peak on a GPU, what tensors took; the rest is the allocator's."""

    @property
    def fits(self) -> bool:
        return not self.memory_mb or self.peak_mb <= ROOM * self.memory_mb


def plan(words: list[str]) -> int:
    """Tells time and memory of the run that the same words would make; 1 if it does not fit. Raises as `generate`."""
    asked = flags.generate(words, flags.PLAN)
    config, console = asked.config, asked.console
    device = device_of(config)
    prior = load_prior(config.prior, device, config.prior_options)
    if remark := prior.validate_prompt(config.prompt):
        console.log(remark)
    try:
        cost = measured(config, prior, device, console)
    except torch.OutOfMemoryError:
        console.log(f"it does not fit: the memory of {device} ran out; {'; '.join(proposals(config, prior))}")
        return 1
    _tell(cost, config, prior, device, console)
    return 0 if cost.fits else 1


def measured(config: RunConfig, prior: Prior, device: torch.device, console: Console) -> Cost:
    """The cost of a run's first steps, which ask all that later ones do."""
    run = Trainer(config, prior, device, load_source(config, console), load_init_mesh(config, console))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    warm, *steps = islice(run.steps(), STEPS + 1)
    for remark in warm.warnings:
        console.log(f"{remark}; with --num-chunks {run.num_chunks} that is so from the start")
    steps = steps or list(islice(run.steps(), 1))
    if not steps:
        raise ValueError(f"steps is {config.steps}; a plan takes a run of at least 2")
    if device.type == "cuda":
        peak, allocated = (
            torch.cuda.max_memory_reserved(device) / 2**20,
            torch.cuda.max_memory_allocated(device) / 2**20,
        )
        whole = torch.cuda.get_device_properties(device).total_memory / 2**20
    else:
        peak, whole, allocated = memory_mb()[1], 0.0, 0.0
    count = len(steps)
    seconds, prior_seconds = sum(s.seconds for s in steps) / count, sum(s.prior_seconds for s in steps) / count
    return Cost(seconds, prior_seconds, peak, whole, allocated)


def proposals(config: RunConfig, prior: Prior) -> list[str]:
    """Settings that take less memory, the mildest first."""
    told = []
    if isinstance(prior, DiffusersPrior):
        if not config.prior_options.low_memory:
            told.append(
                "--prior-options.low-memory frees the text encoders and has one picture at a time in the autoencoder"
            )
        if config.prior_options.max_batch != 1:
            told.append("--prior-options.max-batch 1 asks for one picture in a pass")
        if prior.device.type == "cuda" and not config.prior_options.cpu_offload:
            told.append("--prior-options.cpu-offload keeps the model in main memory between its passes")
    if config.num_chunks < (parts := config.batch_size // views_per_group(prior)):
        told.append(f"--num-chunks {parts} looks at the pictures of a step one after another")
    if config.batch_size > 1:
        told.append(f"--batch-size {config.batch_size // 2} takes half as many pictures in a step")
    if isinstance(prior, DiffusersPrior):
        if prior.image_size > 512:
            told.append("--prior-options.image-size 512 shows the model smaller pictures")
        told.append("--prior sd-1.5 is the smallest model of the book")
    return told or ["--batch-size 1 takes the least"]


def _tell(cost: Cost, config: RunConfig, prior: Prior, device: torch.device, console: Console) -> None:
    size = prior.image_size
    share = round(100 * cost.prior / cost.step) if cost.step else 0
    whole = f" of {cost.memory_mb / 1024:.1f}" if cost.memory_mb else ""
    inside = f", {cost.allocated_mb / 1024:.2f} of them in tensors" if cost.allocated_mb else ""
    console.log(
        f"{config.batch_size} images of {size} x {size} in a step on {device}: {cost.step:.2f} s, "
        f"{share} % in the prior"
    )
    console.log(f"{config.steps} steps: about {format_duration(cost.step * config.steps)}, and the mesh after that")
    console.log(
        f"most memory so far: {cost.peak_mb / 1024:.2f}{whole} GB{inside}; a scene that grows takes more",
        step_seconds=cost.step,
        prior_seconds=cost.prior,
        run_seconds=cost.step * config.steps,
        peak_mb=cost.peak_mb,
        allocated_mb=cost.allocated_mb,
        device_mb=cost.memory_mb,
        fits=cost.fits,
    )
    if not cost.fits:
        console.log(f"that is too close to all there is; {'; '.join(proposals(config, prior))}")
