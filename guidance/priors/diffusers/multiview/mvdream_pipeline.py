"""Pipelines whose own class diffusers does not have, put together from parts that it has: multi-view models.

Such a folder brings code of its own, which is not run; the network is built here and filled from its safetensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guidance.priors.diffusers.encoders import load_encoder
from guidance.priors.diffusers.inspection import PipelineFiles, read_json, weights_in
from guidance.priors.diffusers.multiview.ldm_conversion import convert_ldm_state_dict, unet_config_from_ldm
from guidance.priors.diffusers.multiview.unet import VIEWS_PER_GROUP, make_multiview
from guidance.priors.diffusers.prompts.image_prompt import Resampler
from guidance.priors.weights import load_module_weights, read_tensors

_IMAGE_PARTS = "image_embed."


def build_mvdream_pipeline(
    libraries: tuple[Any, Any], folder: Path, files: PipelineFiles, dtype: torch.dtype, skip: set[str]
) -> Any:
    """The parts of a multi-view model as a `StableDiffusionPipeline`, whose network has a `image_resampler` where it
    sees pictures.

    Args:
        libraries: diffusers and transformers.
        skip: parts that are not wanted now.

    Raises:
        Incomplete: the files of an encoder lack a tensor.
        ValueError: the network is none that is known, or its weights do not fit it.
    """
    diffusers, transformers = libraries
    kinds = {"text_encoder": transformers.CLIPTextModel, "image_encoder": transformers.CLIPVisionModel}
    parts, vae, unet = {*files.parts} - skip, None, None
    encoders = {
        name: load_encoder(kind, folder / name, dtype) if name in parts else None for name, kind in kinds.items()
    }
    if "vae" in parts:
        variant = None if weights_in(folder / "vae") else "fp16"
        vae = diffusers.AutoencoderKL.from_pretrained(
            folder / "vae", torch_dtype=dtype, variant=variant, use_safetensors=True, local_files_only=True
        )
    if "unet" not in skip:
        unet = load_multiview_unet(diffusers.UNet2DConditionModel, folder / "unet").to(dtype)
        if hasattr(unet, "image_resampler") and "image_encoder" not in files.parts:
            raise ValueError(f"{folder} is not complete: its network sees pictures, and image_encoder is missing")
    return diffusers.StableDiffusionPipeline(
        **encoders,
        vae=vae,
        unet=unet,
        tokenizer=transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        scheduler=diffusers.DDIMScheduler.from_pretrained(folder / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def load_multiview_unet(unet_class: Any, folder: Path) -> Any:
    """The network of a folder as one of diffusers' class `unet_class` that sees several views at once.

    Raises:
        ValueError: it is of another architecture, or its weights do not fit it.
    """
    config = read_json(folder / "config.json")
    tensors: dict[str, Tensor] = {}
    files = weights_in(folder) or weights_in(folder, "fp16")
    for file in files:
        tensors |= read_tensors(file)
    resampler_tensors = {
        name.removeprefix(_IMAGE_PARTS): value for name, value in tensors.items() if name.startswith(_IMAGE_PARTS)
    }
    tokens = int(config.get("ip_dim") or 0)
    if bool(tokens) != bool(resampler_tensors) or config.get("ip_weight", 1) != 1:
        raise ValueError(f"{folder} is damaged: its configuration and its weights disagree about pictures")
    network = unet_class(**unet_config_from_ldm(config))
    make_multiview(network, VIEWS_PER_GROUP + bool(tokens), tokens)
    unet_tensors = {name: value for name, value in tensors.items() if not name.startswith(_IMAGE_PARTS)}
    load_module_weights(network, convert_ldm_state_dict(unet_tensors, config["num_res_blocks"]), files[0])
    if tokens:
        network.image_resampler = Resampler.from_state_dict(resampler_tensors)
    return network
