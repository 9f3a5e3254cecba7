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

from guidance.priors.diffusers.networks import ATTENTION, Question

VIEWS = 4
"""Views in a group, as both were trained."""
_POSE = 16


@dataclass
class JointAttention:
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
        together = hidden_states.unflatten(0, (-1, self.views)).flatten(1, 2)
        answer: Tensor = self.inner(attn, together, None, attention_mask, temb)
        views: Tensor = answer.unflatten(1, (self.views, -1)).flatten(0, 1)
        return views


class PictureAttention(nn.Module):
    """Cross-attention to a text, and apart from it to the last `count` tokens, which are of a picture."""

    def __init__(self, given: int, inner: int, count: int) -> None:
        super().__init__()
        self.to_k_ip, self.to_v_ip = (nn.Linear(given, inner, bias=False) for _ in range(2))
        self.count = count

    def forward(
        self,
        attn: Any,
        hidden_states: Float[Tensor, "N S D"],
        encoder_hidden_states: Float[Tensor, "N L E"],
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Float[Tensor, "N S D"]:
        text, picture = encoder_hidden_states[:, : -self.count], encoder_hidden_states[:, -self.count :]

        def heads(rows: Tensor) -> Tensor:
            split: Tensor = rows.unflatten(-1, (attn.heads, -1))
            return split.transpose(1, 2)

        query = heads(attn.to_q(hidden_states))
        pairs = ((attn.to_k(text), attn.to_v(text)), (self.to_k_ip(picture), self.to_v_ip(picture)))
        seen = [functional.scaled_dot_product_attention(query, heads(key), heads(value)) for key, value in pairs]
        answer: Tensor = attn.to_out[0]((seen[0] + seen[1]).transpose(1, 2).flatten(-2))
        return answer


class PoseAware(nn.Module):
    """A network's embedding of the time, with one of the pose on top; the poses are told before a pass, by `tell`."""

    def __init__(self, inner: nn.Module, width: int) -> None:
        super().__init__()
        self.inner = inner
        self.embed = nn.Sequential(nn.Linear(_POSE, width), nn.SiLU(), nn.Linear(width, width))
        self._told: tuple[Tensor, Tensor] | None = None

    def tell(self, pose: Float[Tensor, "N 16"], known: Float[Tensor, " N"]) -> None:
        """The poses of the next pass; nothing is added where `known` is 0."""
        self._told = pose, known

    def forward(self, *args: Any) -> Tensor:
        embedded: Tensor = self.inner(*args)
        if self._told is None:
            return embedded
        pose, known = (value.to(embedded.dtype) for value in self._told)
        added: Tensor = known[:, None] * self.embed(pose)
        return embedded + added


@dataclass(frozen=True)
class MultiViewUNet:
    """MVDream, and with `tokens` ImageDream."""

    network: nn.Module
    steps: int
    """Of its schedule: it is told the time as a number from 0 to steps - 1."""
    together: int = VIEWS
    tokens: int = 0
    """Of a picture, behind which its latents come as further rows; 0 for a network that sees none."""

    clock: ClassVar[str] = "time_embedding"
    layers: ClassVar[tuple[str, ...]] = ATTENTION
    distilled: ClassVar[bool] = False

    def answer(self, question: Question) -> Float[Tensor, "N C h w"]:
        x_t, time, text = question.x_t, question.t * (self.steps - 1), question.text.tokens
        known, pose = question.camera[:, 0], pose_of(question.camera)
        if self.tokens:
            assert question.text.image is not None
            picture, latents = question.text.image[:, : self.tokens], question.text.image[:, self.tokens :]
            text = torch.cat([text, picture], 1)
            shown = latents.flatten(1)[:, : x_t[0].numel()].reshape(x_t.shape)
            # The view that is the picture itself has a pose of zeros, which is embedded as any other.
            x_t = self._with_last(x_t, shown)
            pose = self._with_last(pose, torch.zeros_like(pose))
            known = self._with_last(known, torch.ones_like(known))
            time, text = self._with_last(time, time), self._with_last(text, text)
        clock = getattr(self.network, self.clock)
        clock.tell(pose, known)
        answer: Tensor = self.network(x_t, time, text, return_dict=False)[0]
        if self.tokens:
            answer = answer.unflatten(0, (-1, self.together + 1))[:, :-1].flatten(0, 1)
        return answer

    def _with_last(self, rows: Tensor, more: Tensor) -> Tensor:
        """Each group with one row more: the first of the same group in `more`."""
        groups = rows.unflatten(0, (-1, self.together))
        return torch.cat([groups, more.unflatten(0, (-1, self.together))[:, :1]], 1).flatten(0, 1)


def see_together(network: Any, views: int, tokens: int = 0) -> None:
    """Makes Stable Diffusion's network one that sees `views` of an object at once, with layers that are to be filled:
    the embedding of poses, and those for the `tokens` of a picture."""
    for name, module in network.named_modules():
        if name.endswith(".attn1"):
            module.set_processor(JointAttention(module.processor, views))
        elif name.endswith(".attn2") and tokens:
            module.set_processor(PictureAttention(module.to_k.in_features, module.to_k.out_features, tokens))
    network.time_embedding = PoseAware(network.time_embedding, network.time_embedding.linear_2.out_features)


def pose_of(camera: Float[Tensor, "N 5"]) -> Float[Tensor, "N 16"]:
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
