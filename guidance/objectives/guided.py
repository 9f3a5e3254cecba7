"""Classifier-free guidance as most objectives ask for it: away from the negative prompt, and rescaled if wished."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from guidance.objectives.base import Objective
from guidance.priors.base import Denoiser, expand_like_latents, predict_x0, views_per_group
from guidance.priors.cfg import classifier_free_guidance


@dataclass(frozen=True)
class GuidedObjective(Objective, ABC):
    """A rule that asks about the text with classifier-free guidance.

    What the text is told apart from is `Wanted.negative`: no prompt, or the negative one where there is one.
    """

    guidance_rescale: float = field(default=0.0, kw_only=True)
    """Share, 0..1, by which the guided clean picture is brought back to the spread of the unguided one
    (Lin et al. 2023, section 3.4): less saturation at high scales."""

    def __post_init__(self) -> None:
        if not 0 <= self.guidance_rescale <= 1:
            raise ValueError(f"guidance_rescale is {self.guidance_rescale}; expected a share from 0 to 1")

    @property
    def uses_negative_prompt(self) -> bool:
        return True

    def guided_noise(
        self,
        prior: Denoiser,
        x_t: Float[Tensor, "B C h w"],
        t: Float[Tensor, " B"],
        negative: Float[Tensor, "B C h w"],
        text: Float[Tensor, "B C h w"],
        guidance_scale: float | Float[Tensor, "B 1 1 1"],
    ) -> Float[Tensor, "B C h w"]:
        """The guided answer made of two answers for x_t at t."""
        noise_pred = classifier_free_guidance(negative, text, guidance_scale)
        if self.guidance_rescale == 0:
            return noise_pred
        return rescale_cfg(noise_pred, text, x_t, *prior.alpha_sigma(t), self.guidance_rescale, views_per_group(prior))


def rescale_cfg(
    noise_pred: Float[Tensor, "B C h w"],
    text: Float[Tensor, "B C h w"],
    x_t: Float[Tensor, "B C h w"],
    alpha: Float[Tensor, " B"],
    sigma: Float[Tensor, " B"],
    guidance_rescale: float,
    views_per_group: int = 1,
) -> Float[Tensor, "B C h w"]:
    """Rescales a guided noise prediction: the std of its x0 moves by `guidance_rescale` (0..1) towards that
    of the prediction under the text alone (Lin et al. 2024, section 3.4, applied to x0 instead of the noise).

    The standard deviation is that of each group of `views_per_group` views, one sample of a multi-view prior.
    """
    guided_x, text_x = predict_x0(x_t, noise_pred, alpha, sigma), predict_x0(x_t, text, alpha, sigma)
    text_std, guided_std = (x.unflatten(0, (-1, views_per_group)).flatten(1).std(1) for x in (text_x, guided_x))
    ratio = (text_std / guided_std.clamp_min(1e-6)).repeat_interleave(views_per_group)
    x = guided_x * expand_like_latents(1 - guidance_rescale + guidance_rescale * ratio)
    return (x_t - expand_like_latents(alpha) * x) / expand_like_latents(sigma).clamp_min(1e-6)
