"""Counting fronts: closed-form curves, laws of symmetry, and what was measured of the shipped judge."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sds3d.evaluation.janus import AZIMUTHS, MIN_DIP, MIN_PEAK, MIN_SEPARATION_DEG, front_likeness, fronts, smoothed
from sds3d.evaluation.judge.fronts import ALIGNED, FILE, FrontStatistics, front_statistics, has_front
from sds3d.evaluation.judge.network import JudgePrediction
from sds3d.mini_training.judge.front_benchmark import glued, turned

AROUND = torch.arange(AZIMUTHS, dtype=torch.float64) * (2 * math.pi / AZIMUTHS)


def bump(at_degrees: float, width: float = 30.0) -> Tensor:
    """A peak of height 1, as wide as given (degrees)."""
    turn = AROUND - math.radians(at_degrees)
    far = torch.rad2deg(torch.atan2(turn.sin(), turn.cos()))
    return torch.exp(-0.5 * (far / width).square())


def test_a_right_asset_has_one_front_in_front() -> None:
    assert fronts(AROUND.cos()) == [0.0]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_every_face_of_a_many_faced_asset_is_found(count: int) -> None:
    found = fronts((count * AROUND).cos())
    assert sorted(azimuth % 360 for azimuth in found) == pytest.approx([360 / count * i for i in range(count)])


def test_what_looks_the_same_from_everywhere_has_no_front() -> None:
    assert fronts(torch.zeros(AZIMUTHS)) == []
    assert fronts(torch.full((AZIMUTHS,), MIN_PEAK - 0.01)) == []


def test_a_bump_too_low_too_near_or_without_a_dip_is_no_front() -> None:
    assert fronts(bump(0) + 0.2 * bump(180)) == [0.0]
    assert len(fronts(bump(0, 12) + 0.9 * bump(45, 12))) == 1
    assert fronts(1 - 0.5 * MIN_DIP * (1 - (2 * AROUND).cos()) / 2)[1:] == []
    assert len(fronts(bump(0) + 0.9 * bump(180))) == 2


def test_the_likeliest_front_comes_first() -> None:
    assert fronts(0.8 * bump(0) + bump(120) - 0.3) == [120.0, 0.0]
    assert fronts(bump(-90)) == [-90.0] and fronts(bump(180)) == [180.0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=AZIMUTHS, max_size=AZIMUTHS), st.integers(0, AZIMUTHS - 1))
def test_fronts_turn_with_the_asset(values: list[float], places: int) -> None:
    step = 360 / AZIMUTHS
    # A little of a slope that is not symmetric: no two peaks are equally high.
    curve = torch.tensor(values, dtype=torch.float64) + 1e-3 * torch.rand(AZIMUTHS, dtype=torch.float64)
    here, there = fronts(curve), fronts(curve.roll(places))
    assert [(azimuth + places * step) % 360 for azimuth in here] == [azimuth % 360 for azimuth in there]
    for number, one in enumerate(here):
        assert -180 < one <= 180
        assert all(abs(math.remainder(one - other, 360)) >= MIN_SEPARATION_DEG for other in here[:number])


def test_smoothing_keeps_the_mean_and_needs_enough_azimuths() -> None:
    curve = torch.rand(AZIMUTHS, dtype=torch.float64)
    assert smoothed(curve).mean() == pytest.approx(float(curve.mean()))
    assert smoothed(torch.ones(AZIMUTHS)) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="4 azimuths"):
        fronts([1.0, 0.0, 0.0, 0.0])


def test_an_unsure_judge_finds_no_front() -> None:
    probability, azimuth = torch.ones(AZIMUTHS, 1), AROUND[:, None]
    sure = JudgePrediction(probability, azimuth, torch.ones(AZIMUTHS, 1))
    unsure = JudgePrediction(probability, azimuth, torch.full((AZIMUTHS, 1), 0.2))
    assert torch.allclose(front_likeness(sure, 0), AROUND.cos())
    assert fronts(front_likeness(sure, 0)) == [0.0] and fronts(front_likeness(unsure, 0)) == []


def test_glued_assets_have_two_fronts() -> None:
    assert sorted(fronts(turned(AROUND.cos()))) == [0.0, 180.0]
    assert sorted(fronts(glued(AROUND.cos(), AROUND.cos()))) == [0.0, 180.0]


def test_the_mirror_image_is_seen_by_the_camera_across_the_mirror() -> None:
    """Behind the mirror, the camera at 180 - a sees what the one at a sees: the curve is symmetric about the side."""
    curve = torch.rand(AZIMUTHS, dtype=torch.float64)
    both = glued(curve, curve)
    across = (AZIMUTHS // 2 - torch.arange(AZIMUTHS)) % AZIMUTHS
    assert torch.equal(both, both[across])
    ahead = AROUND.cos() > 1e-9
    assert torch.equal(both[ahead], curve[ahead])


# --- what ships ---


def test_the_measured_list_belongs_to_the_shipped_judge() -> None:
    judge = json.loads(FILE.with_name("judge.json").read_text())
    assert set(front_statistics()) == set(judge["names"])


def test_what_is_round_has_no_front_and_what_has_a_face_has_one() -> None:
    for name in ("vase", "birthday cake", "basketball", "traffic cone", "round table", "a name nobody knows"):
        assert not has_front(name), name
    for name in ("cat", "rabbit", "teddy bear", "cuckoo clock", "laptop", "armchair"):
        assert has_front(name), name


def test_fronts_are_counted_well_enough_to_be_told() -> None:
    rates = json.loads(FILE.read_text())["rates"]
    assert rates["names"] == sum(bearing.has_front for bearing in front_statistics().values()) >= 80
    assert rates["false_alarm"] <= 0.05 and rates["one_front"] >= 0.9
    assert rates["turned_found"] >= 0.95 and rates["mirrored_found"] >= 0.7


def test_a_damaged_list_is_told_and_a_missing_one_knows_nothing(tmp_path: Path) -> None:
    assert front_statistics(tmp_path / "nothing.json") == {}
    file = tmp_path / "fronts.json"
    file.write_text('{"names": {"cat": [1]}}')
    with pytest.raises(ValueError, match="damaged"):
        front_statistics(file)
    assert FrontStatistics(ALIGNED, 10).has_front and not FrontStatistics(ALIGNED - 0.01, 10).has_front
