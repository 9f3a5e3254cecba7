"""The toy prior that runs can name: an exact mixture of Gaussians around eight flat pictures.

Its answers have no error, so what an objective does with them is the objective's own doing.
"""

from __future__ import annotations

from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from guidance.priors.gaussian_mixture import ToyPrior

SHAPES = ("disc", "ring", "square", "cross")
COLOURS = {"red": (0.8, 0.15, 0.1), "blue": (0.1, 0.3, 0.8)}
SIZE = 96
"""Pixels along a side."""
DEVIATION = 0.1
"""Standard deviation of every pixel around the picture it belongs to."""
_PAPER = 0.95


def toy_pictures() -> ToyPrior:
    """A prior that knows "disc", "red", "a blue ring", and so on; without text, all eight pictures alike."""
    kinds = list(product(SHAPES, COLOURS))
    means = torch.stack([_picture(shape, COLOURS[colour]) for shape, colour in kinds])
    texts: dict[str, tuple[float, ...]] = {"": (1.0,) * len(kinds)}
    for shape, colour in product((None, *SHAPES), (None, *COLOURS)):
        name = " ".join(word for word in (colour, shape) if word)
        if name:
            fits = tuple(float(shape in (None, s) and colour in (None, c)) for s, c in kinds)
            texts[name] = texts[f"a {name}"] = fits
    return ToyPrior(means, torch.full((len(kinds),), DEVIATION), texts)


def _picture(shape: str, colour: tuple[float, float, float]) -> Float[Tensor, "3 H W"]:
    """The shape in its colour on light paper, with edges one pixel wide."""
    place = (torch.arange(SIZE) + 0.5) * (2 / SIZE) - 1
    y, x = torch.meshgrid(place, place, indexing="ij")
    across, down = x.abs(), y.abs()
    distance = {
        "disc": torch.hypot(x, y) - 0.6,
        "ring": (torch.hypot(x, y) - 0.5).abs() - 0.14,
        "square": torch.maximum(across, down) - 0.55,
        "cross": torch.minimum(torch.maximum(across - 0.65, down - 0.18), torch.maximum(down - 0.65, across - 0.18)),
    }[shape]
    ink = (0.5 - distance * SIZE / 2).clamp(0, 1)
    return ink * torch.tensor(colour)[:, None, None] + (1 - ink) * _PAPER
