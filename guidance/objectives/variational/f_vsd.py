"""Distillation by any f-divergence (Xu et al. 2025, f-distill, theorem 1): VSD, weighted by a ratio of densities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, get_args, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from guidance.objectives.base import ObjectiveInfo, ObjectiveOutput, ViewBatch
from guidance.objectives.guided import GuidedObjective
from guidance.objectives.variational.vsd import VSD
from guidance.objectives.weighting import Weighting, check_choice, check_finite
from guidance.priors.base import Condition, Denoiser, add_noise, expand_like_latents

Divergence = Literal["reverse-kl", "softened-reverse-kl", "js", "hellinger", "forward-kl", "jeffreys", "neyman"]
"""From those that seek a mode to those that cover all: of the prior p from the renders q, E_q[f(p / q)]."""


@runtime_checkable
class DensityRatioCritic(Denoiser, Protocol):
    """A critic that also compares."""

    def density_ratio(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition
    ) -> Float[Tensor, " B"]:
        """How many times likelier x_t is as a noised sample of the prior than as a noised render; above 0."""
        ...


@dataclass(frozen=True)
class FVSD(GuidedObjective):
    """gradient = h(r) * the gradient of VSD, with r = p / q as the critic tells it, and h(r) = r^2 f''(r).

    The published code also divides h by its mean over the batch; Adam makes that of no consequence, and without it
    a view's gradient is its own.
    """

    info: ClassVar[ObjectiveInfo | None] = ObjectiveInfo(
        title="f-divergence VSD (f-distill)",
        reference="Xu et al. 2025 (f-distill), theorem 1 and table 1; NVlabs/FastGen",
        forward_passes=(2, 2),
        guidance_scale="1.75 with Stable Diffusion 1.5, 8 with SDXL",
        timestep_range="0.02 to 0.98",
        summary="a choice between sharp modes and full coverage, by the divergence",
        critic_passes=2,
    )
    needs_critic: ClassVar[bool] = True
    needs_discriminator: ClassVar[bool] = True

    guidance_scale: float = 7.5
    """Classifier-free guidance of the prior in the standard form (1 is none)."""
    divergence: Divergence = "js"
    """What is minimised; reverse-kl is VSD."""
    weighting: Weighting = "sds"
    ratio_min: float = 0.1
    """The ratio counts as no less than this."""
    ratio_max: float = 20.0
    """The ratio counts as no more than this."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite("guidance_scale", self.guidance_scale)
        check_choice("weighting", self.weighting, get_args(Weighting))
        check_choice("divergence", self.divergence, get_args(Divergence))
        if not 0 < self.ratio_min <= 1 <= self.ratio_max:
            raise ValueError(
                f"ratio_min is {self.ratio_min} and ratio_max {self.ratio_max}; "
                "expected 0 < ratio_min <= 1 <= ratio_max"
            )

    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        if not isinstance(critic, DensityRatioCritic):
            raise ValueError(f"f-vsd needs a critic that tells ratios of densities; {type(critic).__name__} does not")
        x_t = add_noise(batch.latents, batch.noise, *prior.alpha_sigma(batch.t))
        ratio = critic.density_ratio(x_t, batch.t, batch.conditions.text_with_camera).clamp(
            self.ratio_min, self.ratio_max
        )
        output = VSD(self.guidance_scale, self.weighting, guidance_rescale=self.guidance_rescale)(prior, critic, batch)
        h = expand_like_latents(divergence_weight(self.divergence, ratio))
        return ObjectiveOutput(h * output.grad, {**output.logs, "ratio": float(ratio.mean())})


def divergence_weight(divergence: Divergence, r: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """h(r) = r^2 f''(r) of the divergence E_q[f(r)], r = p / q (table 1; f in the comments)."""
    match divergence:
        case "reverse-kl":  # -log r
            return r.new_ones(r.shape)
        case "softened-reverse-kl":  # (r + 1) log((r + 1) / 2r)
            return 1 / (1 + r)
        case "js":  # r log r - (r + 1) log((r + 1) / 2)
            return r / (1 + r)
        case "hellinger":  # 1 - sqrt(r)
            return r.sqrt() / 4
        case "forward-kl":  # r log r
            return r
        case "jeffreys":  # (r - 1) log r
            return 1 + r
        case "neyman":  # 1 / r - 1
            return 2 / r
