"""A diffusion model of others as a `Prior`: whatever its network says, the answer is the noise, in float32."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from guidance.priors.base import Condition, LoRATarget, expand_like_latents
from guidance.priors.diffusers.codecs import Codec
from guidance.priors.diffusers.multiview.camera_embedding import (
    CameraTimeEmbedding,
    camera_features_for,
    time_embedding_dim,
)
from guidance.priors.diffusers.networks import NetworkAdapter, NetworkInput
from guidance.priors.diffusers.offload import on_device
from guidance.priors.diffusers.prompts.encoding import PromptEncoder, unsupported_markup
from guidance.priors.diffusers.prompts.image_prompt import ImagePromptEncoder
from guidance.priors.diffusers.schedules import to_noise_pred
from guidance.priors.schedule import Schedule


class DiffusersPrior:
    """A text-conditioned `Prior`; `guidance.priors.diffusers.loading` makes one of a folder."""

    def __init__(
        self,
        adapter: NetworkAdapter,
        schedule: Schedule,
        prediction_type: str,
        codec: Codec,
        prompt_encoder: PromptEncoder,
        image_size: int,
        max_batch: int = 0,
    ) -> None:
        """
        Args:
            prediction_type: what the network says: `epsilon`, `v_prediction`, `sample`, or `flow` (noise - x).
            image_size: height and width of pictures, pixels.
            max_batch: pictures in a pass of the network at most; 0 is all.
        """
        self.adapter, self.schedule, self.prediction_type = adapter, schedule, prediction_type
        self.codec, self.prompt_encoder, self.max_batch = codec, prompt_encoder, max_batch
        self._image_size = image_size
        self.execution_device: torch.device | None = None
        """Where the network works, if it does not lie there (see `on_device`)."""
        self._null_image_tokens: Tensor | None = None

    @property
    def image_size(self) -> int:
        return self._image_size

    @property
    def views_per_group(self) -> int:
        """Views of one object that it has to be shown at once, as `guidance.priors.base.MultiViewPrior` says."""
        return self.adapter.views_per_group

    @property
    def camera_conditioned(self) -> bool:
        """Networks that see several views are told where each is."""
        return self.views_per_group > 1

    @property
    def device(self) -> torch.device:
        return self.execution_device or self.storage_device

    @property
    def storage_device(self) -> torch.device:
        """Where the network's weights are between passes."""
        return next(self.adapter.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """In which the network works."""
        return next(self.adapter.network.parameters()).dtype

    @property
    def guidance_distilled(self) -> bool:
        """Whether guidance went into the weights, so that answers must not be guided again."""
        return self.adapter.guidance_distilled

    def alpha_sigma(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        return self.schedule.alpha_sigma(t)

    def predict_noise(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], conditions: list[Condition]
    ) -> Float[Tensor, "K B C h w"]:
        count, precision = len(conditions), torch.promote_types(x_t.dtype, torch.float32)
        alpha, sigma = self.alpha_sigma(t)
        if len(x_t) % self.views_per_group:
            raise ValueError(f"{len(x_t)} views; this model sees {self.views_per_group} of one object at once")
        cameras = camera_features_for([condition.camera for condition in conditions], x_t)
        noisy, text = x_t.to(self.dtype).repeat(count, 1, 1, 1), self._cat_conditions(conditions)
        raw = self._forward_batched(NetworkInput(noisy, t.repeat(count), sigma.repeat(count), text, cameras))
        a, s, here = (
            expand_like_latents(alpha).to(precision),
            expand_like_latents(sigma).to(precision),
            x_t.to(precision),
        )
        noise_preds = raw.to(precision).chunk(count)
        return torch.stack([to_noise_pred(noise_pred, here, self.prediction_type, a, s) for noise_pred in noise_preds])

    def encode_prompt(self, texts: list[str]) -> Condition:
        """Texts as conditions; the end of one that is too long is left out (see `check`)."""
        return self.prompt_encoder.encode(texts, self.device)

    warnings: tuple[str, ...] = ()
    """What was left out when the model was opened."""

    def validate_prompt(self, text: str) -> str | None:
        """A remark about the end of a text that will be left out, about markup that is read as words, or None."""
        messages = [*self.warnings, unsupported_markup(text), self.prompt_encoder.validate(text)]
        return "; ".join(message for message in messages if message) or None

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        return self.codec.encode(rgb)

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        return self.codec.decode(latents)

    def lora_target(self) -> LoRATarget:
        """This prior around a network of the same weights, which are shared, as nothing changes them, and new modules,
        to which layers can be added unseen by this one; its embedding of the time also takes the camera."""
        network = copy_sharing_parameters(self.adapter.network)
        if not self.camera_conditioned:
            time_embedding = network.get_submodule(self.adapter.time_embedding_name)
            network.set_submodule(
                self.adapter.time_embedding_name,
                CameraTimeEmbedding(time_embedding, time_embedding_dim(time_embedding)).to(self.storage_device),
            )
        other = copy.copy(self)
        other.adapter = replace(self.adapter, network=network)  # type: ignore[type-var]
        return LoRATarget(other, network, self.adapter.lora_target_modules)

    def _forward_batched(self, inputs: NetworkInput) -> Float[Tensor, "N C h w"]:
        """The network's own answers, in as many passes as the memory wants: where it runs out, half as many rows."""
        count, group_size = len(inputs.x_t), self.views_per_group
        while True:
            batch_size = max(min(self.max_batch or count, count) // group_size, 1) * group_size
            try:
                with on_device(self.adapter.network, self.execution_device):
                    outputs = [
                        self._forward_rows(inputs, slice(n, n + batch_size)) for n in range(0, count, batch_size)
                    ]
                return torch.cat(outputs)
            except torch.OutOfMemoryError:
                if batch_size == group_size:
                    raise
                self.max_batch = max(batch_size // 2 // group_size, 1) * group_size
                warnings.warn(f"the memory ran out: from here on {self.max_batch} pictures in a pass", stacklevel=3)
            torch.cuda.empty_cache()

    def _forward_rows(self, inputs: NetworkInput, rows: slice) -> Float[Tensor, "M C h w"]:
        """The network's own answer to some rows of a question."""
        time_embedding = self.adapter.network.get_submodule(self.adapter.time_embedding_name)
        if isinstance(time_embedding, CameraTimeEmbedding):
            time_embedding.set_cameras(inputs.camera[rows])
        index = torch.arange(len(inputs.x_t), device=inputs.x_t.device)[rows]
        text, camera = inputs.text.select(index), inputs.camera[rows]
        return self.adapter.forward(NetworkInput(inputs.x_t[rows], inputs.t[rows], inputs.sigma[rows], text, camera))

    def _cat_conditions(self, conditions: list[Condition]) -> Condition:
        """One condition of all rows, in the network's precision, without cameras."""
        tokens = torch.cat([condition.text_embeds for condition in conditions]).to(self.dtype)
        pooled = [
            condition.pooled_embeds.to(self.dtype) for condition in conditions if condition.pooled_embeds is not None
        ]
        mask = torch.cat([condition.attention_mask for condition in conditions])
        images = (
            [self._image_tokens_of(condition) for condition in conditions]
            if self._null_image_tokens is not None
            else []
        )
        image = torch.cat(images) if images else None
        return Condition(tokens, mask, None, image, pooled_embeds=torch.cat(pooled) if pooled else None)

    def _image_tokens_of(self, condition: Condition) -> Float[Tensor, "B N E"]:
        """The picture of a condition as tokens, those of no picture where it has none."""
        assert self._null_image_tokens is not None
        image = (
            self._null_image_tokens.expand(len(condition), -1, -1)
            if condition.image_embeds is None
            else condition.image_embeds
        )
        return image.to(self.device, self.dtype)


class ImagePromptDiffusersPrior(DiffusersPrior):
    """A `ImagePromptPrior` one: it can be shown what is wanted."""

    def with_image_encoder(self, image_encoder: ImagePromptEncoder) -> ImagePromptDiffusersPrior:
        """The same, with eyes."""
        self._image_encoder = image_encoder
        self._null_image_tokens = image_encoder.null_tokens()
        return self

    def encode_image_prompt(self, rgb: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "1 N E"]:
        return self._image_encoder.encode(rgb).to(self.device)


def copy_sharing_parameters(network: nn.Module) -> nn.Module:
    """A network with modules of its own around the very same parameters and buffers."""
    tensors = [*network.parameters(), *network.buffers()]
    return copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})
