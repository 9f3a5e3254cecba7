"""Which objects have a front that the judge can tell.

A ball or a vase looks the same from everywhere: counting its fronts means nothing. What has a front is not decided by
hand but read off pictures of the real objects, see `sds3d.mini_training.judge.front_benchmark`. The
result lies next to the weights.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

from sds3d.evaluation.judge.network import FOLDER

FILE = FOLDER / "fronts.json"
"""What was measured of the shipped judge."""
ALIGNED = 0.7
"""Least alignment of a name that has a front."""


@dataclass(frozen=True)
class FrontStatistics:
    """How well the judge knows from where it sees an object."""

    alignment: float
    """Mean of certainty * cos(azimuth error) over views from all around."""
    median_azimuth_error_degrees: float

    @property
    def has_front(self) -> bool:
        """Whether its sides can be told apart well enough to count fronts."""
        return self.alignment >= ALIGNED


@functools.cache
def front_statistics(file: Path = FILE) -> dict[str, FrontStatistics]:
    """What was measured, by name; empty where the file was not installed. Raises ValueError if it is damaged."""
    if not file.is_file():
        return {}
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))["names"]
        return {name: FrontStatistics(*row) for name, row in rows.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged: expected JSON with names ({error})") from None


def has_front(name: str) -> bool:
    """Whether an object of that name has a front the judge can tell; False for names it was not tried on."""
    known = front_statistics().get(name)
    return known is not None and known.has_front
