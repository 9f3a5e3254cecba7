"""Sizes of images and patches that the networks of diffusers' models were trained on."""

from __future__ import annotations

from typing import Any

from guidance.priors.diffusers.inspection import PIPELINE_NETWORKS

MAX_LATENT_SIDE = 4096
_FLUX_IMAGE_SIZE = 1024
_DEFAULT_SAMPLE_SIZES = {"StableDiffusionXLPipeline": 128, "StableDiffusion3Pipeline": 128, "PixArtAlphaPipeline": 128}
_DEFAULT_SAMPLE_SIZES |= {"PixArtSigmaPipeline": 128, "SanaPipeline": 32}
"""Latents along a side where a network's configuration does not say, as diffusers has it; 64 for other families."""


def patch_size(pipeline_class: str, network: Any) -> int:
    """Latents along a side of what the network takes at once."""
    if PIPELINE_NETWORKS[pipeline_class] == "unet":
        return 1
    return 1 if pipeline_class == "SanaPipeline" and network.config.patch_size == 1 else 2


def default_image_size(pipeline_class: str, network: Any, factor: int) -> int:
    """Pixels of the images a model was trained on. Raises ValueError where its configuration holds no such number."""
    if pipeline_class == "FluxPipeline":
        return _FLUX_IMAGE_SIZE
    size = network.config.get("sample_size")
    if isinstance(size, list | tuple):
        if len({*size}) != 1:
            raise ValueError(
                f"its network was trained on latents of {' x '.join(map(str, size))}; choose --prior-options.image-size"
            )
        size = size[0]
    if size is None:
        size = _DEFAULT_SAMPLE_SIZES.get(pipeline_class, 64)
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= MAX_LATENT_SIDE:
        raise ValueError(f"its network's sample_size is {size!r}; expected 1 to {MAX_LATENT_SIDE}")
    return size * factor
