"""A multi-view network in its first layout, written out step by step and slowly: what the fast one is held against."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

CONFIG = {
    "_class_name": "MultiViewUNetModel",
    "image_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "attention_resolutions": [2, 1],
    "num_res_blocks": 1,
    "channel_mult": [1, 2],
    "num_head_channels": 16,
    "transformer_depth": 1,
    "context_dim": 32,
    "camera_dim": 16,
}
TIME_DIM = 4 * CONFIG["model_channels"]  # type: ignore[operator]
IMAGE_TOKENS = 3
"""Tokens of a picture."""


class MultiViewReference:
    """The network of `CONFIG`, and with `picture` one that attends to tokens of a picture."""

    def __init__(self, image_prompt: bool = False) -> None:
        self.image_prompt = image_prompt
        self.tensors: dict[str, Tensor] = {}
        self._rng = torch.Generator().manual_seed(7)
        for name in ("time_embed", "camera_embed"):
            self._linear(f"{name}.0", TIME_DIM, 32 if name == "time_embed" else 16)
            self._linear(f"{name}.2", TIME_DIM, TIME_DIM)
        self._conv("input_blocks.0.0", 32, 4)
        self._stage("input_blocks.1", 32, 32)
        self._conv("input_blocks.2.0.op", 32, 32)
        self._stage("input_blocks.3", 64, 32)
        self._residual("middle_block.0", 64, 64)
        self._transformer("middle_block.1", 64)
        self._residual("middle_block.2", 64, 64)
        for number, (out, kwargs) in enumerate(((64, 128), (64, 96), (32, 96), (32, 64))):
            self._stage(f"output_blocks.{number}", out, kwargs)
        self._conv("output_blocks.1.2.conv", 64, 64)
        self._norm("out.0", 32)
        self._conv("out.2", 4, 32)

    @property
    def config(self) -> dict[str, Any]:
        return CONFIG | ({"ip_dim": IMAGE_TOKENS, "ip_weight": 1.0} if self.image_prompt else {})

    def save(self, folder: Path, more: dict[str, Tensor] | None = None) -> None:
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(self.config))
        save_file(self.tensors | (more or {}), folder / "diffusion_pytorch_model.safetensors")

    def __call__(
        self, x: Tensor, time: Tensor, context: Tensor, pose: Tensor | None, views: int, image: Tensor | None = None
    ) -> Tensor:
        """x [N,4,h,w], time [N] as steps, context [N,L,32], pose [N,16], picture [N,3,32]."""
        rates = torch.exp(-math.log(10000) * torch.arange(16) / 16)
        embedding = torch.cat([(time[:, None] * rates).cos(), (time[:, None] * rates).sin()], -1)
        emb = self.mlp("time_embed", embedding)
        if pose is not None:
            emb = emb + self.mlp("camera_embed", pose)
        args = (emb, context, views, image)
        h0 = self.conv("input_blocks.0.0", x)
        h1 = self.stage("input_blocks.1", h0, *args)
        h2 = self.conv("input_blocks.2.0.op", h1, stride=2)
        h3 = self.stage("input_blocks.3", h2, *args)
        h = self.residual("middle_block.0", h3, emb)
        h = self.transformer("middle_block.1", h, context, views, image)
        h = self.residual("middle_block.2", h, emb)
        for number, skip in enumerate((h3, h2, h1, h0)):
            h = self.stage(f"output_blocks.{number}", torch.cat([h, skip], 1), *args)
            if number == 1:
                h = self.conv("output_blocks.1.2.conv", F.interpolate(h, scale_factor=2, mode="nearest"))
        return self.conv("out.2", F.silu(self.group("out.0", h, 1e-5)))

    # --- its layers ---

    def stage(self, name: str, h: Tensor, emb: Tensor, context: Tensor, views: int, image: Tensor | None) -> Tensor:
        return self.transformer(f"{name}.1", self.residual(f"{name}.0", h, emb), context, views, image)

    def residual(self, name: str, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv(f"{name}.in_layers.2", F.silu(self.group(f"{name}.in_layers.0", x, 1e-5)))
        h = h + self.linear(f"{name}.emb_layers.1", F.silu(emb))[:, :, None, None]
        h = self.conv(f"{name}.out_layers.3", F.silu(self.group(f"{name}.out_layers.0", h, 1e-5)))
        return h + (self.conv(f"{name}.skip_connection", x) if f"{name}.skip_connection.weight" in self.tensors else x)

    def transformer(self, name: str, x: Tensor, context: Tensor, views: int, image: Tensor | None) -> Tensor:
        count, width, height, across = x.shape
        h = self.linear(f"{name}.proj_in", self.group(f"{name}.norm", x, 1e-6).flatten(2).transpose(1, 2))
        block = f"{name}.transformer_blocks.0"
        normed, joint = self.layer(f"{block}.norm1", h), torch.zeros_like(h)
        for group in range(0, count, views):  # All tokens of all views of a group see one another.
            tokens = torch.cat([normed[group + view] for view in range(views)])[None]
            noise_pred = self.attend(f"{block}.attn1", tokens, tokens, "")
            for view in range(views):
                joint[group + view] = noise_pred[0].chunk(views)[view]
        h = h + self.out(f"{block}.attn1", joint)
        normed = self.layer(f"{block}.norm2", h)
        crossed = self.attend(f"{block}.attn2", normed, context, "")
        if image is not None:
            crossed = crossed + self.attend(f"{block}.attn2", normed, image, "_ip")
        h = h + self.out(f"{block}.attn2", crossed)
        inner, gate = self.linear(f"{block}.ff.net.0.proj", self.layer(f"{block}.norm3", h)).chunk(2, -1)
        h = h + self.linear(f"{block}.ff.net.2", inner * F.gelu(gate))
        return x + self.linear(f"{name}.proj_out", h).transpose(1, 2).reshape(count, width, height, across)

    def attend(self, name: str, queries: Tensor, kwargs: Tensor, ending: str) -> Tensor:
        query = self.linear(f"{name}.to_q", queries)
        key, value = (self.linear(f"{name}.to_{letter}{ending}", kwargs) for letter in "kv")
        heads = []
        for start in range(0, query.shape[-1], 16):
            q, k, v = (part[..., start : start + 16] for part in (query, key, value))
            heads.append(((q @ k.transpose(1, 2)) / math.sqrt(16)).softmax(-1) @ v)
        return torch.cat(heads, -1)

    def out(self, name: str, rows: Tensor) -> Tensor:
        return self.linear(f"{name}.to_out.0", rows)

    def mlp(self, name: str, rows: Tensor) -> Tensor:
        return self.linear(f"{name}.2", F.silu(self.linear(f"{name}.0", rows)))

    def linear(self, name: str, rows: Tensor) -> Tensor:
        return F.linear(rows, self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias"))

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = self.tensors[f"{name}.weight"]
        return F.conv2d(x, weight, self.tensors[f"{name}.bias"], stride=stride, padding=weight.shape[-1] // 2)

    def group(self, name: str, x: Tensor, eps: float) -> Tensor:
        return F.group_norm(x, 32, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"], eps)

    def layer(self, name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])

    # --- its weights ---

    def _draw(self, name: str, *shape: int, mean: float = 0.0) -> None:
        std = 0.3 if len(shape) == 1 else 1 / math.sqrt(math.prod(shape[1:]))
        self.tensors[name] = mean + std * torch.randn(shape, generator=self._rng)

    def _linear(self, name: str, out: int, kwargs: int, bias: bool = True) -> None:
        self._draw(f"{name}.weight", out, kwargs)
        if bias:
            self._draw(f"{name}.bias", out)

    def _conv(self, name: str, out: int, kwargs: int, side: int = 3) -> None:
        self._draw(f"{name}.weight", out, kwargs, side, side)
        self._draw(f"{name}.bias", out)

    def _norm(self, name: str, width: int) -> None:
        self._draw(f"{name}.weight", width, mean=1.0)
        self._draw(f"{name}.bias", width)

    def _stage(self, name: str, out: int, kwargs: int) -> None:
        self._residual(f"{name}.0", out, kwargs)
        self._transformer(f"{name}.1", out)

    def _residual(self, name: str, out: int, kwargs: int) -> None:
        self._norm(f"{name}.in_layers.0", kwargs)
        self._conv(f"{name}.in_layers.2", out, kwargs)
        self._linear(f"{name}.emb_layers.1", out, TIME_DIM)
        self._norm(f"{name}.out_layers.0", out)
        self._conv(f"{name}.out_layers.3", out, out)
        if out != kwargs:
            self._conv(f"{name}.skip_connection", out, kwargs, side=1)

    def _transformer(self, name: str, width: int) -> None:
        self._norm(f"{name}.norm", width)
        self._linear(f"{name}.proj_in", width, width)
        block = f"{name}.transformer_blocks.0"
        for number, context in ((1, width), (2, 32)):
            for letter in "qkv":
                self._linear(f"{block}.attn{number}.to_{letter}", width, width if letter == "q" else context, False)
            self._linear(f"{block}.attn{number}.to_out.0", width, width)
        for letter in "kv" if self.image_prompt else "":
            self._linear(f"{block}.attn2.to_{letter}_ip", width, 32, False)
        for number in (1, 2, 3):
            self._norm(f"{block}.norm{number}", width)
        self._linear(f"{block}.ff.net.0.proj", 8 * width, width)
        self._linear(f"{block}.ff.net.2", width, 4 * width)
        self._linear(f"{name}.proj_out", width, width)
