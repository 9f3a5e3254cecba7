"""Results of runs that were never made."""

from __future__ import annotations

from typing import Any


def row_of(name: str, seed: int, **more: Any) -> dict[str, Any]:
    """The numbers of a run that was never made."""
    judge = {"recognised": 6, "views": 8, "probability": 0.5, "janus": {"fronts": 1}}
    row = {"objective": name, "seed": seed, "trouble": None, "judge": judge, "steps": 5, "seconds": 1.0}
    row |= {"saturation": 0.4, "contrast": 0.1, "sharpness": 0.01, "seconds_per_step": 0.2, "answers_per_step": 8.0}
    return row | {"folder": f"runs/{name}-seed-{seed}"} | more
