"""How good the embedded prior is: the judge looks at its samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from guidance.priors.mini.prior import MiniPrior
from guidance.priors.mini3d.prior import Mini3DPrior
from sds3d.evaluation.judge.network import Judge
from sds3d.mini_training.sample_grid import views


@dataclass(frozen=True)
class Scores:
    """Marks of one name, or of all."""

    recall_at_1: float
    """Share of the views in which the judge finds the name the likeliest of all names it knows."""
    recall_at_5: float
    median_azimuth_error_degrees: float


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found."""

    overall: Scores
    names: dict[str, Scores]
    azimuths: int
    scale: float
    steps: int
    candidates: int
    """Names that the judge chose among."""

    def plain(self) -> dict[str, object]:
        return asdict(self)


def evaluate(
    prior: MiniPrior | Mini3DPrior,
    judge: Judge,
    names: list[str],
    progress: Callable[[str], None],
    azimuths: int = 8,
    scale: float = 2.0,
    steps: int = 20,
    seed: int = 0,
) -> Evaluation:
    """Draws every name from `azimuths` sides, 17 degrees up, and asks the judge what it sees and from where.

    Raises:
        ValueError: a name the judge does not know.
    """
    unknown = [name for name in names if name not in judge.names]
    if unknown:
        raise ValueError(f"the judge does not know {', '.join(unknown)}")
    truth = torch.arange(azimuths) * (2 * math.pi / azimuths)
    each: dict[str, Scores] = {}
    ranks, errors = [], []
    for place, name in enumerate(names):
        opinion = judge.predict(views(prior, [name], azimuths, 0.3, scale, steps, seed + place)[0])
        number = judge.names.index(name)
        turn = opinion.azimuth[:, number] - truth
        rank, error = opinion.rank(number), torch.rad2deg(torch.atan2(turn.sin(), turn.cos()).abs())
        each[name] = _marks(rank, error)
        ranks.append(rank)
        errors.append(error)
        progress(f"{place + 1}/{len(names)} {name}: R@1 {each[name].recall_at_1:.2f}")
    return Evaluation(_marks(torch.cat(ranks), torch.cat(errors)), each, azimuths, scale, steps, len(judge.names))


def _marks(rank: torch.Tensor, error: torch.Tensor) -> Scores:
    return Scores(
        round(float((rank == 0).float().mean()), 4),
        round(float((rank < 5).float().mean()), 4),
        round(float(error.median()), 2),
    )
