"""The sketch: what text and camera alone let expect, and the best guess at a noised picture that it gives.

Shapes: B pictures, C latent channels on a G x G grid, W the width of text and camera vectors.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

ALPHA_CHANNELS = 4
"""Channels of a sketch beside the latent's: opacity in the four quarters of a patch, -1..1."""
BACKGROUND_VARIANCE = 0.12
"""Of a channel of a background's colour around mid grey."""


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two layers that keep the size of what they carry."""
    layers = nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs))
    for layer, gain in ((layers[0], 1.0), (layers[2], 1.7)):
        nn.init.normal_(layer.weight, std=gain / layer.in_features**0.5)  # type: ignore[arg-type, operator]
    return layers


class Sketch(nn.Module):
    """Text and camera to a picture: a perceptron with many weights, each used once, and a few convolutions."""

    def __init__(self, width: int, w: int, c: int, channels: int, grid: int) -> None:
        super().__init__()
        n = grid // 2
        self.side = n
        self.entry = nn.Linear(3 * width, w)
        self.hidden = nn.ModuleList(mlp(w, w, w) for _ in range(2))
        self.spread = nn.Linear(w, n * n * c)
        self.rise = nn.Conv2d(c, 4 * c, 3, padding=1)
        self.norm = nn.GroupNorm(8, c)
        self.finish = nn.Conv2d(c, 2 * c, 3, padding=1)
        self.out = nn.Conv2d(2 * c, channels + ALPHA_CHANNELS, 3, padding=1)

    def forward(self, text: Tensor, view: Tensor) -> Tensor:
        h = F.silu(self.entry(torch.cat([text, view, text * view], -1)))
        for layer in self.hidden:
            h = h + 0.5 * layer(h)
        h = self.spread(h).unflatten(-1, (-1, self.side, self.side)).contiguous(memory_format=torch.channels_last)
        h = F.pixel_shuffle(self.rise(F.silu(h)), 2)
        return self.out(F.silu(self.finish(F.silu(self.norm(h)))))  # type: ignore[no-any-return]


def composite_over_background(
    x_t: Float[Tensor, "B C G G"],
    sketch: Float[Tensor, "B S G G"],
    response: Float[Tensor, "4 3 C"],
    alpha: Float[Tensor, "B 1 1 1"],
    sigma: Float[Tensor, "B 1 1 1"],
) -> Float[Tensor, "B C G G"]:
    """The sketch before the solid background that the noised picture shows, found by least squares.

    `response` is what a unit of red, green or blue in a quarter of a patch adds to the latents. Ridge regression of
    x_t / alpha - sketch on three colours: their variance against the noise's, (sigma / alpha)^2.
    """
    c = x_t.shape[1]
    transparency = 1 - ((sketch[:, c:] + 1) / 2).clamp(0, 1)
    basis = torch.einsum("bqhw,qkc->bkchw", transparency, response).flatten(2)
    residual = (x_t / alpha - sketch[:, :c]).flatten(1)
    noise = ((sigma / alpha).square() + 0.1).flatten() / BACKGROUND_VARIANCE
    gram = basis @ basis.transpose(1, 2) + noise[:, None, None] * torch.eye(3, device=x_t.device)
    color: Tensor = torch.linalg.solve(gram, basis @ residual[..., None])
    color = color.clamp(-0.5, 0.5)
    return sketch[:, :c] + (color.transpose(1, 2) @ basis).reshape(x_t.shape)


def expected_velocity(
    x_t: Float[Tensor, "B C G G"],
    guess: Float[Tensor, "B C G G"],
    variance: Float[Tensor, "B C 1 1"],
    alpha: Float[Tensor, "B 1 1 1"],
    sigma: Float[Tensor, "B 1 1 1"],
) -> Float[Tensor, "B C G G"]:
    """alpha * noise - sigma * x in the mean, where x is Gaussian around `guess`: the Wiener filter as a velocity.

    E[x | x_t] = guess + alpha * variance / D * (x_t - alpha * guess), with D = alpha^2 * variance + sigma^2.
    """
    rest = x_t - alpha * guess
    return alpha * sigma * (1 - variance) / (alpha.square() * variance + sigma.square()) * rest - sigma * guess
