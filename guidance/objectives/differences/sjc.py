"""Score Jacobian Chaining (Wang et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from guidance.objectives.base import ObjectiveInfo, ObjectiveOutput, ViewBatch
from guidance.objectives.guided import GuidedObjective
from guidance.objectives.weighting import check_finite
from guidance.priors.base import Denoiser, add_noise


@dataclass(frozen=True)
class SJC(GuidedObjective):
    """gradient = (x - D(y)) / s, the way to the clean picture D that the prior sees in y = x + s * noise.

    The paper adds noise and scales nothing ("variance exploding"): s = sigma / alpha, y = x_t / alpha, and the network
    is fed alpha * y = x_t. With D(y) = y - s * answer the gradient is the guided answer less the drawn noise, which is
    SDS with the weighting `uniform`; leaving from y instead of x, it is the answer alone.
    """

    info: ClassVar[ObjectiveInfo | None] = ObjectiveInfo(
        title="Score Jacobian Chaining",
        reference="Wang et al. 2022; run_sjc.py of the authors",
        forward_passes=(2, 2),
        guidance_scale="100",
        timestep_range="0.01 to 0.97",
        summary="voxel fields: every noise time pulls alike, so fine detail counts for more than in SDS",
    )

    guidance_scale: float = 7.5
    """Classifier-free guidance in the standard form (1 is none). The authors used 100 with Stable Diffusion."""
    variance_reduced: bool = True
    """Whether the way starts from the picture; otherwise it starts from the noised picture, the same on average."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite("guidance_scale", self.guidance_scale)

    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        alpha, sigma = prior.alpha_sigma(batch.t)
        x_t = add_noise(batch.latents, batch.noise, alpha, sigma)
        negative, text = prior.predict_noise(x_t, batch.t, [batch.conditions.negative, batch.conditions.text])
        noise_pred = self.guided_noise(prior, x_t, batch.t, negative, text, self.guidance_scale)
        grad = noise_pred - batch.noise if self.variance_reduced else noise_pred
        return ObjectiveOutput(grad, {"t": float(batch.t.mean())})
