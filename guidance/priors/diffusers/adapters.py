"""What goes on top of a pipeline: low-rank additions, learnt words, and eyes.

All raise ValueError where a file does not fit, and whatever the library raises beside that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from guidance.priors.diffusers.encoders import load_encoder
from guidance.priors.diffusers.inspection import check_complete, tensor_names, weights_in
from guidance.priors.diffusers.options import PriorOptions
from guidance.priors.weights import read_tensors

_UNSUPPORTED_ADAPTERS = {"hada_w1": "LoHa", "lokr_w1": "LoKr", "oft_": "OFT", "glora": "GLoRA"}
"""Parts of tensor names, and the kind of addition that has them; none of these is read."""
_DOWN_FACTORS = ("lora_down", "lora_A", ".lora.down", "_lora.down")
"""What names the first factor of each layer of a LoRA file."""


def fuse_lora(pipe: Any, file: Path, options: PriorOptions) -> str | None:
    """Merges low-rank additions into the weights; returns how many of them fit where not all do."""
    names = tensor_names(file)
    for part, kind in _UNSUPPORTED_ADAPTERS.items():
        if any(part in name for name in names):
            raise ValueError(f"it is a {kind}, which is not read; a LoRA (tensors called lora_down or lora_A) is")
    if not hasattr(pipe, "load_lora_weights"):
        raise ValueError("models of its kind take no LoRA")
    pipe.load_lora_weights(str(file.parent), weight_name=file.name, local_files_only=True)
    if not any(pipe.get_list_adapters().values()):
        raise ValueError("it adds to none of its layers; is it of another family?")
    layers = sum(any(part in name for part in _DOWN_FACTORS) for name in names)
    fitting = _count_lora_layers(pipe)
    pipe.fuse_lora(lora_scale=options.lora_scale)
    pipe.unload_lora_weights()
    return f"{fitting} of its {layers} layers fit this model, the others are left out" if fitting < layers else None


def _count_lora_layers(pipe: Any) -> int:
    """Layers of a pipeline that carry an addition."""
    parts = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    adapters = (getattr(module, "lora_A", None) for part in parts for module in part.modules())
    return sum(isinstance(layers, nn.ModuleDict) and len(layers) > 0 for layers in adapters)


def load_textual_inversion(pipe: Any, file: Path, options: PriorOptions) -> str | None:
    """Adds a word for the pipeline's encoder, or, of a file with both, for each of the two of Stable Diffusion XL."""
    if not hasattr(pipe, "load_textual_inversion"):
        raise ValueError("models of its kind learn no words")
    if pipe.text_encoder is None:
        return None
    encoders = {"clip_l": (pipe.text_encoder, pipe.tokenizer)}
    if getattr(pipe, "text_encoder_2", None) is not None:
        encoders["clip_g"] = pipe.text_encoder_2, pipe.tokenizer_2
    names = {*tensor_names(file)}
    if names == {"clip_l", "clip_g"} and len(encoders) < 2:
        raise ValueError("it has vectors for the two encoders of Stable Diffusion XL; this model has one encoder")
    if names != {*encoders} or len(encoders) < 2:
        pipe.load_textual_inversion(str(file), token=f"<{file.stem}>", local_files_only=True)
        return "it has a vector for one of the two encoders, the other lacks the word" if len(encoders) == 2 else None
    for name, tensor in read_tensors(file).items():
        encoder, tokenizer = encoders[name]
        pipe.load_textual_inversion(tensor, token=f"<{file.stem}>", text_encoder=encoder, tokenizer=tokenizer)
    return None


def load_ip_adapter(pipe: Any, file: Path, options: PriorOptions, encoder_class: Any) -> None:
    """Loads an IP-Adapter and its image encoder, of class `encoder_class`.

    Raises:
        ValueError: the encoder, or some of its weights, are missing.
    """
    if not hasattr(pipe, "load_ip_adapter"):
        raise ValueError("models of its kind take no IP-Adapter")
    if not (file.parent / "image_encoder" / "config.json").is_file():
        raise ValueError("the folder image_encoder is missing beside it")
    for weights in weights_in(file.parent / "image_encoder"):
        check_complete(weights)
    if hasattr(pipe, "unet"):  # Other families read pictures by another class.
        pipe.register_modules(image_encoder=load_encoder(encoder_class, file.parent / "image_encoder", pipe.dtype))
    pipe.load_ip_adapter(str(file.parent), subfolder="", weight_name=file.name, local_files_only=True)
    pipe.set_ip_adapter_scale(options.ip_adapter_scale)
