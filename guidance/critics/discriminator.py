"""A critic that also tells renders from samples of the prior, and so how much likelier one is than the other.

A small head on the critic's answers learns to tell noised samples from noised renders; the best such head's logit is
the logarithm of the ratio of their densities (Goodfellow et al. 2014, proposition 1).
Shapes: B views, N samples, C x h x w latents, K conditions.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from guidance.critics.lora import (
    Critic,
    fork_rng_from,
    load_optimizer_state,
    optimizer_state,
    stratified_timesteps,
    strip_prefix,
)
from guidance.priors.base import Condition, add_noise, expand_like_latents

_HEAD_WIDTH = 48
_LR = 1e-3
"""AdamW's rate for the head."""
_MAX_LOGIT = 10.0
"""Logits beyond this are of no use."""


class DiscriminatorCritic:
    """A `Denoiser` that learns, and a `DensityRatioCritic` one."""

    def __init__(self, critic: Critic, prior_samples: Float[Tensor, "N C h w"], sample_conditions: Condition) -> None:
        """`prior_samples` of the prior as clean latents, drawn under the conditions `sample_conditions`."""
        self.critic, self.prior_samples, self.sample_conditions = critic, prior_samples, sample_conditions
        channels = prior_samples.shape[1]
        with fork_rng_from(critic.rng):
            self.head = nn.Sequential(
                nn.Conv2d(2 * channels + 1, _HEAD_WIDTH, 3, stride=2, padding=1),
                nn.SiLU(),
                nn.Conv2d(_HEAD_WIDTH, _HEAD_WIDTH, 3, stride=2, padding=1),
                nn.SiLU(),
                nn.Conv2d(_HEAD_WIDTH, 1, 1),
            ).to(prior_samples)
        for parameter in self.head[-1].parameters():  # at first, neither is likelier
            nn.init.zeros_(parameter)
        self._trainable = dict(self.head.named_parameters())
        self._optimizer = torch.optim.AdamW(self._trainable.values(), lr=_LR, betas=(0.9, 0.99), fused=True)

    def alpha_sigma(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        return self.critic.alpha_sigma(t)

    def predict_noise(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], conditions: list[Condition]
    ) -> Float[Tensor, "K B C h w"]:
        return self.critic.predict_noise(x_t, t, conditions)

    @torch.no_grad()
    def density_ratio(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition
    ) -> Float[Tensor, " B"]:
        """How many times likelier x_t is as a noised sample of the prior than as a noised render."""
        return self._logit(x_t, t, condition).clamp(-_MAX_LOGIT, _MAX_LOGIT).exp()

    @torch.enable_grad()
    def train_step(self, latents: Float[Tensor, "B C h w"], condition: Condition, num_chunks: int = 1) -> float:
        """Learns from clean latents of renders, the head beside as many samples; returns what the critic does."""
        critic_loss, rng, group_size = (
            self.critic.train_step(latents, condition, num_chunks),
            self.critic.rng,
            self.critic.denoiser.views_per_group,
        )
        groups = torch.randint(len(self.prior_samples) // group_size, (len(latents) // group_size,), generator=rng)
        rows = (groups[:, None] * group_size + torch.arange(group_size)).flatten().to(latents.device)
        t = stratified_timesteps(len(latents) // group_size, rng).repeat_interleave(group_size).to(latents)
        loss = latents.new_zeros(())
        # softplus(-logit) where the answer should be "sample", softplus(logit) where it should be "render".
        for clean, clean_condition, sign in (
            (self.prior_samples[rows], self.sample_conditions.select(rows), -1),
            (latents.detach(), condition, 1),
        ):
            noise = torch.randn(latents.shape, generator=rng).to(latents)
            loss = (
                loss
                + F.softplus(
                    sign * self._logit(add_noise(clean, noise, *self.alpha_sigma(t)), t, clean_condition)
                ).mean()
            )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        return critic_loss

    def training_state(self) -> dict[str, Tensor]:
        """All that `load_training_state` needs to go on bit for bit, but for the generator and the samples."""
        tensors = {f"critic.{name}": value for name, value in self.critic.training_state().items()}
        tensors |= {f"head.{name}": parameter.detach().clone() for name, parameter in self._trainable.items()}
        return tensors | {
            f"adam.{name}": value for name, value in optimizer_state(self._optimizer, self._trainable).items()
        }

    @torch.no_grad()
    def load_training_state(self, state: dict[str, Tensor]) -> None:
        """Takes over what `state` gave. Raises ValueError if it is of another critic."""
        self.critic.load_training_state(strip_prefix(state, "critic"))
        for name, value in strip_prefix(state, "head").items():
            self._trainable[name].copy_(value)
        load_optimizer_state(self._optimizer, self._trainable, strip_prefix(state, "adam"))

    def _logit(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition
    ) -> Float[Tensor, " B"]:
        """Positive for "sample"; the head sees x_t, what the critic takes for clean in it, and the time."""
        _, sigma = self.alpha_sigma(t)
        with torch.no_grad():
            clean = x_t - expand_like_latents(sigma) * self.predict_noise(x_t, t, [condition])[0]
        t_channel = expand_like_latents(t).expand_as(x_t[:, :1])
        return self.head(torch.cat([x_t, clean, t_channel], 1)).flatten(1).mean(1)  # type: ignore[no-any-return]
