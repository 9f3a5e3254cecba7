"""Noise times stay in their range, cover it, and move with the progress of a run."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guidance.priors.base import make_rng
from guidance.timesteps import AnnealedUniform, DreamTime, LinearAnneal, SqrtAnneal, TimestepSampler, TwoStageUniform

bounds = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda pair: (min(pair), max(pair)))
FIXED = (LinearAnneal(), SqrtAnneal(), DreamTime())
"""Rules without chance."""
RULES = (AnnealedUniform(), TwoStageUniform(), *FIXED)


def sample_at(times: TimestepSampler, progress: float) -> float:
    """The one time of a rule without chance."""
    return float(times.sample(1, progress, make_rng(0)))


# --- all of them ---


@pytest.mark.parametrize("times", RULES, ids=lambda times: type(times).__name__)
def test_samples_respect_lower_bound_and_schedule(times: TimestepSampler) -> None:
    for progress in (0.0, 0.1, 0.5, 0.99, 1.0):
        t = times.sample(7, progress, make_rng(2))
        assert t.shape == (7,) and t.dtype == torch.float32
        assert times.lower_bound(progress) - 1e-6 <= float(t.min()) <= float(t.max()) <= 1
    assert type(times).summary


@pytest.mark.parametrize("times", RULES, ids=lambda times: type(times).__name__)
def test_sampling_depends_only_on_the_rng(times: TimestepSampler) -> None:
    assert torch.equal(times.sample(5, 0.5, make_rng(3)), times.sample(5, 0.5, make_rng(3)))
    same = torch.equal(times.sample(5, 0.5, make_rng(3)), times.sample(5, 0.5, make_rng(4)))
    assert same == (times in FIXED)


# --- ranges ---


@given(bounds, bounds, st.integers(1, 20), st.floats(0, 1), st.floats(0.01, 1), st.integers(0, 99))
def test_samples_stay_in_the_current_range(
    first: tuple[float, float], last: tuple[float, float], count: int, progress: float, until: float, seed: int
) -> None:
    low, high = (a + (b - a) * min(progress / until, 1) for a, b in zip(first, last, strict=True))
    t = AnnealedUniform(first, last, until).sample(count, progress, make_rng(seed))
    assert t.shape == (count,)
    assert bool(((low - 1e-6 <= t) & (t <= high + 1e-6)).all())


def test_samples_are_stratified() -> None:
    for times in (AnnealedUniform((0.2, 0.8), (0.2, 0.8)), TwoStageUniform((0.2, 0.8), (0.2, 0.8))):
        t = times.sample(12, 0.3, make_rng(0))
        assert ((t.sort().values - 0.2) / 0.6 * 12).floor().tolist() == list(range(12))


def test_range_is_annealed_from_start_to_end() -> None:
    times, rng = AnnealedUniform((0.5, 0.98), (0.02, 0.4)), make_rng(1)
    start, end = times.sample(500, 0.0, rng), times.sample(500, 1.0, rng)
    assert float(start.min()) == pytest.approx(0.5, abs=2e-3) and float(start.max()) == pytest.approx(0.98, abs=2e-3)
    assert float(end.min()) == pytest.approx(0.02, abs=2e-3) and float(end.max()) == pytest.approx(0.4, abs=2e-3)


def test_anneal_until_stops_the_annealing() -> None:
    early, late = AnnealedUniform(anneal_until=0.4), AnnealedUniform()
    for progress in (0.0, 0.1, 0.3):
        assert early.lower_bound(progress) == pytest.approx(late.lower_bound(progress / 0.4))
    assert early.lower_bound(0.4) == early.lower_bound(0.7) == early.lower_bound(1.0) == late.lower_bound(1.0)


def test_two_stage_switches_once() -> None:
    times, rng = TwoStageUniform((0.02, 0.98), (0.1, 0.5), switch_at=0.3), make_rng(1)
    assert float(times.sample(500, 0.2999, rng).max()) > 0.97 and times.lower_bound(0.2999) == 0.02
    for progress in (0.3, 1.0):
        assert float(times.sample(500, progress, rng).max()) <= 0.5 and times.lower_bound(progress) == 0.1


# --- without chance ---


@pytest.mark.parametrize("times", FIXED, ids=lambda times: type(times).__name__)
def test_deterministic_samplers_share_a_non_increasing_t(times: LinearAnneal | SqrtAnneal | DreamTime) -> None:
    assert len(times.sample(6, 0.4, make_rng(0)).unique()) == 1
    fall = [sample_at(times, step / 200) for step in range(201)]
    assert all(later <= earlier for earlier, later in itertools.pairwise(fall))
    assert fall[0] == pytest.approx(times.t_max) and fall[-1] == pytest.approx(times.t_min)


@given(st.floats(0, 1))
def test_linear_and_sqrt_anneal(progress: float) -> None:
    assert sample_at(LinearAnneal(0.9, 0.3), progress) == pytest.approx(0.9 - 0.6 * progress)
    assert sample_at(SqrtAnneal(0.9, 0.3), progress) == pytest.approx(0.9 - 0.6 * math.sqrt(progress))


@given(bounds, st.floats(0, 1))
def test_dreamtime_with_constant_weight_is_linear(ends: tuple[float, float], progress: float) -> None:
    low, high = ends
    times = DreamTime(high, low, plateau=(0.0, 1.0))
    assert sample_at(times, progress) == pytest.approx(high + (low - high) * progress, abs=1e-6)


@given(st.floats(0, 1), st.floats(0.02, 0.5), st.floats(0.05, 0.5), st.floats(0.05, 0.5))
def test_dreamtime_progress_is_the_weight_fraction(progress: float, start: float, below: float, above: float) -> None:
    """W summed on a fine grid, against the closed form."""
    times = DreamTime(0.98, 0.02, (start, start + 0.2), below, above)
    t = torch.linspace(0.02, 0.98, 20001, dtype=torch.float64)
    low, high = (start - t).clamp_min(0) / below, (t - start - 0.2).clamp_min(0) / above
    weight = torch.exp(-0.5 * (low + high).square())
    share = float(weight[t >= sample_at(times, progress)].sum() / weight.sum())
    assert share == pytest.approx(progress, abs=1e-3)


def test_dreamtime_is_slowest_on_its_plateau() -> None:
    times = DreamTime()
    fall = torch.tensor([sample_at(times, step / 1000) for step in range(1001)], dtype=torch.float64)
    pace = -(fall[1:] - fall[:-1])
    on = (fall[1:] > 0.5) & (fall[:-1] < 0.8)
    assert float(pace[on].max()) < 1.001 * float(pace.min()) + 1e-6
    assert float(pace[-1]) > 100 * float(pace[on].max())


# --- what is refused ---


@pytest.mark.parametrize("pair", [(0.5, 0.4), (-0.1, 0.5), (0.5, 1.1), (float("nan"), 0.5)])
def test_rejects_invalid_ranges(pair: tuple[float, float]) -> None:
    low, high = pair
    for make in (
        lambda: AnnealedUniform(start_range=pair),
        lambda: AnnealedUniform(end_range=pair),
        lambda: TwoStageUniform(start_range=pair),
        lambda: TwoStageUniform(end_range=pair),
        lambda: LinearAnneal(high, low),
        lambda: SqrtAnneal(high, low),
        lambda: DreamTime(high, low),
        lambda: DreamTime(plateau=pair),
    ):
        with pytest.raises(ValueError, match="expected 0 <= low <= high <= 1"):
            make()


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_rejects_invalid_progress(value: float) -> None:
    with pytest.raises(ValueError, match=r"until is .*; expected a progress"):
        AnnealedUniform(anneal_until=value)
    with pytest.raises(ValueError, match=r"at is .*; expected a progress from 0 to 1"):
        TwoStageUniform(switch_at=value)


def test_rejects_invalid_weights() -> None:
    for value in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"below is .*; expected a positive number"):
            DreamTime(std_below=value)
    with pytest.raises(ValueError, match="have no weight"):
        DreamTime(0.1, 0.05, plateau=(0.9, 1.0), std_below=0.01)
