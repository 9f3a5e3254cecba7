"""What a step costs beside the passes of a network as large as Stable Diffusion 1.5's.

    python benchmarks/overhead.py [--steps 3] [--batch-size 1] [--channels 320] [--autoencoder]

The network has random weights (860 million in float32, 3.4 GB) and looks at latents of pictures of 512 pixels. Its
passes are timed inside the very steps they belong to, so that a busy machine slows both alike. Latents come from a
fixed linear map; with --autoencoder from a network of the size of Stable Diffusion's, whose passes there and back then
count as passes too. Prints the median of step / passes; the aim is at most 1.05.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from configs.presets import preset
from guidance.priors.base import Condition, make_rng
from guidance.priors.diffusers.codecs import VAECodec
from guidance.priors.diffusers.networks import UNet
from guidance.priors.diffusers.prior import DiffusersPrior
from guidance.priors.diffusers.prompts.encoding import PromptEncoder
from guidance.priors.diffusers.schedules import DiscreteSchedule
from sds3d.training.trainer import Trainer

SIZE, FACTOR, TOKENS, WIDTH = 512, 8, 77, 768


@dataclass
class Clock:
    """Seconds in what it has wrapped."""

    spent: float = 0.0

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **given: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*args, **given)
            finally:
                self.spent += time.perf_counter() - began

        return timed


class Linear:
    """A codec that costs next to nothing: means over 8 x 8 pixels, and the grey beside the three colours."""

    def encode(self, rgb: Tensor) -> Tensor:
        small = 2 * functional.avg_pool2d(rgb, FACTOR) - 1
        return torch.cat([small, small.mean(1, keepdim=True)], 1)

    def decode(self, latents: Tensor) -> Tensor:
        return functional.interpolate((latents[:, :3] + 1) / 2, scale_factor=float(FACTOR))


class Passed(torch.autograd.Function):
    """The same tensor; tells when the way back comes by."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, told: Callable[[], None]) -> Tensor:
        ctx.told = told
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        ctx.told()
        return gradient, None


class Both:
    """An autoencoder that is timed there and back."""

    def __init__(self, codec: VAECodec, clock: Clock) -> None:
        self.codec, self.clock, self._began = codec, clock, 0.0
        self.decode = codec.decode

    def encode(self, rgb: Tensor) -> Tensor:
        rgb = Passed.apply(rgb, self._ended) if rgb.requires_grad else rgb
        latents = self.clock.around(self.codec.encode)(rgb)
        return Passed.apply(latents, self._start) if rgb.requires_grad else latents

    def _start(self) -> None:
        self._began = time.perf_counter()

    def _ended(self) -> None:
        self.clock.spent += time.perf_counter() - self._began


class Texts(PromptEncoder):
    """Random tokens, the same for the same text."""

    def __init__(self) -> None:
        self._seen: dict[str, Tensor] = {}

    def encode(self, texts: list[str], device: torch.device) -> Condition:
        for text in texts:
            self._seen.setdefault(text, torch.randn(TOKENS, WIDTH, generator=make_rng(len(self._seen))))
        tokens = torch.stack([self._seen[text] for text in texts]).to(device)
        return Condition(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=device), None)

    def validate(self, text: str) -> None:
        return None


def random(module: Any) -> Any:
    """A module that was built on no device, here, with weights that keep numbers in bounds."""
    module = module.to_empty(device="cpu").eval().requires_grad_(False)
    rng = make_rng(0)
    for parameter in module.parameters():
        spread = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.0
        parameter.normal_(0, spread, generator=rng) if spread else parameter.fill_(float(parameter.dim() == 1))
    return module


def prior_of(channels: int, autoencoder: bool, clock: Clock) -> DiffusersPrior:
    """A prior of the size of Stable Diffusion 1.5, whose passes `clock` times."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    with torch.device("meta"):
        widths = tuple(channels * factor for factor in (1, 2, 4, 4))
        unet = UNet2DConditionModel(
            sample_size=SIZE // FACTOR, block_out_channels=widths, cross_attention_dim=WIDTH, attention_head_dim=8
        )
        sides = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
        vae = AutoencoderKL(
            down_block_types=sides[0],
            up_block_types=sides[1],
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
        )
    network = random(unet)
    network.forward = clock.around(network.forward)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    codec: Any = Both(VAECodec.from_vae(random(vae)), clock) if autoencoder else Linear()
    return DiffusersPrior(
        UNet(network, 1000), DiscreteSchedule((1 - betas).cumprod(0)), "epsilon", codec, Texts(), SIZE
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--channels", type=int, default=320, help="of the first level; 320 is that of SD 1.5")
    parser.add_argument("--autoencoder", action="store_true")
    given = parser.parse_args()
    clock = Clock()
    prior = prior_of(given.channels, given.autoencoder, clock)
    config = preset("draft").run("a teddy bear", "sds", False)
    run = Trainer(type(config)(**{**vars(config), "views": given.views}), prior, torch.device("cpu"))
    ratios, passes = [], []
    for number, step in enumerate(islice(run.steps(), given.steps + 1)):
        if number:  # the first warms up
            ratios.append(step.seconds / clock.spent)
            passes.append(clock.spent)
        clock.spent = 0.0
    count = sum(p.numel() for p in prior.adapter.network.parameters())
    told = f"{count / 1e6:.0f} million weights, {given.views} views of {SIZE} pixels, {torch.get_num_threads()} threads"
    told += f", {given.steps} steps{', autoencoder' if given.autoencoder else ''}"
    ratio, worst, spent = statistics.median(ratios), max(ratios), statistics.median(passes)
    sys.stdout.write(f"step / passes: {ratio:.3f} (worst {worst:.3f}; passes {spent:.2f} s; {told})\n")


if __name__ == "__main__":
    main()
