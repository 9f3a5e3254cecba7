"""Pipelines whose own class diffusers does not have, put together from parts that it has: multi-view models.

Such a folder brings code of its own, which is not run; the network is built here and filled from its safetensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guidance.priors.diffusers.encoders import encoder_of
from guidance.priors.diffusers.inspection import Found, read_json, weights_in
from guidance.priors.diffusers.multiview.ldm_conversion import renamed, sizes
from guidance.priors.diffusers.multiview.unet import VIEWS, see_together
from guidance.priors.diffusers.prompts.image_prompt import Resampler
from guidance.priors.weights import fill, read_tensors

_PICTURE = "image_embed."


def assembled(libraries: tuple[Any, Any], folder: Path, found: Found, dtype: torch.dtype, left_out: set[str]) -> Any:
    """The parts of a multi-view model as a `StableDiffusionPipeline`, whose network has a `picture_reader` where it
    sees pictures.

    Args:
        libraries: diffusers and transformers.
        left_out: parts that are not wanted now.

    Raises:
        Incomplete: the files of an encoder lack a tensor.
        ValueError: the network is none that is known, or its weights do not fit it.
    """
    diffusers, transformers = libraries
    kinds = {"text_encoder": transformers.CLIPTextModel, "image_encoder": transformers.CLIPVisionModel}
    wanted, vae, unet = {*found.parts} - left_out, None, None
    read = {name: encoder_of(kind, folder / name, dtype) if name in wanted else None for name, kind in kinds.items()}
    if "vae" in wanted:
        variant = None if weights_in(folder / "vae") else "fp16"
        vae = diffusers.AutoencoderKL.from_pretrained(
            folder / "vae", torch_dtype=dtype, variant=variant, use_safetensors=True, local_files_only=True
        )
    if "unet" not in left_out:
        unet = multi_view_network(diffusers.UNet2DConditionModel, folder / "unet").to(dtype)
        if hasattr(unet, "picture_reader") and "image_encoder" not in found.parts:
            raise ValueError(f"{folder} is not complete: its network sees pictures, and image_encoder is missing")
    return diffusers.StableDiffusionPipeline(
        **read,
        vae=vae,
        unet=unet,
        tokenizer=transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        scheduler=diffusers.DDIMScheduler.from_pretrained(folder / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def multi_view_network(kind: Any, folder: Path) -> Any:
    """The network of a folder as one of diffusers' class `kind` that sees several views at once.

    Raises:
        ValueError: it is of another architecture, or its weights do not fit it.
    """
    row = read_json(folder / "config.json")
    tensors: dict[str, Tensor] = {}
    files = weights_in(folder) or weights_in(folder, "fp16")
    for file in files:
        tensors |= read_tensors(file)
    reading = {name.removeprefix(_PICTURE): value for name, value in tensors.items() if name.startswith(_PICTURE)}
    tokens = int(row.get("ip_dim") or 0)
    if bool(tokens) != bool(reading) or row.get("ip_weight", 1) != 1:
        raise ValueError(f"{folder} is damaged: its configuration and its weights disagree about pictures")
    network = kind(**sizes(row))
    see_together(network, VIEWS + bool(tokens), tokens)
    rest = {name: value for name, value in tensors.items() if not name.startswith(_PICTURE)}
    fill(network, renamed(rest, row["num_res_blocks"]), files[0])
    if tokens:
        network.picture_reader = Resampler.of(reading)
    return network
