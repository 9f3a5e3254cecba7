"""Sheets of samples: what the prior thinks of when it is given a name and a camera."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from guidance.priors.base import Prior, make_rng
from guidance.priors.sampling import sample_ddim


def views(
    prior: Prior,
    texts: list[str],
    azimuths: int = 8,
    elevation: float = 0.3,
    scale: float = 2.0,
    steps: int = 20,
    seed: int = 0,
) -> torch.Tensor:
    """[T, A, 3, H, W] pictures of each text from around. Elevation in radians."""
    camera = torch.stack([torch.arange(azimuths) * (2 * math.pi / azimuths), torch.full((azimuths,), elevation)], -1)
    size = prior.image_size
    shape = prior.encode(torch.zeros(1, 3, size, size)).shape
    rows = []
    rng = make_rng(seed)
    for text in texts:
        noise = torch.randn(azimuths, *shape[1:], generator=rng)
        wanted = replace(prior.encode_prompt([text] * azimuths), camera=camera)
        rows.append(sample_ddim(prior, noise, wanted, prior.encode_prompt([""] * azimuths), scale, steps))
    return torch.stack(rows)


def picture(rows: torch.Tensor) -> np.ndarray:
    """[T, A, 3, H, W] pictures as one [T*H, A*W, 3] uint8 sheet."""
    t, a, _, h, w = rows.shape
    return (rows.permute(0, 3, 1, 4, 2).reshape(t * h, a * w, 3).clamp(0, 1) * 255).round().byte().numpy()
