"""The layout that Stable Diffusion's network had in its first code, in which multi-view networks are kept: how large
such a network is, and what its tensors are called in diffusers."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_ENDS = {
    "time_embed.0": "time_embedding.inner.linear_1",
    "time_embed.2": "time_embedding.inner.linear_2",
    "camera_embed.0": "time_embedding.embed.0",
    "camera_embed.2": "time_embedding.embed.2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_NEEDED = ("in_channels", "out_channels", "model_channels", "channel_mult", "num_res_blocks", "attention_resolutions")


def sizes(row: dict[str, Any]) -> dict[str, Any]:
    """What `UNet2DConditionModel` takes, from the configuration of such a network.

    Raises ValueError where that lacks something, or describes another kind of network.
    """
    if missing := [name for name in (*_NEEDED, "context_dim", "camera_dim") if row.get(name) is None]:
        raise ValueError(f"its network's configuration lacks {', '.join(missing)}")
    if row["camera_dim"] != 16:
        raise ValueError(f"its network is told {row['camera_dim']} numbers of a camera; expected the 16 of a pose")
    depth, blocks = row.get("transformer_depth", 1), row["num_res_blocks"]
    if depth != 1 or not isinstance(blocks, int):
        raise ValueError(f"its network has {blocks} blocks and {depth} layers at a level; expected as MVDream has")
    widths = [row["model_channels"] * factor for factor in row["channel_mult"]]
    attending = [2**level in row["attention_resolutions"] for level in range(len(widths))]
    head = row.get("num_head_channels", -1)
    heads = [width // head for width in widths] if head > 0 else row.get("num_heads", 8)
    return {
        "sample_size": row.get("image_size", 32),
        "in_channels": row["in_channels"],
        "out_channels": row["out_channels"],
        "block_out_channels": widths,
        "layers_per_block": blocks,
        "down_block_types": ["CrossAttnDownBlock2D" if yes else "DownBlock2D" for yes in attending],
        "up_block_types": ["CrossAttnUpBlock2D" if yes else "UpBlock2D" for yes in reversed(attending)],
        "cross_attention_dim": row["context_dim"],
        # What diffusers calls the dimension of a head is their number here.
        "attention_head_dim": heads,
        "use_linear_projection": True,
    }


def renamed(tensors: dict[str, Tensor], blocks: int) -> dict[str, Tensor]:
    """The tensors of such a network under the names of diffusers, `blocks` at each level."""
    return {name_of(name, blocks): tensor for name, tensor in tensors.items()}


def name_of(name: str, blocks: int) -> str:
    """What diffusers calls a tensor of the network after `multiview.see_together`."""
    name = name.replace("attn2.to_k_ip", "attn2.processor.to_k_ip").replace("attn2.to_v_ip", "attn2.processor.to_v_ip")
    for old, new in _ENDS.items():
        if name.startswith(old + "."):
            return new + name[len(old) :]
    if found := re.match(r"middle_block\.([012])\.(.*)", name):
        place = ("resnets.0", "attentions.0", "resnets.1")[int(found[1])]
        return f"mid_block.{place}.{_inner(found[2])}"
    if found := re.match(r"(input|output)_blocks\.(\d+)\.(\d)\.(.*)", name):
        down, layer, rest = found[1] == "input", int(found[3]), found[4]
        level, at = divmod(int(found[2]) - down, blocks + 1)
        side = "down_blocks" if down else "up_blocks"
        if down and at == blocks:  # The last of a level only halves the picture.
            return f"{side}.{level}.downsamplers.0.conv.{rest.removeprefix('op.')}"
        if rest.startswith("conv."):
            return f"{side}.{level}.upsamplers.0.{rest}"
        return f"{side}.{level}.{'attentions' if layer else 'resnets'}.{at}.{_inner(rest)}"
    return name


def _inner(rest: str) -> str:
    """The name within a residual block; that within attention is the same."""
    for old, new in _RESIDUAL.items():
        if rest.startswith(old + "."):
            return new + rest[len(old) :]
    return rest
