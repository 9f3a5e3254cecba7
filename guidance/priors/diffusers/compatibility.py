"""Whether the parts of a model go together, looked at before it is asked anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from guidance.priors.diffusers.codecs import Codec, VAECodec
from guidance.priors.diffusers.inspection import PIPELINE_NETWORKS, PipelineFiles, read_json
from guidance.priors.diffusers.schedules import FLOW_SCHEDULERS

_TOKEN_ENCODERS = {
    "StableDiffusionXLPipeline": ("text_encoder", "text_encoder_2"),
    "StableDiffusion3Pipeline": ("text_encoder_3",),
    "FluxPipeline": ("text_encoder_2",),
}
"""Of families with several text encoders, those whose tokens the network sees side by side."""
_TOKEN_WIDTH_KEYS = ("encoder_hid_dim", "caption_channels", "joint_attention_dim", "cross_attention_dim")
"""What a network's configuration calls the numbers of a token, the first that is there."""


def check_compatible(pipe: Any, folder: Path, files: PipelineFiles, codec: Codec) -> None:
    """Raises ValueError where a part of a model in a folder is of another one."""
    network = getattr(pipe, PIPELINE_NETWORKS[files.pipeline_class])
    token_width, expected_width = _token_width(folder, files), _network_token_width(network)
    if token_width is not None and expected_width is not None and token_width != expected_width:
        raise ValueError(
            f"its text encoder says {token_width} numbers for a token, and its network takes {expected_width}"
        )
    if isinstance(codec, VAECodec):
        channels = network.config.in_channels // (4 if files.pipeline_class == "FluxPipeline" else 1)
        if channels != codec.channels:
            raise ValueError(f"its autoencoder says {codec.channels} numbers, and its network takes {channels}")
    saved_class, scheduler_class = (
        read_json(folder / "scheduler" / "scheduler_config.json").get("_class_name"),
        type(pipe.scheduler),
    )
    if saved_class and (saved_class in FLOW_SCHEDULERS) != (scheduler_class.__name__ in FLOW_SCHEDULERS):
        raise ValueError(
            f"its scheduler is a {scheduler_class.__name__}, and scheduler_config.json was written by a {saved_class}"
        )


def check_weights_complete(pipe: Any, folder: Path) -> None:
    """Raises ValueError where the files of a part lack some of its weights."""
    for part, module in pipe.components.items():
        if isinstance(module, nn.Module) and (
            missing := [n for n, value in module.named_parameters() if value.is_meta]
        ):
            raise ValueError(
                f"{folder / part} is not complete: its files lack {len(missing)} of its tensors, such as {missing[0]}"
            )


def _token_width(folder: Path, files: PipelineFiles) -> int | None:
    """Numbers of a token as the text encoders say them, by their configurations; None where those do not tell."""
    rows = [read_json(folder / part / "config.json") for part in _text_encoders(files)]
    widths = [width for row in rows if isinstance(width := row.get("hidden_size", row.get("d_model")), int)]
    return sum(widths) if widths and len(widths) == len(rows) else None


def _text_encoders(files: PipelineFiles) -> list[str]:
    return [part for part in _TOKEN_ENCODERS.get(files.pipeline_class, ("text_encoder",)) if part in files.parts]


def _network_token_width(network: Any) -> int | None:
    values = (network.config.get(name) for name in _TOKEN_WIDTH_KEYS)
    width = next((value for value in values if value is not None), None)
    return width if isinstance(width, int) else None
