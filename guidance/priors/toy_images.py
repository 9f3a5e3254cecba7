"""The toy prior that runs can name: an exact mixture of Gaussians around eight flat pictures.

Its answers have no error, so what an objective does with them is the objective's own doing.
"""

from __future__ import annotations

from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from guidance.priors.gaussian_mixture import GaussianMixturePrior

SHAPES = ("disc", "ring", "square", "cross")
COLORS = {"red": (0.8, 0.15, 0.1), "blue": (0.1, 0.3, 0.8)}
IMAGE_SIZE = 96
"""Pixels along a side."""
STD = 0.1
"""Standard deviation of every pixel around the picture it belongs to."""
_BACKGROUND = 0.95


def toy_image_prior() -> GaussianMixturePrior:
    """A prior that knows "disc", "red", "a blue ring", and so on; without text, all eight pictures alike."""
    classes = list(product(SHAPES, COLORS))
    means = torch.stack([_image(shape, COLORS[color]) for shape, color in classes])
    texts: dict[str, tuple[float, ...]] = {"": (1.0,) * len(classes)}
    for shape, color in product((None, *SHAPES), (None, *COLORS)):
        name = " ".join(word for word in (color, shape) if word)
        if name:
            weights = tuple(float(shape in (None, s) and color in (None, c)) for s, c in classes)
            texts[name] = texts[f"a {name}"] = weights
    return GaussianMixturePrior(means, torch.full((len(classes),), STD), texts)


def _image(shape: str, color: tuple[float, float, float]) -> Float[Tensor, "3 H W"]:
    """The shape in its colour on light paper, with edges one pixel wide."""
    axis = (torch.arange(IMAGE_SIZE) + 0.5) * (2 / IMAGE_SIZE) - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    across, down = x.abs(), y.abs()
    distance = {
        "disc": torch.hypot(x, y) - 0.6,
        "ring": (torch.hypot(x, y) - 0.5).abs() - 0.14,
        "square": torch.maximum(across, down) - 0.55,
        "cross": torch.minimum(torch.maximum(across - 0.65, down - 0.18), torch.maximum(down - 0.65, across - 0.18)),
    }[shape]
    coverage = (0.5 - distance * IMAGE_SIZE / 2).clamp(0, 1)
    return coverage * torch.tensor(color)[:, None, None] + (1 - coverage) * _BACKGROUND
