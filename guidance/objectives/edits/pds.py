"""Posterior Distillation Sampling (Koo et al. 2024)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from guidance.objectives.base import ObjectiveInfo, ObjectiveOutput, ViewBatch, require_source
from guidance.objectives.edits.dds import DDS
from guidance.objectives.guided import GuidedObjective
from guidance.priors.base import Denoiser, expand_like_latents


@dataclass(frozen=True)
class PDS(GuidedObjective):
    """gradient = psi(t) * (edit - source) + chi(t) * (answer for the edit - answer for the source), DDS's difference.

    It is the difference between the noises that would lead the two from time t to the same draw at t', a step of the
    grid before: the edit should keep the source's. psi holds it to the source; it comes from a grid that is coarser
    than the steps of the prior, and vanishes where they are equal.
    """

    info: ClassVar[ObjectiveInfo | None] = ObjectiveInfo(
        title="Posterior Distillation Sampling",
        reference="Koo et al. 2024; its released code",
        forward_passes=(4, 4),
        guidance_scale="100",
        timestep_range="0.02 to 0.98",
        summary="editing that keeps the identity of the source",
    )
    needs_source: ClassVar[bool] = True

    guidance_scale: float = 100.0
    """Classifier-free guidance in the standard form (1 is none), for both."""
    num_inference_steps: int = 500
    """Steps that the schedule is walked in: t' is t - 1 / grid. As many as `steps` is DDS with another weight."""
    num_train_timesteps: int = 1000
    """Steps that the prior was trained with, whose variance the posterior has."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.guidance_scale):
            raise ValueError(f"guidance_scale is {self.guidance_scale}; expected a finite number, such as 100")
        if not self.num_train_timesteps >= 2:
            raise ValueError(f"num_train_timesteps is {self.num_train_timesteps}; expected at least 2, such as 1000")
        if not 2 <= self.num_inference_steps <= self.num_train_timesteps:
            raise ValueError(
                f"num_inference_steps is {self.num_inference_steps}; "
                f"expected from 2 to the {self.num_train_timesteps} steps of the prior"
            )

    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        edit_offset = batch.latents - require_source(batch).latents
        difference = DDS(self.guidance_scale, guidance_rescale=self.guidance_rescale)(prior, prior, batch).grad
        psi, chi = (
            expand_like_latents(value.to(batch.latents.dtype)) for value in self.posterior_coefficients(prior, batch.t)
        )
        logs = {"t": float(batch.t.mean()), "psi": float(psi.mean())}
        return ObjectiveOutput(psi * edit_offset + chi * difference, logs)

    def posterior_coefficients(
        self, prior: Denoiser, t: Float[Tensor, " B"]
    ) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """(psi, chi), float64, for the mean c0 * xhat + c1 * x_t of the posterior (Ho et al. 2020, eq. 7).

        Times too near to 0 for a step of the grid and one of the prior before it have those of the first that is not.
        """
        step = 1 / (self.num_train_timesteps - 1)
        stride = step * self.num_train_timesteps / self.num_inference_steps
        t = t.double().clamp_min(step + stride)
        signal, signal_prev = _signal_fraction(prior, t), _signal_fraction(prior, t - stride)
        beta = 1 - signal / _signal_fraction(prior, t - step)
        c0 = signal_prev.sqrt() * beta / (1 - signal)
        c1 = (1 - beta).sqrt() * (1 - signal_prev) / (1 - signal)
        std = (beta * (1 - signal_prev) / (1 - signal)).sqrt()
        psi = (signal_prev.sqrt() - c0 - c1 * signal.sqrt()) / std
        return psi, c0 * ((1 - signal) / signal).sqrt() / std


def _signal_fraction(prior: Denoiser, t: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Share of the clean latent in the variance at time `t`: alpha squared where signal and noise add up to one."""
    alpha, sigma = prior.alpha_sigma(t)
    return alpha.square() / (alpha.square() + sigma.square())
