"""Noise times stay in their range, cover it, and move with the progress of a run."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guidance.priors.base import generator
from guidance.timesteps import DreamTime, Dropping, Falling, Linear, SquareRoot, Times

bounds = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda pair: (min(pair), max(pair)))
FIXED = (Linear(), SquareRoot(), DreamTime())
"""Rules without chance."""
RULES = (Falling(), Dropping(), *FIXED)


def at(times: Times, progress: float) -> float:
    """The one time of a rule without chance."""
    return float(times.draw(1, progress, generator(0)))


# --- all of them ---


@pytest.mark.parametrize("times", RULES, ids=lambda times: type(times).__name__)
def test_no_time_is_below_the_lowest_or_out_of_the_schedule(times: Times) -> None:
    for progress in (0.0, 0.1, 0.5, 0.99, 1.0):
        t = times.draw(7, progress, generator(2))
        assert t.shape == (7,) and t.dtype == torch.float32
        assert times.lowest(progress) - 1e-6 <= float(t.min()) <= float(t.max()) <= 1
    assert type(times).about


@pytest.mark.parametrize("times", RULES, ids=lambda times: type(times).__name__)
def test_the_generator_decides_all_chance(times: Times) -> None:
    assert torch.equal(times.draw(5, 0.5, generator(3)), times.draw(5, 0.5, generator(3)))
    same = torch.equal(times.draw(5, 0.5, generator(3)), times.draw(5, 0.5, generator(4)))
    assert same == (times in FIXED)


# --- ranges ---


@given(bounds, bounds, st.integers(1, 20), st.floats(0, 1), st.floats(0.01, 1), st.integers(0, 99))
def test_times_stay_between_the_bounds_of_the_moment(
    first: tuple[float, float], last: tuple[float, float], count: int, progress: float, until: float, seed: int
) -> None:
    low, high = (a + (b - a) * min(progress / until, 1) for a, b in zip(first, last, strict=True))
    t = Falling(first, last, until).draw(count, progress, generator(seed))
    assert t.shape == (count,)
    assert bool(((low - 1e-6 <= t) & (t <= high + 1e-6)).all())


def test_every_stratum_gets_one_time() -> None:
    for times in (Falling((0.2, 0.8), (0.2, 0.8)), Dropping((0.2, 0.8), (0.2, 0.8))):
        t = times.draw(12, 0.3, generator(0))
        assert ((t.sort().values - 0.2) / 0.6 * 12).floor().tolist() == list(range(12))


def test_a_run_goes_from_the_first_range_to_the_last() -> None:
    times, rng = Falling((0.5, 0.98), (0.02, 0.4)), generator(1)
    start, end = times.draw(500, 0.0, rng), times.draw(500, 1.0, rng)
    assert float(start.min()) == pytest.approx(0.5, abs=2e-3) and float(start.max()) == pytest.approx(0.98, abs=2e-3)
    assert float(end.min()) == pytest.approx(0.02, abs=2e-3) and float(end.max()) == pytest.approx(0.4, abs=2e-3)


def test_the_end_may_be_reached_before_the_end() -> None:
    early, late = Falling(until=0.4), Falling()
    for progress in (0.0, 0.1, 0.3):
        assert early.lowest(progress) == pytest.approx(late.lowest(progress / 0.4))
    assert early.lowest(0.4) == early.lowest(0.7) == early.lowest(1.0) == late.lowest(1.0)


def test_a_drop_is_one() -> None:
    times, rng = Dropping((0.02, 0.98), (0.1, 0.5), at=0.3), generator(1)
    assert float(times.draw(500, 0.2999, rng).max()) > 0.97 and times.lowest(0.2999) == 0.02
    for progress in (0.3, 1.0):
        assert float(times.draw(500, progress, rng).max()) <= 0.5 and times.lowest(progress) == 0.1


# --- without chance ---


@pytest.mark.parametrize("times", FIXED, ids=lambda times: type(times).__name__)
def test_all_views_get_one_time_that_never_rises(times: Linear | SquareRoot | DreamTime) -> None:
    assert len(times.draw(6, 0.4, generator(0)).unique()) == 1
    fall = [at(times, step / 200) for step in range(201)]
    assert all(later <= earlier for earlier, later in itertools.pairwise(fall))
    assert fall[0] == pytest.approx(times.high) and fall[-1] == pytest.approx(times.low)


@given(st.floats(0, 1))
def test_straight_and_square_root_falls(progress: float) -> None:
    assert at(Linear(0.9, 0.3), progress) == pytest.approx(0.9 - 0.6 * progress)
    assert at(SquareRoot(0.9, 0.3), progress) == pytest.approx(0.9 - 0.6 * math.sqrt(progress))


@given(bounds, st.floats(0, 1))
def test_a_constant_weight_falls_in_a_straight_line(ends: tuple[float, float], progress: float) -> None:
    low, high = ends
    times = DreamTime(high, low, plateau=(0.0, 1.0))
    assert at(times, progress) == pytest.approx(high + (low - high) * progress, abs=1e-6)


@given(st.floats(0, 1), st.floats(0.02, 0.5), st.floats(0.05, 0.5), st.floats(0.05, 0.5))
def test_progress_is_the_share_of_the_weight_above(progress: float, start: float, below: float, above: float) -> None:
    """W summed on a fine grid, against the closed form."""
    times = DreamTime(0.98, 0.02, (start, start + 0.2), below, above)
    t = torch.linspace(0.02, 0.98, 20001, dtype=torch.float64)
    low, high = (start - t).clamp_min(0) / below, (t - start - 0.2).clamp_min(0) / above
    weight = torch.exp(-0.5 * (low + high).square())
    share = float(weight[t >= at(times, progress)].sum() / weight.sum())
    assert share == pytest.approx(progress, abs=1e-3)


def test_dreamtime_is_slowest_on_its_plateau() -> None:
    times = DreamTime()
    fall = torch.tensor([at(times, step / 1000) for step in range(1001)], dtype=torch.float64)
    pace = -(fall[1:] - fall[:-1])
    on = (fall[1:] > 0.5) & (fall[:-1] < 0.8)
    assert float(pace[on].max()) < 1.001 * float(pace.min()) + 1e-6
    assert float(pace[-1]) > 100 * float(pace[on].max())


# --- what is refused ---


@pytest.mark.parametrize("pair", [(0.5, 0.4), (-0.1, 0.5), (0.5, 1.1), (float("nan"), 0.5)])
def test_ranges_that_are_none_are_refused(pair: tuple[float, float]) -> None:
    low, high = pair
    for make in (
        lambda: Falling(first=pair),
        lambda: Falling(last=pair),
        lambda: Dropping(first=pair),
        lambda: Dropping(last=pair),
        lambda: Linear(high, low),
        lambda: SquareRoot(high, low),
        lambda: DreamTime(high, low),
        lambda: DreamTime(plateau=pair),
    ):
        with pytest.raises(ValueError, match="expected 0 <= low <= high <= 1"):
            make()


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_progress_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"until is .*; expected a progress"):
        Falling(until=value)
    with pytest.raises(ValueError, match=r"at is .*; expected a progress from 0 to 1"):
        Dropping(at=value)


def test_weights_that_are_none_are_refused() -> None:
    for value in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"below is .*; expected a positive number"):
            DreamTime(below=value)
    with pytest.raises(ValueError, match="have no weight"):
        DreamTime(0.1, 0.05, plateau=(0.9, 1.0), below=0.01)
