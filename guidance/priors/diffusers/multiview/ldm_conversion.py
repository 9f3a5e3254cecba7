"""The layout that Stable Diffusion's network had in its first code, in which multi-view networks are kept: how large
such a network is, and what its tensors are called in diffusers."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

_RESIDUAL_KEYS = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_OUTER_KEYS = {
    "time_embed.0": "time_embedding.inner.linear_1",
    "time_embed.2": "time_embedding.inner.linear_2",
    "camera_embed.0": "time_embedding.embed.0",
    "camera_embed.2": "time_embedding.embed.2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_REQUIRED_KEYS = (
    "in_channels",
    "out_channels",
    "model_channels",
    "channel_mult",
    "num_res_blocks",
    "attention_resolutions",
)


def unet_config_from_ldm(ldm_config: dict[str, Any]) -> dict[str, Any]:
    """What `UNet2DConditionModel` takes, from the configuration of such a network.

    Raises ValueError where that lacks something, or describes another kind of network.
    """
    if missing := [name for name in (*_REQUIRED_KEYS, "context_dim", "camera_dim") if ldm_config.get(name) is None]:
        raise ValueError(f"its network's configuration lacks {', '.join(missing)}")
    if ldm_config["camera_dim"] != 16:
        raise ValueError(
            f"its network is told {ldm_config['camera_dim']} numbers of a camera; expected the 16 of a pose"
        )
    depth, blocks = ldm_config.get("transformer_depth", 1), ldm_config["num_res_blocks"]
    if depth != 1 or not isinstance(blocks, int):
        raise ValueError(f"its network has {blocks} blocks and {depth} layers at a level; expected as MVDream has")
    widths = [ldm_config["model_channels"] * factor for factor in ldm_config["channel_mult"]]
    attending = [2**level in ldm_config["attention_resolutions"] for level in range(len(widths))]
    head = ldm_config.get("num_head_channels", -1)
    heads = [width // head for width in widths] if head > 0 else ldm_config.get("num_heads", 8)
    return {
        "sample_size": ldm_config.get("image_size", 32),
        "in_channels": ldm_config["in_channels"],
        "out_channels": ldm_config["out_channels"],
        "block_out_channels": widths,
        "layers_per_block": blocks,
        "down_block_types": ["CrossAttnDownBlock2D" if yes else "DownBlock2D" for yes in attending],
        "up_block_types": ["CrossAttnUpBlock2D" if yes else "UpBlock2D" for yes in reversed(attending)],
        "cross_attention_dim": ldm_config["context_dim"],
        # What diffusers calls the dimension of a head is their number here.
        "attention_head_dim": heads,
        "use_linear_projection": True,
    }


def convert_ldm_state_dict(tensors: dict[str, Tensor], blocks: int) -> dict[str, Tensor]:
    """The tensors of such a network under the names of diffusers, `blocks` at each level."""
    return {diffusers_key(name, blocks): tensor for name, tensor in tensors.items()}


def diffusers_key(name: str, blocks: int) -> str:
    """What diffusers calls a tensor of the network after `multiview.make_multiview`."""
    name = name.replace("attn2.to_k_ip", "attn2.processor.to_k_ip").replace("attn2.to_v_ip", "attn2.processor.to_v_ip")
    for old, new in _OUTER_KEYS.items():
        if name.startswith(old + "."):
            return new + name[len(old) :]
    if found := re.match(r"middle_block\.([012])\.(.*)", name):
        place = ("resnets.0", "attentions.0", "resnets.1")[int(found[1])]
        return f"mid_block.{place}.{_residual_key(found[2])}"
    if found := re.match(r"(input|output)_blocks\.(\d+)\.(\d)\.(.*)", name):
        down, layer, rest = found[1] == "input", int(found[3]), found[4]
        level, at = divmod(int(found[2]) - down, blocks + 1)
        side = "down_blocks" if down else "up_blocks"
        if down and at == blocks:  # The last of a level only halves the picture.
            return f"{side}.{level}.downsamplers.0.conv.{rest.removeprefix('op.')}"
        if rest.startswith("conv."):
            return f"{side}.{level}.upsamplers.0.{rest}"
        return f"{side}.{level}.{'attentions' if layer else 'resnets'}.{at}.{_residual_key(rest)}"
    return name


def _residual_key(rest: str) -> str:
    """The name within a residual block; that within attention is the same."""
    for old, new in _RESIDUAL_KEYS.items():
        if rest.startswith(old + "."):
            return new + rest[len(old) :]
    return rest
