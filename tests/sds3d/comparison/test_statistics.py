"""How the objectives of a comparison stand: means, spreads, the best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sds3d.comparison.statistics import METRICS, best, mean_std, summarize, table
from tests.support.sds3d.comparison_rows import row_of


def test_means_and_spreads() -> None:
    assert mean_std([1, 2, 3]).mean == 2 and mean_std([1, 2, 3]).spread == 1
    assert mean_std([4.0, None]).mean == 4 and mean_std([4.0, None]).spread is None
    assert mean_std([None]).mean is None and mean_std([]).values == []


def test_the_best_is_marked_only_where_it_can_be_told(tmp_path: Path) -> None:
    rows = [
        row_of("sds", 0, trouble="x"),
        row_of("csd", 0, trouble="x", seconds_per_step=0.1, answers_per_step=8.01),
        row_of("vsd", 0, trouble="x", judge=None, saturation=0.9),
    ]
    found = summarize(tmp_path, rows)
    measures = {measure.key: measure for measure in METRICS}
    assert best(measures["seconds_per_step"], found) == ["csd"]
    assert best(measures["saturation"], found) == [], "a matter of taste"
    assert best(measures["answers_per_step"], found) == [], "written alike"
    assert best(measures["recognised"], found) == [], "the only two are alike"


def test_the_table_has_a_line_for_each_objective(tmp_path: Path) -> None:
    rows = [row_of("sds", seed, trouble="x", saturation=0.4 + 0.2 * seed) for seed in range(2)]
    lines = table(summarize(tmp_path, [*rows, row_of("vsd", 0, trouble="x", judge=None)])).splitlines()
    assert len(lines) == 3 and lines[0].split()[:3] == ["recognised", "probability", "fronts"]
    assert "0.500 ±0.141" in lines[1] and lines[2].split()[1] == "–"


def test_the_janus_rate_is_a_share_of_the_runs(tmp_path: Path) -> None:
    def judged(fronts: int | None, recognised: int = 8) -> dict[str, Any]:
        return {"recognised": recognised, "views": 8, "probability": 1.0, "janus": {"fronts": fronts}}

    rows = [row_of("sds", seed, trouble="x", judge=judged(fronts)) for seed, fronts in enumerate((1, 2, 3, 0))]
    rows.append(row_of("vsd", 0, trouble="x", judge=judged(None)))
    found = summarize(tmp_path, rows)
    assert found["sds"]["janus"].mean == 0.5 and found["sds"]["fronts"].mean == 1.5
    assert found["vsd"]["janus"].mean is None, "what has no front is not counted"
    shapeless = row_of("sds", 4, trouble="x", judge=judged(1, recognised=4))
    assert summarize(tmp_path, [*rows, shapeless])["sds"]["janus"].mean == 0.5, "nor what is not recognised"
