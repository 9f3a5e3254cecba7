"""How much of the corpus' detail a prior's pictures keep, against renders from cameras that nothing was fitted to."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from guidance.priors.base import Prior, add_noise, make_rng, predict_x0
from guidance.priors.cfg import classifier_free_guidance
from guidance.priors.sampling import sample_ddim
from renderers.cameras import look_at_origin
from sds3d.mini3d_training.splat_fitting import fine_energy, true_views
from sds3d.mini_training.catalogue import models
from sds3d.mini_training.obj_loader import load
from sds3d.mini_training.opengl_renderer import OffscreenRenderer

CYCLES = 18
"""Cycles a picture, about 12 an object: detail is what is finer."""


@dataclass(frozen=True)
class Detail:
    """Means over names."""

    guided_psnr: float
    """Of the object in the guided clean estimate at t = 0.3 from its true picture, dB."""
    energy: float
    """Of detail in samples, over that of true pictures from the same cameras, before their own backgrounds."""
    detail_psnr: float
    """Of the object in samples against true pictures, dB."""

    def plain(self) -> dict[str, float]:
        return {key: round(value, 3) for key, value in asdict(self).items()}


@torch.no_grad()
def measure(
    prior: Prior, furniture: Path, names: list[str], views: int = 4, scale: float = 2.0, steps: int = 20, seed: int = 0
) -> Detail:
    """Draws every name from `views` random cameras, and looks at true pictures through noise.

    Raises:
        FileNotFoundError: the models are not there.
    """
    source, rng, size = models(furniture), make_rng(seed), prior.image_size
    drawer, rows = OffscreenRenderer(size), []
    for name in names:
        angles = torch.stack(
            [2 * math.pi * torch.rand(views, generator=rng), 0.6 * torch.rand(views, generator=rng)], -1
        )
        rgba = true_views(load(source[name]), drawer, look_at_origin(angles[:, 0], angles[:, 1], size)).rgba
        rgba = rgba.permute(0, 3, 1, 2)
        solid, truth = rgba[:, 3:] > 0.5, rgba[:, :3] + (1 - rgba[:, 3:])
        text, empty = replace(prior.encode_prompt([name] * views), camera=angles), prior.encode_prompt([""] * views)
        x, t = prior.encode(truth), torch.full((views,), 0.3)
        noise = torch.randn(x.shape, generator=rng)
        alpha, sigma = prior.alpha_sigma(t)
        answers = prior.predict_noise(add_noise(x, noise, alpha, sigma), t, [empty, text])
        clean = predict_x0(
            add_noise(x, noise, alpha, sigma), classifier_free_guidance(answers[0], answers[1], scale), alpha, sigma
        )
        drawn = sample_ddim(prior, noise, text, empty, scale, steps)
        # Fine detail of the object alone: both before the true picture's background.
        before = [torch.where(solid, picture, 1.0).permute(0, 2, 3, 1) for picture in (drawn, truth)]
        energy = fine_energy(before[0], CYCLES) / fine_energy(before[1], CYCLES)
        rows.append((_psnr(prior.decode(clean), truth, solid), energy, _psnr(drawn, truth, solid)))
    return Detail(*torch.tensor(rows).mean(0).tolist())


def _psnr(rgb: Float[Tensor, "B 3 H W"], truth: Float[Tensor, "B 3 H W"], solid: Tensor) -> float:
    error = ((rgb.clamp(0, 1) - truth).square() * solid).sum() / (3 * solid.sum()).clamp_min(1)
    return -10 * math.log10(max(float(error), 1e-10))
