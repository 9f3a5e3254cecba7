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

from guidance.critics.lora import Critic, moments, part, restore_moments, seeded, spread_times
from guidance.priors.base import Condition, noised, per_view

_WIDTH = 48
_RATE = 1e-3
"""AdamW's rate for the head."""
_LARGEST = 10.0
"""Logits beyond this are of no use."""


class DiscerningCritic:
    """A `Denoiser` that learns, and a `Weighing` one."""

    def __init__(self, critic: Critic, samples: Float[Tensor, "N C h w"], posed: Condition) -> None:
        """`samples` of the prior as clean latents, drawn under the conditions `posed`."""
        self.critic, self.samples, self.posed = critic, samples, posed
        channels = samples.shape[1]
        with seeded(critic.rng):
            self.head = nn.Sequential(
                nn.Conv2d(2 * channels + 1, _WIDTH, 3, stride=2, padding=1),
                nn.SiLU(),
                nn.Conv2d(_WIDTH, _WIDTH, 3, stride=2, padding=1),
                nn.SiLU(),
                nn.Conv2d(_WIDTH, 1, 1),
            ).to(samples)
        for parameter in self.head[-1].parameters():  # at first, neither is likelier
            nn.init.zeros_(parameter)
        self._trained = dict(self.head.named_parameters())
        self._optimiser = torch.optim.AdamW(self._trained.values(), lr=_RATE, betas=(0.9, 0.99), fused=True)

    def levels(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        return self.critic.levels(t)

    def predict(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], conditions: list[Condition]
    ) -> Float[Tensor, "K B C h w"]:
        return self.critic.predict(x_t, t, conditions)

    @torch.no_grad()
    def ratio(self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition) -> Float[Tensor, " B"]:
        """How many times likelier x_t is as a noised sample of the prior than as a noised render."""
        return self._logit(x_t, t, condition).clamp(-_LARGEST, _LARGEST).exp()

    @torch.enable_grad()
    def learn(self, x: Float[Tensor, "B C h w"], condition: Condition, parts: int = 1) -> float:
        """Learns from clean latents of renders, the head beside as many samples; returns what the critic does."""
        error, rng, many = self.critic.learn(x, condition, parts), self.critic.rng, self.critic.adapted.together
        groups = torch.randint(len(self.samples) // many, (len(x) // many,), generator=rng)
        rows = (groups[:, None] * many + torch.arange(many)).flatten().to(x.device)
        t = spread_times(len(x) // many, rng).repeat_interleave(many).to(x)
        loss = x.new_zeros(())
        # softplus(-logit) where the answer should be "sample", softplus(logit) where it should be "render".
        for clean, told, sign in ((self.samples[rows], self.posed.rows(rows), -1), (x.detach(), condition, 1)):
            noise = torch.randn(x.shape, generator=rng).to(x)
            loss = loss + F.softplus(sign * self._logit(noised(clean, noise, *self.levels(t)), t, told)).mean()
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._optimiser.step()
        return error

    def state(self) -> dict[str, Tensor]:
        """All that `restore` needs to go on bit for bit, but for the generator and the samples."""
        tensors = {f"critic.{name}": value for name, value in self.critic.state().items()}
        tensors |= {f"head.{name}": parameter.detach().clone() for name, parameter in self._trained.items()}
        return tensors | {f"adam.{name}": value for name, value in moments(self._optimiser, self._trained).items()}

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor]) -> None:
        """Takes over what `state` gave. Raises ValueError if it is of another critic."""
        self.critic.restore(part(state, "critic"))
        for name, value in part(state, "head").items():
            self._trained[name].copy_(value)
        restore_moments(self._optimiser, self._trained, part(state, "adam"))

    def _logit(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition
    ) -> Float[Tensor, " B"]:
        """Positive for "sample"; the head sees x_t, what the critic takes for clean in it, and the time."""
        _, sigma = self.levels(t)
        with torch.no_grad():
            clean = x_t - per_view(sigma) * self.predict(x_t, t, [condition])[0]
        time = per_view(t).expand_as(x_t[:, :1])
        return self.head(torch.cat([x_t, clean, time], 1)).flatten(1).mean(1)  # type: ignore[no-any-return]
