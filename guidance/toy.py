"""A prior whose answers are known exactly: its data is a mixture of Gaussians. For tests, lessons and quick trials.

Noised data of a component N(m_k, s_k^2 I) is N(alpha m_k, V_k I) with V_k = alpha^2 s_k^2 + sigma^2, so the best noise
answer has a closed form. A text stands for weights of the components; the camera changes nothing.
Shapes: B views, N components, K conditions, C x h x w latents, which are pictures themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from guidance.prior import Condition, per_view
from guidance.schedule import ScaledLinear


@dataclass(frozen=True)
class ToyPrior:
    """An exact `Prior`."""

    means: Float[Tensor, "N C h w"]
    deviations: Float[Tensor, " N"]
    """Standard deviation of each component, the same in every direction."""
    texts: Mapping[str, tuple[float, ...]]
    """Weights of the components under each text; "" is no text. They need not sum to one."""
    schedule: ScaledLinear = field(default_factory=ScaledLinear)

    sees_camera = True

    def __post_init__(self) -> None:
        if "" not in self.texts:
            raise ValueError('the texts lack "", the weights of the components under no text')
        for text, weights in self.texts.items():
            if len(weights) != len(self.means):
                raise ValueError(f"{text!r} weighs {len(weights)} components; there are {len(self.means)}")
            if min(weights) < 0 or not sum(weights) > 0:
                raise ValueError(f"{text!r} has weights {weights}; expected none below 0 and one above")
        if not bool((self.deviations >= 0).all()):
            raise ValueError(f"deviations are {self.deviations.tolist()}; expected none below 0")

    @property
    def picture_size(self) -> int:
        return self.means.shape[-1]

    def levels(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        return self.schedule.levels(t)

    def predict(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], conditions: list[Condition]
    ) -> Float[Tensor, "K B C h w"]:
        """sigma * sum_k gamma_k (x_t - alpha m_k) / V_k, with gamma_k the chance that x_t is of component k."""
        alpha, sigma = self.levels(t)
        apart, variance = self._apart(x_t, alpha, sigma)
        answers = []
        for condition in conditions:
            gamma = self._log_joint(apart, variance, condition).softmax(-1)
            answers.append(per_view(sigma) * torch.einsum("bn,bnchw->bchw", gamma / variance, apart))
        return torch.stack(answers)

    def log_density(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition
    ) -> Float[Tensor, " B"]:
        """Logarithm of the density of noised data, whose gradient is -`predict` / sigma."""
        alpha, sigma = self.levels(t)
        dimension = self.means[0].numel()
        constant = 0.5 * dimension * torch.log(torch.tensor(2 * torch.pi, dtype=x_t.dtype))
        return self._log_joint(*self._apart(x_t, alpha, sigma), condition).logsumexp(-1) - constant

    def read(self, texts: list[str]) -> Condition:
        """Texts as one token each, the components' weights. Raises ValueError for a text without weights."""
        for text in texts:
            if text not in self.texts:
                raise ValueError(
                    f"the toy prior does not know {text!r}; it knows: {', '.join(filter(None, self.texts))}"
                )
        weights = torch.tensor([self.texts[text] for text in texts], dtype=self.means.dtype, device=self.means.device)
        tokens = (weights / weights.sum(-1, keepdim=True))[:, None]
        return Condition(tokens, torch.ones_like(tokens[..., 0], dtype=torch.bool), None)

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        return rgb

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        return latents

    def _apart(
        self, x_t: Float[Tensor, "B C h w"], alpha: Float[Tensor, " B"], sigma: Float[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B N C h w"], Float[Tensor, "B N"]]:
        """x_t - alpha m_k, and V_k."""
        variance = alpha[:, None].square() * self.deviations.square() + sigma[:, None].square()
        return x_t[:, None] - per_view(alpha)[:, None] * self.means, variance

    def _log_joint(
        self, apart: Float[Tensor, "B N C h w"], variance: Float[Tensor, "B N"], condition: Condition
    ) -> Float[Tensor, "B N"]:
        """Logarithm of weight times density of each component, without the power of 2 pi."""
        square = apart.flatten(2).square().sum(-1)
        dimension = self.means[0].numel()
        return condition.tokens[:, 0].log() - 0.5 * dimension * variance.log() - 0.5 * square / variance
