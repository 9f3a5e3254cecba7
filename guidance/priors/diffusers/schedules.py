"""A pipeline's own schedule, as levels of signal and noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from guidance.priors.schedule import RectifiedFlowSchedule, Schedule

MIN_ALPHA_SQUARED = 2.0**-30
"""Of alpha squared: schedules that end in pure noise would have networks divide by zero there."""
FLOW_SCHEDULERS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


@dataclass(frozen=True)
class DiscreteSchedule:
    """Levels of T steps; fraction t is the place t * (T - 1) in them."""

    alphas_cumprod: Float[Tensor, " T"]
    """alpha squared at each step, float64."""
    _logarithms: dict[torch.device, Float[Tensor, " T"]] = field(default_factory=dict, repr=False, compare=False)
    """Of those, by device: copied there once."""

    @property
    def num_train_timesteps(self) -> int:
        return len(self.alphas_cumprod)

    def _logarithm(self, device: torch.device) -> Float[Tensor, " T"]:
        if device not in self._logarithms:
            self._logarithms[device] = self.alphas_cumprod.clamp_min(MIN_ALPHA_SQUARED).log().to(device)
        return self._logarithms[device]

    def alpha_sigma(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """(alpha, sigma) at fraction `t` in 0..1, interpolated between steps in the logarithm of alpha squared."""
        table = self._logarithm(t.device)
        position = t.double().clamp(0, 1) * (self.num_train_timesteps - 1)
        index = position.floor().long().clamp(max=self.num_train_timesteps - 2)
        square = torch.lerp(table[index], table[index + 1], position - index).exp()
        return square.sqrt().to(t.dtype), (1 - square).sqrt().to(t.dtype)


def discrete_schedule_from_scheduler(scheduler: Any) -> DiscreteSchedule:
    """The levels of a diffusers scheduler with betas. Raises ValueError for one without."""
    if _is_flow_scheduler(scheduler) or not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(
            f"its scheduler is a {_class_name(scheduler)}; a model of its kind has one with betas, such as DDIM"
        )
    return DiscreteSchedule(scheduler.alphas_cumprod.double())


def flow_schedule_from_scheduler(scheduler: Any, patches: int) -> RectifiedFlowSchedule:
    """The line of a flow-matching scheduler for pictures of so many patches. Raises ValueError for another one.

    The shift is either fixed or exp(mu), with mu linear in the number of patches (Esser et al. 2024, section 5.3.2).
    """
    config = scheduler.config
    if not _is_flow_scheduler(scheduler):
        known = f"{', '.join(FLOW_SCHEDULERS)}, or another one with use_flow_sigmas"
        raise ValueError(f"its scheduler is a {_class_name(scheduler)}; a flow-matching model has one of {known}")
    if not config.get("use_dynamic_shifting"):
        return RectifiedFlowSchedule(
            float(config.get("shift" if _class_name(scheduler) in FLOW_SCHEDULERS else "flow_shift", 1.0))
        )
    min_patches, max_patches = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    min_shift, max_shift = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    mu = min_shift + (max_shift - min_shift) * (patches - min_patches) / (max_patches - min_patches)
    return RectifiedFlowSchedule(math.exp(mu) if config.get("time_shift_type", "exponential") == "exponential" else mu)


def prediction_type_from_scheduler(scheduler: Any) -> str:
    """What the network says: `epsilon`, `v_prediction` or `sample`. Raises ValueError for anything else."""
    prediction_type: str = scheduler.config.get("prediction_type", "epsilon")
    if prediction_type not in PREDICTION_TYPES:
        raise ValueError(
            f"its scheduler says the network predicts {prediction_type!r}; expected {', '.join(PREDICTION_TYPES)}"
        )
    return prediction_type


def to_noise_pred(
    model_output: Float[Tensor, "B C h w"],
    x_t: Float[Tensor, "B C h w"],
    prediction_type: str,
    alpha: Float[Tensor, "B 1 1 1"],
    sigma: Float[Tensor, "B 1 1 1"],
) -> Float[Tensor, "B C h w"]:
    """The noise that an answer implies.

    v = alpha * noise - sigma * x (Salimans & Ho 2022, appendix D); a flow's v is noise - x with alpha + sigma = 1.
    """
    if prediction_type == "epsilon":
        return model_output
    if prediction_type == "v_prediction":
        return sigma * x_t + alpha * model_output
    if prediction_type == "flow":
        return x_t + alpha * model_output
    return (x_t - alpha * model_output) / sigma.clamp_min(1e-4)


def is_flow(schedule: Schedule) -> bool:
    return isinstance(schedule, RectifiedFlowSchedule)


def _is_flow_scheduler(scheduler: Any) -> bool:
    """Whether a scheduler is of flow matching; some of diffusers' are of both kinds."""
    return _class_name(scheduler) in FLOW_SCHEDULERS or bool(scheduler.config.get("use_flow_sigmas"))


def _class_name(scheduler: Any) -> str:
    return type(scheduler).__name__
