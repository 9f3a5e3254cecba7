"""How many fronts an asset has. A face on both sides of a head is the classic failure of score distillation: Janus.

The judge is shown the asset from all around and says from which azimuth each picture seems to be taken, and how sure
it is. The front-likeness of a picture is certainty * cos(azimuth): 1 for what is surely the front, -1 for what is
surely the back, 0 where it can not tell. Around an asset that is right this rises to one peak, in front. Every
further peak, apart from the first and with a dip on both sides, is one more front. What was measured of this on real
objects and on objects glued together from two fronts is in `sds3d.evaluation.judge.fronts`.

Shapes: A azimuths, evenly spread, the first in front.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sds3d.evaluation.judge.network import JudgePrediction

AZIMUTHS = 24
"""Pictures from around an asset, 15 degrees apart."""
MIN_PEAK = 0.25
"""Front-likeness of a front, at least, after smoothing."""
MIN_DIP = 0.2
"""By how much the front-likeness falls on either side of a front before it rises to another."""
MIN_SEPARATION_DEG = 60.0
"""Degrees between two fronts, at least."""
_WINDOW = (1.0, 2.0, 3.0, 2.0, 1.0)
"""Weights of neighbouring azimuths in the smoothing, 15 degrees apart."""


def front_likeness(opinion: JudgePrediction, name: int) -> Float[Tensor, " A"]:
    """certainty * cos(azimuth) of each picture, if it shows the name of that number; about -1 to 1."""
    return opinion.certainty[:, name] * torch.cos(opinion.azimuth[:, name])


def fronts(likeness: Float[Tensor, " A"] | Sequence[float]) -> list[float]:
    """Azimuths of the fronts, degrees in (-180, 180], the most front-like first; none where nothing looks like one.

    Raises ValueError for fewer pictures than the smoothing spans.
    """
    given = torch.as_tensor(likeness, dtype=torch.float64)
    if len(given) < len(_WINDOW):
        raise ValueError(f"{len(given)} azimuths; fronts are looked for among {len(_WINDOW)} or more")
    curve: list[float] = smoothed(given).tolist()
    count = len(curve)
    peaks = [i for i in range(count) if curve[i] >= MIN_PEAK and curve[i - 1] <= curve[i] > curve[(i + 1) % count]]
    found: list[int] = []
    for peak in sorted(peaks, key=lambda i: -curve[i]):
        if all(_separate(curve, peak, other) for other in found):
            found.append(peak)
    return [_signed(360 * i / count) for i in found]


def smoothed(likeness: Float[Tensor, " A"]) -> Float[Tensor, " A"]:
    """The circular mean of neighbours."""
    half = len(_WINDOW) // 2
    turned = [weight * likeness.roll(place - half) for place, weight in enumerate(_WINDOW)]
    return torch.stack(turned).sum(0) / sum(_WINDOW)


def _separate(curve: list[float], lower: int, higher: int) -> bool:
    """Whether two peaks are far enough apart, with a dip on both ways around from one to the other."""
    count = len(curve)
    steps = abs(lower - higher)
    if min(steps, count - steps) * 360 / count < MIN_SEPARATION_DEG:
        return False
    first, last = sorted((lower, higher))
    there, back = min(curve[first : last + 1]), min(curve[last:] + curve[: first + 1])
    return max(there, back) <= curve[lower] - MIN_DIP


def _signed(degrees: float) -> float:
    return degrees - 360 if degrees > 180 else degrees
