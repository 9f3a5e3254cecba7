"""What the races of benchmarks/tuning.py try: changes to the recipes of configs/tuned.py."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from configs.recipe import ObjectivePreset
from configs.tuned import TUNED
from guidance.objectives.base import Objective
from guidance.objectives.differences.bsd import BSD
from guidance.objectives.differences.csd import CSD
from guidance.objectives.variational.pg_sb import PGSB
from guidance.priors.flow_adapter import t_from_snr
from guidance.timesteps import AnnealedUniform, LinearAnneal, TimestepSampler
from sds3d.models.loading import MINI, MINI_FLOW, load_prior

AS_IS = "as it is"
Values = Mapping[str, Any]
"""What is changed in a recipe, by the path of the knob, such as `objective.scale`."""

_OWN: dict[str, tuple[Values, ...]] = {
    "asd": ({"objective.plus_ratio": 0.05}, {"objective.plus_ratio": 0.2}),
    "bsd": ({"objective": BSD(variant="released")},),
    "csd": ({"objective": CSD()},),
    "csm": ({"objective.delta": 0.15}, {"objective.delta": 0.04}),
    "disback": ({"objective.stages_end": 0.2}, {"critic.lr": 3e-3}),
    "esd": ({"objective.entropy": 0.25}, {"critic.lr": 3e-3}),
    "f-vsd": ({"objective.divergence": "reverse-kl"}, {"critic.lr": 3e-3}),
    "ism": ({"objective.delta": 0.1}, {"objective.delta": 0.3}),
    "nfsd": ({"objective.t_switch": 0.1}, {"objective.t_switch": 0.4}),
    "pg-sb": ({"critic.lr": 3e-3},),
    "rfds-rev": ({"objective.noise_correction": "full"},),
    "sdi": ({"objective.eta": 0.0}, {"objective.inversion_guidance_scale": -2.0}),
    "sds": ({"objective.guidance_rescale": 0.0}, {"objective.guidance_rescale": 0.8}),
    "tsm": ({"objective.gamma": 0.6}, {"objective.delta": 0.1}),
    "vsd": ({"critic.lr": 3e-3},),
}
"""What is tried beside guidance, times and rates."""


def at_flow(low: float, high: float) -> tuple[float, float]:
    """Times of the embedded prior's schedule as those of a flow-matching one, at the same ratios of noise to signal."""
    prior = load_prior(MINI, torch.device("cpu"))
    first, last = t_from_snr(
        load_prior(MINI_FLOW, torch.device("cpu")), *prior.alpha_sigma(torch.tensor([low, high]))
    ).tolist()
    return round(first, 2), round(last, 2)


def times_of(name: str) -> tuple[TimestepSampler, ...]:
    """Noise that falls earlier, as by default, and later."""
    pairs = (((0.3, 0.9), (0.02, 0.2)), ((0.5, 0.98), (0.02, 0.4)), ((0.5, 0.98), (0.2, 0.6)))
    match TUNED[name].timesteps:
        case LinearAnneal():
            return LinearAnneal(0.8, 0.02), LinearAnneal(0.9, 0.1), LinearAnneal(0.98, 0.25)
        case _ if name.startswith("rfds"):
            return tuple(AnnealedUniform(at_flow(*first), at_flow(*last)) for first, last in pairs)
        case _:
            return tuple(AnnealedUniform(first, last) for first, last in pairs)


def around(name: str, knobs: Collection[str] = ()) -> list[Values]:
    """What is tried around an objective's values, one knob at a time; only of these knobs where some are named."""
    tried = (values for values in _tried(name) if changed(TUNED[name], values) != TUNED[name])
    return [values for values in tried if not knobs or {short(path) for path in values} <= set(knobs)]


def _tried(name: str) -> Iterator[Values]:
    recipe = TUNED[name]
    for factor in (0.5, 2.0):
        match recipe.objective:
            case PGSB() as old:
                scales = {name: getattr(old, name) * factor for name in ("guidance_scale_min", "guidance_scale_max")}
                yield {"objective": replace(old, **scales)}
            case BSD() as old:
                assert old.text_weight is not None
                yield {"objective.text_weight": old.text_weight * factor}
            case old:
                yield {
                    f"objective.{'weight' if hasattr(old, 'weight') else 'guidance_scale'}": getattr(
                        old, "weight" if hasattr(old, "weight") else "guidance_scale"
                    )
                    * factor
                }
        yield {"lr_scale": recipe.lr_scale * factor}
    for times in times_of(name):
        yield {"timesteps": times}
    if hasattr(recipe.objective, "weighting"):
        yield from ({"objective.weighting": weighting} for weighting in ("sds", "reconstruction"))
    yield from _OWN.get(name, ())


def changed(recipe: ObjectivePreset, values: Values) -> ObjectivePreset:
    """The recipe with these values."""
    for path, value in values.items():
        part, _, knob = path.partition(".")
        recipe = replace(recipe, **{part: replace(getattr(recipe, part), **{knob: value}) if knob else value})
    return recipe


def label(values: Values) -> str:
    """Them as text, such as `guidance_scale 1.0, lr_scale 2.0`."""
    return ", ".join(_told(path, value) for path, value in values.items()) or AS_IS


def _told(path: str, value: Any) -> str:
    match value:
        case AnnealedUniform():
            (a, b), (c, d) = value.start_range, value.end_range
            return f"times {a}-{b} to {c}-{d}"
        case LinearAnneal():
            return f"times {value.t_max} to {value.t_min}"
        case Objective():
            return str(value)
        case _:
            return f"{short(path)} {value}"


def short(path: str) -> str:
    """A knob as it is named on the command line and in the tables."""
    return path.removeprefix("objective.")
