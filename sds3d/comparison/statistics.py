"""What a comparison found: means and spreads over seeds, as data and as a table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from sds3d.comparison.sheet import read_views
from sds3d.evaluation.image_metrics import FINE, variance
from sds3d.evaluation.scene_evaluation import RECOGNISED

Row = dict[str, Any]
"""The numbers of one run, as `contest.run_entry` gives them."""


@dataclass(frozen=True)
class Metric:
    """A column of the table."""

    key: str
    title: str
    """Head of the column."""
    pattern: str
    """How its values are written."""
    better: Literal["more", "less"] | None
    """Which values are better, or None where that is a matter of taste."""
    meaning: str
    read: Callable[[Row], float | None]
    """Its value for one run; None where there is none."""

    def told(self, value: float | None) -> str:
        return "–" if value is None else self.pattern.format(value)


@dataclass(frozen=True)
class MetricStats:
    """One measure of one objective, over its seeds."""

    mean: float | None
    spread: float | None
    """Standard deviation over seeds, the unbiased one; None for fewer than two."""
    values: list[float]


def _of(key: str) -> Callable[[Row], float | None]:
    return lambda row: row[key]


def _judged(key: str) -> Callable[[Row], float | None]:
    return lambda row: row["judge"][key] if row["judge"] else None


def _fronts(row: Row) -> float | None:
    """The fronts of a recognised asset: of a shapeless one, none or one that is found means nothing."""
    if not row["judge"] or row["judge"]["recognised"] < RECOGNISED:
        return None
    found: int | None = row["judge"]["janus"]["fronts"]
    return found


def _janus(row: Row) -> float | None:
    found = _fronts(row)
    return None if found is None else float(found > 1)


def _apart(row: Row) -> None:
    """Nothing: variance is of all seeds together."""


METRICS = (
    Metric(
        "recognised", "recognised", "{:.1f}", "more",
        "Views of 8 in which the judge, a network that never guides a run, takes the asset for what was asked.",
        _judged("recognised"),
    ),
    Metric(
        "probability", "probability", "{:.2f}", "more",
        "Mean probability, 0 to 1, that the judge gives to what was asked, over the same 8 views.",
        _judged("probability"),
    ),
    Metric(
        "fronts", "fronts", "{:.1f}", None,
        "Fronts the judge finds in 24 pictures from around; 1 is right, more is Janus. Counted for assets recognised "
        f"in {RECOGNISED} of 8 views or more, of objects that do not look alike from several sides, as a vase does.",
        _fronts,
    ),
    Metric(
        "janus", "Janus", "{:.0%}", "less",
        "Share of the runs with more than one front, of those whose fronts are counted.", _janus,
    ),
    Metric(
        "saturation", "saturation", "{:.3f}", None,
        "Mean HSV saturation inside the silhouette, weighted by brightness: 0 grey, 1 pure colours.",
        _of("saturation"),
    ),
    Metric(
        "contrast", "contrast", "{:.3f}", None,
        "Standard deviation of the luminance inside the silhouette, mean of 8 views.",
        _of("contrast"),
    ),
    Metric(
        "sharpness", "sharpness", "{:.4f}", None,
        f"Share of the luminance's power spectrum inside the silhouette above {FINE:g} periods in the height of the "
        "picture, mean of 8 views.",
        _of("sharpness"),
    ),
    Metric(
        "variance", "variance", "{:.4f}", None,
        "Variance of a pixel's colour from seed to seed, seen by the same cameras, mean over the pixels inside any "
        "seed's silhouette: how differently the seeds come out.",
        _apart,
    ),
    Metric(
        "seconds_per_step", "s/step", "{:.3f}", "less",
        "Seconds of wall-clock for a step, with all that comes before the first one.",
        _of("seconds_per_step"),
    ),
    Metric(
        "answers_per_step", "answers/step", "{:.1f}", "less",
        "Answers of the prior in a step: conditions times pictures. A critic's own are not counted.",
        _of("answers_per_step"),
    ),
    Metric("steps", "steps", "{:.0f}", None, "Steps done.", _of("steps")),
)  # fmt: skip
"""All columns, in their order."""


def summarize(out: Path, rows: Sequence[Row]) -> dict[str, dict[str, MetricStats]]:
    """By objective, in the order of the rows, and by measure."""
    names = dict.fromkeys(row["objective"] for row in rows)
    return {name: _standing(out, [row for row in rows if row["objective"] == name]) for name in names}


def _standing(out: Path, rows: list[Row]) -> dict[str, MetricStats]:
    found = {measure.key: mean_std([measure.read(row) for row in rows]) for measure in METRICS}
    views = [read_views(out / row["folder"]) for row in rows if row["trouble"] is None]
    found["janus"] = replace(found["janus"], spread=None)  # The spread of yes and no says no more than their mean.
    apart = variance(torch.stack(views)) if views else None
    found["variance"] = MetricStats(apart, None, [] if apart is None else [apart])
    return found


def mean_std(values: Sequence[float | None]) -> MetricStats:
    """Mean and spread of the values that are there."""
    known = [float(value) for value in values if value is not None]
    mean = statistics.fmean(known) if known else None
    return MetricStats(mean, statistics.stdev(known) if len(known) > 1 else None, known)


def best(measure: Metric, found: dict[str, dict[str, MetricStats]]) -> list[str]:
    """The objectives with the best mean, all of them where several are written alike; none where all are alike."""
    means = {name: row[measure.key].mean for name, row in found.items() if row[measure.key].mean is not None}
    if measure.better is None or len({measure.told(mean) for mean in means.values()}) < 2:
        return []
    top = (max if measure.better == "more" else min)(mean for mean in means.values() if mean is not None)
    return [name for name, mean in means.items() if measure.told(mean) == measure.told(top)]


def table(found: dict[str, dict[str, MetricStats]]) -> str:
    """The table as plain text: mean and, where there are several seeds, spread."""
    lines = [["", *(measure.title for measure in METRICS)]]
    for name, row in found.items():
        lines.append([name, *(_cell(measure, row[measure.key]) for measure in METRICS)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cell(measure: Metric, standing: MetricStats) -> str:
    text = measure.told(standing.mean)
    return text if not standing.spread else f"{text} ±{measure.told(standing.spread)}"
