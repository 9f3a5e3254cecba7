"""Classifier Score Distillation (Yu et al. 2023)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, get_args

from guidance.objectives.base import Objective, ObjectiveInfo, ObjectiveOutput, ViewBatch
from guidance.objectives.weighting import Weighting, check_choice, check_finite, timestep_weight
from guidance.priors.base import Denoiser, add_noise, expand_like_latents

LinearRamp = tuple[float, float]
"""A number that moves in a straight line with the progress of a run, from the first value to the last."""


@dataclass(frozen=True)
class CSD(Objective):
    """gradient = scale * w(t) * (text + negative * answer to the negative prompt + empty * answer to no prompt + ...).

    As it stands, the classifier term of classifier-free guidance alone: scale * w(t) * (text - empty). The authors'
    two stages, with a negative prompt such as "oversaturated color, ugly, tiling, low quality, noisy":

        shape    weighting=uniform, negative=(0, -1), empty=(-1, 0), until=0.5
        texture  negative=(-1, -0.5), empty=(0, -0.5)

    (They also brought the first stage's gradient to unit length, a limit of the run: `guidance.gradient_clipping`.)
    Nothing holds the picture where it is: without a negative prompt, falling noise times or a regulariser, it drifts.
    """

    info: ClassVar[ObjectiveInfo | None] = ObjectiveInfo(
        title="Classifier Score Distillation",
        reference="Yu et al. 2023; the authors' deep_floyd_simple_guidance.py, stable_diffusion_triple_guidance.py",
        forward_passes=(1, 3),
        guidance_scale="none but the weight of the whole (1)",
        timestep_range="0.02 to 0.98, falling to 0.02 to 0.5",
        summary="texture and detail without the noise term, and negative prompts",
    )
    needs_undistilled_prior: ClassVar[bool] = True

    weight: float = 1.0
    """Weight of the whole."""
    weighting: Weighting = "sds"
    negative_weight: LinearRamp = (0.0, 0.0)
    """Coefficient, first and last, of the answer to the negative prompt."""
    uncond_weight: LinearRamp = (-1.0, -1.0)
    """Coefficient, first and last, of the answer to no prompt."""
    noise_weight: LinearRamp = (0.0, 0.0)
    """Coefficient, first and last, of the drawn noise; -1 with the others at 0 is SDS without guidance."""
    ramp_end: float = 1.0
    """Progress, above 0 and up to 1, at which the coefficients have reached their last values."""

    def __post_init__(self) -> None:
        check_finite("weight", self.weight)
        check_choice("weighting", self.weighting, get_args(Weighting))
        if not 0 < self.ramp_end <= 1:
            raise ValueError(f"ramp_end is {self.ramp_end}; expected a progress above 0 and up to 1")
        for index, end in enumerate(("first", "last")):
            total = self.negative_weight[index] + self.uncond_weight[index] + self.noise_weight[index]
            if not math.isclose(total, -1, abs_tol=1e-6):
                raise ValueError(
                    f"the {end} values of negative, empty and noise sum to {total:g}; expected -1, "
                    "so that the noise that all answers share cancels"
                )

    @property
    def uses_negative_prompt(self) -> bool:
        return any(self.negative_weight)

    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        alpha, sigma = prior.alpha_sigma(batch.t)
        x_t = add_noise(batch.latents, batch.noise, alpha, sigma)
        fraction = min(batch.progress / self.ramp_end, 1.0)
        candidates = [
            (batch.conditions.negative, _ramp_value(self.negative_weight, fraction)),
            (batch.conditions.uncond, _ramp_value(self.uncond_weight, fraction)),
        ]
        terms = [(condition, coefficient) for condition, coefficient in candidates if coefficient != 0]
        difference, *noise_preds = prior.predict_noise(
            x_t, batch.t, [batch.conditions.text, *(condition for condition, _ in terms)]
        )
        for noise_pred, (_, coefficient) in zip(noise_preds, terms, strict=True):
            difference = difference + coefficient * noise_pred
        if (coefficient := _ramp_value(self.noise_weight, fraction)) != 0:
            difference = difference + coefficient * batch.noise
        grad = expand_like_latents(timestep_weight(self.weighting, alpha, sigma)) * (self.weight * difference)
        return ObjectiveOutput(grad, {"t": float(batch.t.mean())})


def _ramp_value(ramp: LinearRamp, fraction: float) -> float:
    return ramp[0] + (ramp[1] - ramp[0]) * fraction
