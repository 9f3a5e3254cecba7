"""Networks that see several views of one object at once (MVDream, Shi et al. 2023; ImageDream, Wang and Shi 2023).

They are Stable Diffusion's network with two changes: self-attention goes over the tokens of all views of a group, and
an embedding of each view's pose is added to that of the time. ImageDream's has two more: it attends to tokens of a
picture beside those of the text, and a last view of each group is that picture itself.
Shapes: N views, those of a group one after another; C x h x w latents, S tokens of a view, D numbers of a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from guidance.priors.diffusers.networks import ATTENTION_LAYERS, NetworkInput

VIEWS_PER_GROUP = 4
"""Views in a group, as both were trained."""
_POSE_DIM = 16


@dataclass
class MultiViewAttention:
    """Attention in which every token sees those of all views of its group; a processor of diffusers' attention."""

    inner: Any
    """The processor that does it for one view."""
    views: int

    def __call__(
        self,
        attn: Any,
        hidden_states: Float[Tensor, "N S D"],
        encoder_hidden_states: Float[Tensor, "N L E"] | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Float[Tensor, "N S D"]:
        tokens = hidden_states.unflatten(0, (-1, self.views)).flatten(1, 2)
        output: Tensor = self.inner(attn, tokens, None, attention_mask, temb)
        views: Tensor = output.unflatten(1, (self.views, -1)).flatten(0, 1)
        return views


class ImageCrossAttention(nn.Module):
    """Cross-attention to a text, and apart from it to the last `count` tokens, which are of a picture."""

    def __init__(self, in_features: int, out_features: int, num_image_tokens: int) -> None:
        super().__init__()
        self.to_k_ip, self.to_v_ip = (nn.Linear(in_features, out_features, bias=False) for _ in range(2))
        self.num_image_tokens = num_image_tokens

    def forward(
        self,
        attn: Any,
        hidden_states: Float[Tensor, "N S D"],
        encoder_hidden_states: Float[Tensor, "N L E"],
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Float[Tensor, "N S D"]:
        text, image = (
            encoder_hidden_states[:, : -self.num_image_tokens],
            encoder_hidden_states[:, -self.num_image_tokens :],
        )

        def heads(rows: Tensor) -> Tensor:
            split: Tensor = rows.unflatten(-1, (attn.heads, -1))
            return split.transpose(1, 2)

        query = heads(attn.to_q(hidden_states))
        pairs = ((attn.to_k(text), attn.to_v(text)), (self.to_k_ip(image), self.to_v_ip(image)))
        attended = [functional.scaled_dot_product_attention(query, heads(key), heads(value)) for key, value in pairs]
        output: Tensor = attn.to_out[0]((attended[0] + attended[1]).transpose(1, 2).flatten(-2))
        return output


class PoseTimeEmbedding(nn.Module):
    """A network's embedding of the time, with one of the pose on top; the poses are told before a pass, by `tell`."""

    def __init__(self, inner: nn.Module, width: int) -> None:
        super().__init__()
        self.inner = inner
        self.embed = nn.Sequential(nn.Linear(_POSE_DIM, width), nn.SiLU(), nn.Linear(width, width))
        self._poses: tuple[Tensor, Tensor] | None = None

    def set_poses(self, pose: Float[Tensor, "N 16"], known: Float[Tensor, " N"]) -> None:
        """The poses of the next pass; nothing is added where `known` is 0."""
        self._poses = pose, known

    def forward(self, *args: Any) -> Tensor:
        embedded: Tensor = self.inner(*args)
        if self._poses is None:
            return embedded
        pose, known = (value.to(embedded.dtype) for value in self._poses)
        added: Tensor = known[:, None] * self.embed(pose)
        return embedded + added


@dataclass(frozen=True)
class MultiViewUNet:
    """MVDream, and with `tokens` ImageDream."""

    network: nn.Module
    num_train_timesteps: int
    """Of its schedule: it is told the time as a number from 0 to steps - 1."""
    views_per_group: int = VIEWS_PER_GROUP
    num_image_tokens: int = 0
    """Of a picture, behind which its latents come as further rows; 0 for a network that sees none."""

    time_embedding_name: ClassVar[str] = "time_embedding"
    lora_target_modules: ClassVar[tuple[str, ...]] = ATTENTION_LAYERS
    guidance_distilled: ClassVar[bool] = False

    def forward(self, inputs: NetworkInput) -> Float[Tensor, "N C h w"]:
        x_t, time, text = inputs.x_t, inputs.t * (self.num_train_timesteps - 1), inputs.text.text_embeds
        known, pose = inputs.camera[:, 0], camera_to_pose(inputs.camera)
        if self.num_image_tokens:
            assert inputs.text.image_embeds is not None
            image, latents = (
                inputs.text.image_embeds[:, : self.num_image_tokens],
                inputs.text.image_embeds[:, self.num_image_tokens :],
            )
            text = torch.cat([text, image], 1)
            image_latents = latents.flatten(1)[:, : x_t[0].numel()].reshape(x_t.shape)
            # The view that is the picture itself has a pose of zeros, which is embedded as any other.
            x_t = self._append_per_group(x_t, image_latents)
            pose = self._append_per_group(pose, torch.zeros_like(pose))
            known = self._append_per_group(known, torch.ones_like(known))
            time, text = self._append_per_group(time, time), self._append_per_group(text, text)
        time_embedding = getattr(self.network, self.time_embedding_name)
        time_embedding.set_poses(pose, known)
        output: Tensor = self.network(x_t, time, text, return_dict=False)[0]
        if self.num_image_tokens:
            output = output.unflatten(0, (-1, self.views_per_group + 1))[:, :-1].flatten(0, 1)
        return output

    def _append_per_group(self, rows: Tensor, extra: Tensor) -> Tensor:
        """Each group with one row more: the first of the same group in `extra`."""
        groups = rows.unflatten(0, (-1, self.views_per_group))
        return torch.cat([groups, extra.unflatten(0, (-1, self.views_per_group))[:, :1]], 1).flatten(0, 1)


def make_multiview(network: Any, views: int, tokens: int = 0) -> None:
    """Makes Stable Diffusion's network one that sees `views` of an object at once, with layers that are to be filled:
    the embedding of poses, and those for the `tokens` of a picture."""
    for name, module in network.named_modules():
        if name.endswith(".attn1"):
            module.set_processor(MultiViewAttention(module.processor, views))
        elif name.endswith(".attn2") and tokens:
            module.set_processor(ImageCrossAttention(module.to_k.in_features, module.to_k.out_features, tokens))
    network.time_embedding = PoseTimeEmbedding(network.time_embedding, network.time_embedding.linear_2.out_features)


def camera_to_pose(camera: Float[Tensor, "N 5"]) -> Float[Tensor, "N 16"]:
    """The pose that MVDream is told, from `camera.features`: camera to world, row by row, in Blender's frame (+Z up,
    the front at -Y) and OpenGL's axes of a camera at distance 1 that looks at the middle."""
    _, sin_a, cos_a, sin_e, cos_e = camera.unbind(-1)
    zero, one = torch.zeros_like(sin_a), torch.ones_like(sin_a)
    rows = [
        *(cos_a, -sin_a * sin_e, sin_a * cos_e, sin_a * cos_e),
        *(sin_a, cos_a * sin_e, -cos_a * cos_e, -cos_a * cos_e),
        *(zero, cos_e, sin_e, sin_e),
        *(zero, zero, zero, one),
    ]
    return torch.stack(rows, -1)
