"""Trains the judge on cameras, lights and backgrounds that the prior never saw."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from guidance.priors.precision import autocast
from sds3d.evaluation.judge.network import SIZE, Judge, JudgeNetwork
from sds3d.mini_training.colors import COLORS
from sds3d.mini_training.corpus import Entry, file_of, read_entries

_HELD_OUT = 8
"""Every so many views of an object are kept for the final mark."""
_PAINTS = np.array(list(COLORS.values()), np.float32)


@dataclass(frozen=True)
class JudgeTraining:
    """How to train the judge."""

    corpus: Path
    out: Path
    minutes: float = 20.0
    batch: int = 64
    rate: float = 1e-3
    seed: int = 0


class Views:
    """The judge's part of a corpus, in memory."""

    def __init__(self, corpus: Path, entries: list[Entry]) -> None:
        self.entries = entries
        self.albedo, self.normal, self.angles = [], [], []
        for entry in entries:
            with np.load(file_of(corpus, entry.name)) as file:
                self.albedo.append(file["judge_albedo"])
                self.normal.append(file["judge_normal"])
                self.angles.append(file["judge_angles"])

    def __call__(self, count: int, rng: np.random.Generator, held_out: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """(pictures [B,3,64,64], names [B], azimuths [B]): the held-out views, or the rest, spoiled a little."""
        things: list[int] = rng.integers(len(self.entries), size=count).tolist()
        rows = []
        azimuths = []
        for thing in things:
            views = np.arange(len(self.angles[thing]))
            views = views[(views % _HELD_OUT == 0) == held_out]
            view = int(views[rng.integers(len(views))])
            rows.append(self._picture(thing, view, rng))
            azimuths.append(self.angles[thing][view, 0])
        rgb = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).contiguous()
        if not held_out:
            rgb = augment(rgb, rng)
        return rgb, torch.tensor(things), torch.from_numpy(np.array(azimuths, np.float32))

    def _picture(self, thing: int, view: int, rng: np.random.Generator) -> np.ndarray:
        """One view under a random light, on a random background, sometimes painted."""
        albedo = self.albedo[thing][view].astype(np.float32) / 255
        colour, opacity = albedo[..., :3], albedo[..., 3:]
        entry = self.entries[thing]
        if entry.tintable and rng.random() < 0.35:
            shade = colour @ np.array([0.299, 0.587, 0.114], np.float32) / max(entry.brightness, 0.05)
            colour = np.minimum(shade, 1.15 * opacity[..., 0])[..., None] * _PAINTS[rng.integers(len(_PAINTS))]
        normal = self.normal[thing][view].astype(np.float32) / 127.5 - 1
        light = rng.normal(size=3)
        light[1] = abs(light[1]) + 0.3
        light /= np.linalg.norm(light)
        ambient = rng.uniform(0.4, 0.9)
        shading = ambient + rng.uniform(0, 0.25) * normal[..., 1] + (1.05 - ambient) * np.clip(normal @ light, 0, 1)
        behind = rng.random(3) if rng.random() < 0.6 else np.ones(3)
        picture: np.ndarray = np.clip(colour * shading[..., None], 0, 1) + (1 - opacity) * behind
        return picture.astype(np.float32)


def augment(rgb: Tensor, rng: np.random.Generator) -> Tensor:
    """Pictures blurred, noised, and brightened a little at random: renders of assets are not as crisp as the corpus."""
    chance = torch.Generator().manual_seed(int(rng.integers(2**62)))
    count = len(rgb)
    small = F.interpolate(F.interpolate(rgb, scale_factor=0.5, mode="area"), (SIZE, SIZE), mode="bilinear")
    smaller = F.interpolate(F.interpolate(rgb, scale_factor=0.3, mode="area"), (SIZE, SIZE), mode="bilinear")
    kind = torch.rand(count, 1, 1, 1, generator=chance)
    rgb = torch.where(kind < 0.5, rgb, torch.where(kind < 0.8, small, smaller))
    gain = 0.85 + 0.3 * torch.rand(count, 1, 1, 1, generator=chance)
    noise = 0.06 * torch.rand(count, 1, 1, 1, generator=chance) * torch.randn(rgb.shape, generator=chance)
    return (rgb * gain + noise).clamp(0, 1)


def train(knobs: JudgeTraining, progress: Callable[[str], None]) -> dict[str, float]:
    """Trains for the time given, writes the judge, and returns its marks on held-out views.

    Raises:
        FileNotFoundError: no corpus.
    """
    torch.set_num_threads(1)
    torch.manual_seed(knobs.seed)
    rng = np.random.default_rng(knobs.seed)
    entries = read_entries(knobs.corpus)
    views = Views(knobs.corpus, entries)
    network = JudgeNetwork(len(entries)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), lr=knobs.rate, weight_decay=0.02, fused=True)
    began = told = time.monotonic()
    seen = 0
    while (share := (time.monotonic() - began) / (60 * knobs.minutes)) < 1:
        optimiser.param_groups[0]["lr"] = knobs.rate * min(1.0, (seen + 1) / 20_000) * (1 - share)
        rgb, name, azimuth = views(knobs.batch, rng)
        with autocast(torch.device("cpu")):
            scores, turn = network(rgb)
        picked = turn.float()[torch.arange(len(name)), name]
        truth = torch.stack([azimuth.sin(), azimuth.cos()], -1)
        loss = F.cross_entropy(scores.float(), name, label_smoothing=0.05) + (picked - truth).square().sum(-1).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        seen += knobs.batch
        if time.monotonic() - told > 20:
            told = time.monotonic()
            speed = seen / (told - began)
            progress(f"{seen} pictures, loss {loss.item():.3f}, {speed:.0f} pictures/s, {100 * share:.0f} %")
    judge = Judge(network, [entry.name for entry in entries])
    judge.save(knobs.out)
    return evaluate(Judge.load(knobs.out), views, knobs.seed)


def evaluate(judge: Judge, views: Views, seed: int, count: int = 4000) -> dict[str, float]:
    """R@1, R@5 and the median azimuth error in degrees over random held-out views."""
    rgb, name, azimuth = views(count, np.random.default_rng(seed + 1), held_out=True)
    opinion = judge.predict(rgb)
    likelier = (opinion.probability > opinion.probability.gather(1, name[:, None])).sum(-1)
    turn = opinion.azimuth.gather(1, name[:, None])[:, 0] - azimuth
    error = torch.rad2deg(torch.atan2(turn.sin(), turn.cos()).abs())
    return {
        "recall_at_1": float((likelier == 0).float().mean()),
        "recall_at_5": float((likelier < 5).float().mean()),
        "median_azimuth_error_degrees": float(error.median()),
    }
