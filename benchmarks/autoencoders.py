"""What autoencoders keep of a picture until the gradient has come back through them.

    python benchmarks/autoencoders.py [--size 512 1024]

Counted on the device `meta`, where tensors have shapes and no numbers: the bytes of all that one picture's way there
leaves behind for the way back, in float32. Half precision keeps half of it.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch
from torch import Tensor, UntypedStorage

from guidance.priors.diffusers.codecs import VAECodec


def stable_diffusion() -> Any:
    """The architecture that Stable Diffusion 1.x to XL share."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
    )


def sana() -> Any:
    """DC-AE, 32 pixels to a latent of 32 numbers."""
    from diffusers import AutoencoderDC

    blocks = ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3
    return AutoencoderDC(encoder_block_types=blocks, decoder_block_types=blocks)


def kept(codec: VAECodec, size: int) -> int:
    """Bytes that one picture of `size` x `size` pixels leaves behind, weights aside."""
    own = {weight.untyped_storage()._cdata for weight in codec.vae.parameters()}
    held: dict[int, UntypedStorage] = {}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage._cdata not in own:
            held[storage._cdata] = storage
        return value

    rgb = torch.zeros(1, 3, size, size, device="meta", requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        codec.encode(rgb)
    return sum(storage.nbytes() for storage in held.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs="+", default=[512, 1024], help="pixels, multiples of 32")
    given = parser.parse_args()
    for make in (stable_diffusion, sana):
        with torch.device("meta"):
            codec = VAECodec.from_vae(make().requires_grad_(False))
        row = ", ".join(f"{kept(codec, size) / 2**30:.1f} GB at {size} pixels" for size in given.size)
        sys.stdout.write(f"{make.__name__}: {row}\n")


if __name__ == "__main__":
    main()
