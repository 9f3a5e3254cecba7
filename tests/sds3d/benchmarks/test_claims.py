"""The machinery behind docs/claims.md: verdicts, pairing, resuming, and what is written."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from scipy import stats

from sds3d.comparison import entry as comparison_entry
from sds3d.comparison.statistics import METRICS
from sds3d.evaluation.judge.fronts import has_front
from sds3d.models.loading import mini_vocabulary


@pytest.fixture(scope="module")
def claims() -> ModuleType:
    file = Path(__file__).parents[3] / "benchmarks" / "claims.py"
    spec = importlib.util.spec_from_file_location("claims", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["claims"] = module
    spec.loader.exec_module(module)
    return module


def claim(claims: ModuleType, more: bool, margin: float = 0.0) -> Any:
    return claims.Claim("", "", "asd", "vsd", "probability", more, margin)


@pytest.mark.parametrize(
    ("more", "margin", "differences", "verdict"),
    [
        (True, 0.0, [0.30, 0.31, 0.29, 0.30], "holds"),
        (False, 0.0, [0.30, 0.31, 0.29, 0.30], "the opposite"),
        (False, 0.0, [-0.30, -0.31, -0.29, -0.30], "holds"),
        (True, 0.0, [0.3, -0.2, 0.1, -0.1], "undecided"),
        (True, 0.1, [-0.05, -0.04, -0.06, -0.05], "holds"),
        (True, 0.1, [-0.3, -0.31, -0.29, -0.30], "the opposite"),
        (True, 0.1, [-0.1, 0.2, -0.3, 0.1], "undecided"),
        (True, 0.0, [0.0, 0.0, 0.0, 0.0], "undecided"),
    ],
)
def test_verdicts(claims: ModuleType, more: bool, margin: float, differences: list[float], verdict: str) -> None:
    found, mean, low, high = claims.judged(claim(claims, more, margin), differences)
    assert found == verdict
    assert low <= mean <= high and mean == pytest.approx(sum(differences) / len(differences))


def test_the_interval_is_students(claims: ModuleType) -> None:
    differences = [0.1, 0.4, 0.2, -0.1, 0.3]
    _, _, low, high = claims.judged(claim(claims, True), differences)
    wanted = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert (low, high) == pytest.approx((wanted.low, wanted.high))


def test_every_claim_can_be_tried(claims: ModuleType) -> None:
    keys = {measure.key for measure in METRICS}
    for one in claims.CLAIMS:
        assert {one.variant, one.reference} <= set(claims.VARIANTS) and one.measure in keys
    assert {name for one in claims.CLAIMS for name in (one.variant, one.reference)} == set(claims.VARIANTS)
    names = [claims.contestant(variant, "a cat", 0, "mini") for variant in claims.VARIANTS]
    assert len({entry.asked() for entry in names}) == len(names)
    assert claims.contestant("esd-blind", "a cat", 2, "mini").config.view_conditioning == "none"


def test_every_prompt_is_known_and_has_a_front(claims: ModuleType) -> None:
    assert len(claims.PROMPTS) >= 6
    for prompt in claims.PROMPTS:
        subject = mini_vocabulary().subject(prompt)
        assert subject is not None and has_front(subject), prompt


def test_runs_without_their_other_side_do_not_count(claims: ModuleType, tmp_path: Path) -> None:
    def row(name: str, prompt: str, seed: int, seconds: float, trouble: str | None = None) -> dict[str, Any]:
        judge = {"recognised": 8, "probability": 1.0, "janus": {"fronts": 1}}
        measured = dict.fromkeys(("saturation", "contrast", "sharpness", "answers_per_step", "steps"), 1.0)
        about = {"objective": name, "prompt": prompt, "seed": seed, "trouble": trouble, "folder": "none"}
        return {**about, **measured, "judge": judge, "seconds_per_step": seconds}

    faster = claims.Claim("", "", "asd", "vsd", "seconds_per_step", False)
    rows = [row(name, f"p{i}", seed, s) for i in range(4) for seed in (0, 1) for name, s in (("asd", 1), ("vsd", 2))]
    rows += [row("asd", "p0", 2, 99), row("asd", "p9", 0, 99), row("vsd", "p0", 3, 99), row("asd", "p0", 3, 9, "bad")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sds3d.comparison.statistics.read_views", lambda folder: torch.zeros(1, 4, 4, 4))
        found = claims.found(faster, tmp_path, rows)
        few = claims.found(faster, tmp_path, rows[:8])
    assert (found.prompts, found.of_variant, found.of_reference, found.difference) == (4, 1, 2, -1)
    assert found.verdict == "holds" and few.verdict == "too few runs" and few.difference is None


def test_everything_is_written_and_nothing_is_done_twice(
    claims: ModuleType, prior_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison_entry, "FRAMES", 2)
    monkeypatch.setattr(claims, "VARIANTS", {name: claims.VARIANTS[name] for name in ("sds-high", "nfsd-high")})
    words = ["--out", str(tmp_path / "runs"), "--docs", str(tmp_path), "--prior", str(prior_folder), "--steps", "2"]
    words += ["--seeds", "1", "--prompts", "a teddy bear", "a horse", "a mug"]
    claims.main([*words, "--hours", "0"])
    assert json.loads((tmp_path / "claims.json").read_text())["runs"] == [], "no time, no runs"
    claims.main(words)
    data, text = json.loads((tmp_path / "claims.json").read_text()), (tmp_path / "claims.md").read_text()
    assert len(data["runs"]) == 6 and {row["steps"] for row in data["runs"]} == {2}
    verdicts = {row["text"]: row["verdict"] for row in data["claims"]}
    tried = next(text for text in verdicts if text.startswith("NFSD"))
    assert verdicts.pop(tried) != "too few runs" and set(verdicts.values()) == {"too few runs"}
    assert all(text.count(f"**{verdict}**") for verdict in verdicts.values())
    lines = len(claims.CLAIMS) + len(claims.VARIANTS) + 2
    assert text.count("\n| ") == lines and "6 of 6 runs of 2 steps" in text
    monkeypatch.setattr(claims, "run_entry", lambda *rest: pytest.fail("a finished run was done again"))
    claims.main(words)
    assert json.loads((tmp_path / "claims.json").read_text()) == data
