"""Trains the embedded prior: several single-thread workers, each on its own batches, averaged a few times a minute.

Averaging parameters and Adam's moments now and then (local SGD, Stich 2019) needs no fast link and lets a worker that
was slowed down by other programs do fewer steps without making the others wait.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

from guidance.priors.base import add_noise, expand_like_latents
from guidance.priors.mini.network import NetworkConfig
from guidance.priors.mini.sketch import BACKGROUND_VARIANCE
from guidance.priors.precision import autocast
from guidance.priors.schedule import ScaledLinearSchedule
from sds3d.mini_training.captions import vocabulary
from sds3d.mini_training.corpus import Entry, read_entries
from sds3d.mini_training.dataset import Batch, CorpusDataset
from sds3d.mini_training.local_sgd import any_worker, average_workers
from sds3d.mini_training.train_state import TrainConfig, TrainState, begin, save


def train(knobs: TrainConfig, progress: Callable[[str], None]) -> None:
    """Trains, resuming from `knobs.out` if a training is there, until it is complete, time is over or a file says stop.

    Raises:
        FileNotFoundError: no corpus.
    """
    read_entries(knobs.corpus)
    knobs.out.mkdir(parents=True, exist_ok=True)
    if knobs.workers == 1:
        _worker(0, knobs, progress, None)
        return
    meeting = knobs.out / f".meeting-{os.getpid()}"
    meeting.unlink(missing_ok=True)
    context = torch.multiprocessing.get_context("spawn")
    helpers = [context.Process(target=_worker, args=(rank, knobs, None, meeting)) for rank in range(1, knobs.workers)]
    for helper in helpers:
        helper.start()
    try:
        _worker(0, knobs, progress, meeting)
    finally:
        for helper in helpers:
            helper.join(30)
        meeting.unlink(missing_ok=True)


def _worker(rank: int, knobs: TrainConfig, progress: Callable[[str], None] | None, meeting: Path | None) -> None:
    """One worker's life."""
    torch.set_num_threads(1)
    if meeting is not None:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=knobs.workers)
    entries = [entry for entry in read_entries(knobs.corpus) if entry.wave <= knobs.stage]
    words = vocabulary(read_entries(knobs.corpus))
    config = NetworkConfig(vocabulary=len(words.words))
    if rank == 0:
        pictures = CorpusDataset(knobs.corpus, entries, words, config.words)
    if meeting is not None:
        dist.barrier()
    if rank != 0:
        pictures = CorpusDataset(knobs.corpus, entries, words, config.words)
    state = begin(knobs, config, pictures)
    schedule = ScaledLinearSchedule()
    start = saved = drawn = time.monotonic()
    while True:
        rng = np.random.default_rng([knobs.seed, rank, state.round])
        chance = torch.Generator().manual_seed(int(rng.integers(2**62)))
        round_began = time.monotonic()
        deadline = round_began + knobs.sync_interval_s
        losses: list[float] = []
        steps = 0
        sketching = state.sketch_images_seen < knobs.sketch_images
        while not losses or time.monotonic() < deadline:
            _set_lr(state, knobs, steps)
            sketch_loss = sketch_step(state, pictures(knobs.sketch_batch, rng))
            losses.append(sketch_loss if sketching else step(state, pictures(knobs.batch, rng), schedule, chance))
            steps += 1
        total = average_workers(state, steps, float(np.mean(losses)), meeting is not None)
        _update_ema(state, knobs, total, sketching)
        now = time.monotonic()
        over = state.samples >= knobs.num_images or now - start > 60 * knobs.minutes or (knobs.out / "stop").exists()
        over = any_worker(over, meeting is not None)
        if rank == 0 and progress is not None:
            pictures_a_step = knobs.sketch_batch + (0 if sketching else knobs.batch)
            speed = total[0] * pictures_a_step / (now - round_began)
            progress(
                (
                    f"sketch: {state.sketch_images_seen} of {knobs.sketch_images}"
                    if sketching
                    else f"denoiser and sketch: {state.samples} of {knobs.num_images}"
                )
                + f" pictures, {speed:.0f} a second, loss {state.loss:.4f}"
            )
            _log(knobs.out, state, speed)
            if over or now - saved > 60 * knobs.checkpoint_minutes:
                save(state, words, knobs)
                saved = now
                if 0 < 60 * knobs.sheet_minutes < now - drawn:
                    _draw_sheet(knobs.out, entries, state.samples)
                    drawn = now
        if over:
            break
    if meeting is not None:
        dist.destroy_process_group()


def sketch_step(state: TrainState, batch: Batch) -> float:
    """One step of AdamW on the sketch alone; returns its error."""
    with autocast(torch.device("cpu")):
        tokens = state.network.embed(batch.words)
        drawn = state.network.predict_sketch(tokens, batch.mask, batch.camera, batch.camera_known)
    loss = sketch_error(drawn.float(), batch, state)
    _optimizer_step(state, loss)
    return float(loss.detach())


def sketch_error(drawn: Tensor, batch: Batch, state: TrainState) -> Tensor:
    """Mean squared error of the latents of sketch and picture, both before the same background, over all backgrounds.

    With opacities wrong by d, a background of colour b around mid grey adds d * b: hence the second term.
    """
    grid, channels = state.network.config.grid, state.network.config.channels
    opacity = F.pixel_unshuffle(F.interpolate(batch.foreground[:, 3:], (2 * grid, 2 * grid), mode="area"), 2)
    colour = (drawn[:, :channels] - state.codec.encode(batch.composite(0.5))).square().mean()
    wrong = (drawn[:, channels:] + 1) / 2 - opacity
    shown = torch.einsum("bqhw,qkc->bkchw", wrong, state.network.response)
    return colour + BACKGROUND_VARIANCE * shown.square().sum(1).mean()


def _optimizer_step(state: TrainState, loss: Tensor) -> None:
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), 1.0)
    state.optimizer.step()


def step(state: TrainState, batch: Batch, schedule: ScaledLinearSchedule, rng: torch.Generator) -> float:
    """One step of AdamW on the velocity's squared error; times are stratified over 0..1.

    The error is weighted with sigma, halfway between the errors of velocity and of clean pictures: at low noise the
    rest of it is detail that no condition explains.
    """
    count = len(batch.rgb)
    x = state.codec.encode(batch.rgb)
    t = (torch.randperm(count, generator=rng) + torch.rand(count, generator=rng)) / count
    noise = torch.randn(x.shape, generator=rng)
    alpha, sigma = schedule.alpha_sigma(t)
    target = expand_like_latents(alpha) * noise - expand_like_latents(sigma) * x
    with autocast(torch.device("cpu")):
        tokens = state.network.embed(batch.words)
        velocity = state.network(
            add_noise(x, noise, alpha, sigma), t, tokens, batch.mask, batch.camera, batch.camera_known
        )
    loss = (expand_like_latents(sigma) * (velocity.float() - target).square()).mean()
    _optimizer_step(state, loss)
    return float(loss.detach())


def _set_lr(state: TrainState, knobs: TrainConfig, steps: int) -> None:
    warm = min(1.0, (state.step + steps + 1) / knobs.warmup)
    share = min(1.0, max(0.0, 1 - (knobs.num_images - state.samples) / knobs.lr_decay_images))
    fall = 0.05 + 0.95 * 0.5 * (1 + float(np.cos(np.pi * share)))
    for group in state.optimizer.param_groups:
        group["lr"] = knobs.lr * warm * fall


def _update_ema(state: TrainState, knobs: TrainConfig, total: tuple[int, float, float], sketching: bool) -> None:
    """Moves the average of the parameters and counts."""
    steps, mean_steps, loss = total
    state.round += 1
    state.step += round(mean_steps)
    if sketching:
        state.sketch_images_seen += steps * knobs.sketch_batch
        if state.sketch_images_seen >= knobs.sketch_images:
            state.step = 0  # the denoiser warms up anew
    else:
        state.samples += steps * knobs.batch
    state.loss = loss if state.round == 1 else 0.9 * state.loss + 0.1 * loss
    keep = min(0.98, (1 + state.round) / (8 + state.round))
    for name, parameter in state.network.named_parameters():
        state.average[name].lerp_(parameter.detach(), 1 - keep)


def _draw_sheet(out: Path, entries: list[Entry], samples: int) -> None:
    """A sheet of the last checkpoint, drawn by a process of its own while training goes on."""
    names = [entry.name for entry in entries[:: max(1, len(entries) // 10)]][:10]
    file = out / "sheets" / f"{samples:09d}.png"
    command = [sys.executable, "-m", "sds3d", "prior", "sample", *names, "--prior", str(out), "--out", str(file)]
    subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _log(out: Path, state: TrainState, speed: float) -> None:
    row = {
        "time": time.time(),
        "sketch_images_seen": state.sketch_images_seen,
        "samples": state.samples,
        "step": state.step,
        "loss": state.loss,
        "speed": speed,
    }
    with (out / "log.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
