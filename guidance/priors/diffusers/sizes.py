"""Sizes of images and patches that the networks of diffusers' models were trained on."""

from __future__ import annotations

from typing import Any

from guidance.priors.diffusers.inspection import FAMILIES

MAX_LATENT_SIDE = 4096
_FLUX_SIZE = 1024
_SIZES = {"StableDiffusionXLPipeline": 128, "StableDiffusion3Pipeline": 128, "PixArtAlphaPipeline": 128}
_SIZES |= {"PixArtSigmaPipeline": 128, "SanaPipeline": 32}
"""Latents along a side where a network's configuration does not say, as diffusers has it; 64 for other families."""


def patch_size(kind: str, network: Any) -> int:
    """Latents along a side of what the network takes at once."""
    if FAMILIES[kind] == "unet":
        return 1
    return 1 if kind == "SanaPipeline" and network.config.patch_size == 1 else 2


def own_size(kind: str, network: Any, factor: int) -> int:
    """Pixels of the images a model was trained on. Raises ValueError where its configuration holds no such number."""
    if kind == "FluxPipeline":
        return _FLUX_SIZE
    size = network.config.get("sample_size")
    if isinstance(size, list | tuple):
        if len({*size}) != 1:
            raise ValueError(
                f"its network was trained on latents of {' x '.join(map(str, size))}; choose --extras.size"
            )
        size = size[0]
    if size is None:
        size = _SIZES.get(kind, 64)
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= MAX_LATENT_SIDE:
        raise ValueError(f"its network's sample_size is {size!r}; expected 1 to {MAX_LATENT_SIDE}")
    return size * factor
