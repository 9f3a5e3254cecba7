"""Whether the parts of a model go together, looked at before it is asked anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from guidance.priors.diffusers.codecs import Autoencoder, Codec
from guidance.priors.diffusers.inspection import FAMILIES, Found, read_json
from guidance.priors.diffusers.schedules import FLOWS

_READING = {
    "StableDiffusionXLPipeline": ("text_encoder", "text_encoder_2"),
    "StableDiffusion3Pipeline": ("text_encoder_3",),
    "FluxPipeline": ("text_encoder_2",),
}
"""Of families with several text encoders, those whose tokens the network sees side by side."""
_WIDTHS = ("encoder_hid_dim", "caption_channels", "joint_attention_dim", "cross_attention_dim")
"""What a network's configuration calls the numbers of a token, the first that is there."""


def refuse_unfit(pipe: Any, folder: Path, found: Found, codec: Codec) -> None:
    """Raises ValueError where a part of a model in a folder is of another one."""
    network = getattr(pipe, FAMILIES[found.kind])
    given, wanted = _token_width(folder, found), _wanted_width(network)
    if given is not None and wanted is not None and given != wanted:
        raise ValueError(f"its text encoder says {given} numbers for a token, and its network takes {wanted}")
    if isinstance(codec, Autoencoder):
        channels = network.config.in_channels // (4 if found.kind == "FluxPipeline" else 1)
        if channels != codec.channels:
            raise ValueError(f"its autoencoder says {codec.channels} numbers, and its network takes {channels}")
    said, own = read_json(folder / "scheduler" / "scheduler_config.json").get("_class_name"), type(pipe.scheduler)
    if said and (said in FLOWS) != (own.__name__ in FLOWS):
        raise ValueError(f"its scheduler is a {own.__name__}, and scheduler_config.json was written by a {said}")


def refuse_empty(pipe: Any, folder: Path) -> None:
    """Raises ValueError where the files of a part lack some of its weights."""
    for part, module in pipe.components.items():
        if isinstance(module, nn.Module) and (lacks := [n for n, value in module.named_parameters() if value.is_meta]):
            raise ValueError(
                f"{folder / part} is not complete: its files lack {len(lacks)} of its tensors, such as {lacks[0]}"
            )


def _token_width(folder: Path, found: Found) -> int | None:
    """Numbers of a token as the text encoders say them, by their configurations; None where those do not tell."""
    rows = [read_json(folder / part / "config.json") for part in _encoders(found)]
    widths = [width for row in rows if isinstance(width := row.get("hidden_size", row.get("d_model")), int)]
    return sum(widths) if widths and len(widths) == len(rows) else None


def _encoders(found: Found) -> list[str]:
    return [part for part in _READING.get(found.kind, ("text_encoder",)) if part in found.parts]


def _wanted_width(network: Any) -> int | None:
    named = (network.config.get(name) for name in _WIDTHS)
    width = next((value for value in named if value is not None), None)
    return width if isinstance(width, int) else None
