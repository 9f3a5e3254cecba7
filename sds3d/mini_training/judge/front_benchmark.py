"""Measures on the corpus which objects have a front the judge can tell, and how well it counts fronts.

The pictures are the prior's part of the corpus, which the judge was not trained on. What has a front is read off the
mean of certainty * cos(azimuth error): 1 where the judge always knows from where it looks, 0 where it can not tell.
Fronts are then counted on the real objects, which have one, and on objects glued together from two front halves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sds3d.evaluation.janus import AZIMUTHS, front_likeness, fronts
from sds3d.evaluation.judge.fronts import ALIGNED, FrontStatistics
from sds3d.evaluation.judge.network import Judge, JudgePrediction
from sds3d.mini_training.corpus import Entry, file_of, read_entries
from sds3d.mini_training.dataset import lit

_ELEVATION = math.radians(15.0)
_LOWEST, _HIGHEST = math.radians(-15.0), math.radians(60.0)


@dataclass(frozen=True)
class Rates:
    """How often fronts are counted right, over the names that have one."""

    names: int
    one_front: float
    """Real objects in which exactly one is found."""
    false_alarm: float
    """Real objects in which more than one is found."""
    turned_found: float
    """Objects whose back is their own front half, turned round, in which two or more are found."""
    mirrored_found: float
    """Objects whose back is the mirror image of their front half, in which two or more are found."""


def measure(corpus: Path, judge: Judge, progress: Callable[[str], None]) -> dict[str, object]:
    """Shows the judge every object from around: `names` (name: alignment, median azimuth error) and `rates`.

    Raises FileNotFoundError where there is no corpus.
    """
    entries = [entry for entry in read_entries(corpus) if entry.name in judge.names]
    names: dict[str, FrontStatistics] = {}
    counts = []
    for place, entry in enumerate(entries):
        rgb, angles = _pictures(corpus, entry)
        opinion, number = judge.predict(rgb), judge.names.index(entry.name)
        bearing = names[entry.name] = _bearing(opinion, number, angles)
        if bearing.has_front:
            around = _around(angles)
            likeness = front_likeness(opinion, number)[around]
            mirrored = front_likeness(judge.predict(rgb[around].flip(-1)), number)
            counts.append([len(fronts(curve)) for curve in (likeness, turned(likeness), glued(likeness, mirrored))])
        progress(f"{place + 1}/{len(entries)} {entry.name}: alignment {bearing.alignment:.2f}")
    return {
        "aligned": ALIGNED,
        "rates": asdict(_rates(np.array(counts))),
        "names": {name: [b.alignment, b.median_azimuth_error_degrees] for name, b in sorted(names.items())},
    }


def turned(likeness: Float[Tensor, " A"]) -> Float[Tensor, " A"]:
    """The curve of an object whose back is its own front half, turned by 180 degrees."""
    return torch.where(_ahead(len(likeness)), likeness, likeness.roll(len(likeness) // 2))


def glued(likeness: Float[Tensor, " A"], mirrored: Float[Tensor, " A"]) -> Float[Tensor, " A"]:
    """The curve of an object whose back is the mirror image of its front half.

    `mirrored` is the curve of the pictures, flipped from left to right: the camera at azimuth a behind the mirror
    sees the flipped picture of the one at 180 degrees - a.
    """
    count = len(likeness)
    opposite = (count // 2 - torch.arange(count)) % count
    return torch.where(_ahead(count), likeness, mirrored[opposite])


def _ahead(count: int) -> Tensor:
    """[A] whether an azimuth is in the front half."""
    return torch.cos(torch.arange(count) * (2 * math.pi / count)) > -1e-6


def _pictures(corpus: Path, entry: Entry) -> tuple[Float[Tensor, "V 3 H W"], Float[Tensor, "V 2"]]:
    """The prior's views of an object over white, from where runs look, and their azimuths and elevations."""
    with np.load(file_of(corpus, entry.name)) as arrays:
        angles = arrays["prior_angles"]
        kept = (angles[:, 1] > _LOWEST) & (angles[:, 1] < _HIGHEST)
        albedo = arrays["prior_albedo"][kept].astype(np.float32) / 255
        light = lit(arrays["prior_normal"][kept].astype(np.float32) / 127.5 - 1)
    rgb = np.clip(albedo[..., :3] * light[..., None], 0, 1) + (1 - albedo[..., 3:])
    pictures = torch.from_numpy(rgb.astype(np.float32)).permute(0, 3, 1, 2).contiguous()
    return pictures, torch.from_numpy(angles[kept].astype(np.float32))


def _around(angles: Float[Tensor, "V 2"]) -> Tensor:
    """[A] numbers of the views nearest to evenly spread azimuths, 15 degrees up."""
    wanted = torch.arange(AZIMUTHS) * (2 * math.pi / AZIMUTHS)
    turn = angles[None, :, 0] - wanted[:, None]
    turn = torch.atan2(turn.sin(), turn.cos()).abs()
    far = (turn > math.pi / AZIMUTHS + 0.01) * 10.0
    return (far + turn + (angles[None, :, 1] - _ELEVATION).abs()).argmin(-1)


def _bearing(opinion: JudgePrediction, number: int, angles: Float[Tensor, "V 2"]) -> FrontStatistics:
    error = opinion.azimuth[:, number] - angles[:, 0]
    alignment = (opinion.certainty[:, number] * error.cos()).mean()
    degrees = torch.rad2deg(torch.atan2(error.sin(), error.cos()).abs()).median()
    return FrontStatistics(round(float(alignment), 3), round(float(degrees), 1))


def _rates(counts: np.ndarray) -> Rates:
    """From [N, 3] numbers of fronts: real, turned, mirrored."""
    if not len(counts):
        return Rates(0, 0.0, 0.0, 0.0, 0.0)
    real, twice, mirror = counts.T
    shares = [(real == 1).mean(), (real > 1).mean(), (twice > 1).mean(), (mirror > 1).mean()]
    return Rates(len(counts), *(round(float(share), 3) for share in shares))
