"""A pipeline's own schedule, as levels of signal and noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from guidance.priors.schedule import Flow, Schedule

LEAST = 2.0**-30
"""Of alpha squared: schedules that end in pure noise would have networks divide by zero there."""
FLOWS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
PREDICTIONS = ("epsilon", "v_prediction", "sample")


@dataclass(frozen=True)
class Table:
    """Levels of T steps; fraction t is the place t * (T - 1) in them."""

    square: Float[Tensor, " T"]
    """alpha squared at each step, float64."""

    @property
    def steps(self) -> int:
        return len(self.square)

    def levels(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """(alpha, sigma) at fraction `t` in 0..1, interpolated between steps in the logarithm of alpha squared."""
        table = self.square.clamp_min(LEAST).log().to(t.device)
        place = t.double().clamp(0, 1) * (self.steps - 1)
        low = place.floor().long().clamp(max=self.steps - 2)
        square = torch.lerp(table[low], table[low + 1], place - low).exp()
        return square.sqrt().to(t.dtype), (1 - square).sqrt().to(t.dtype)


def table_of(scheduler: Any) -> Table:
    """The levels of a diffusers scheduler with betas. Raises ValueError for one without."""
    if _of_flow(scheduler) or not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(f"its scheduler is a {_name(scheduler)}; a model of its kind has one with betas, such as DDIM")
    return Table(scheduler.alphas_cumprod.double())


def flow_of(scheduler: Any, patches: int) -> Flow:
    """The line of a flow-matching scheduler for pictures of so many patches. Raises ValueError for another one.

    The shift is either fixed or exp(mu), with mu linear in the number of patches (Esser et al. 2024, section 5.3.2).
    """
    config = scheduler.config
    if not _of_flow(scheduler):
        known = f"{', '.join(FLOWS)}, or another one with use_flow_sigmas"
        raise ValueError(f"its scheduler is a {_name(scheduler)}; a flow-matching model has one of {known}")
    if not config.get("use_dynamic_shifting"):
        return Flow(float(config.get("shift" if _name(scheduler) in FLOWS else "flow_shift", 1.0)))
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    mu = low + (high - low) * (patches - few) / (many - few)
    return Flow(math.exp(mu) if config.get("time_shift_type", "exponential") == "exponential" else mu)


def prediction_of(scheduler: Any) -> str:
    """What the network says: `epsilon`, `v_prediction` or `sample`. Raises ValueError for anything else."""
    kind: str = scheduler.config.get("prediction_type", "epsilon")
    if kind not in PREDICTIONS:
        raise ValueError(f"its scheduler says the network predicts {kind!r}; expected {', '.join(PREDICTIONS)}")
    return kind


def noise_of(
    raw: Float[Tensor, "B C h w"],
    x_t: Float[Tensor, "B C h w"],
    prediction: str,
    alpha: Float[Tensor, "B 1 1 1"],
    sigma: Float[Tensor, "B 1 1 1"],
) -> Float[Tensor, "B C h w"]:
    """The noise that an answer implies.

    v = alpha * noise - sigma * x (Salimans & Ho 2022, appendix D); a flow's v is noise - x with alpha + sigma = 1.
    """
    if prediction == "epsilon":
        return raw
    if prediction == "v_prediction":
        return sigma * x_t + alpha * raw
    if prediction == "flow":
        return x_t + alpha * raw
    return (x_t - alpha * raw) / sigma.clamp_min(1e-4)


def is_flow(schedule: Schedule) -> bool:
    return isinstance(schedule, Flow)


def _of_flow(scheduler: Any) -> bool:
    """Whether a scheduler is of flow matching; some of diffusers' are of both kinds."""
    return _name(scheduler) in FLOWS or bool(scheduler.config.get("use_flow_sigmas"))


def _name(scheduler: Any) -> str:
    return type(scheduler).__name__
