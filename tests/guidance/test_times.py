"""Noise times stay in their range, cover it, and move with the progress of a run."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guidance.prior import generator
from guidance.times import Times

bounds = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda pair: (min(pair), max(pair)))


@given(bounds, bounds, st.integers(1, 20), st.floats(0, 1), st.integers(0, 99))
def test_times_stay_between_the_bounds_of_the_moment(
    first: tuple[float, float], last: tuple[float, float], count: int, progress: float, seed: int
) -> None:
    low, high = (a + (b - a) * progress for a, b in zip(first, last, strict=True))
    t = Times(first, last).draw(count, progress, generator(seed))
    assert t.shape == (count,)
    assert bool(((low - 1e-6 <= t) & (t <= high + 1e-6)).all())


def test_every_stratum_gets_one_time() -> None:
    t = Times((0.2, 0.8), (0.2, 0.8)).draw(12, 0.3, generator(0))
    assert ((t.sort().values - 0.2) / 0.6 * 12).floor().tolist() == list(range(12))


def test_a_run_goes_from_the_first_range_to_the_last() -> None:
    times, rng = Times((0.5, 0.98), (0.02, 0.4)), generator(1)
    start, end = times.draw(500, 0.0, rng), times.draw(500, 1.0, rng)
    assert float(start.min()) == pytest.approx(0.5, abs=2e-3) and float(start.max()) == pytest.approx(0.98, abs=2e-3)
    assert float(end.min()) == pytest.approx(0.02, abs=2e-3) and float(end.max()) == pytest.approx(0.4, abs=2e-3)


def test_the_generator_decides() -> None:
    times = Times()
    assert torch.equal(times.draw(5, 0.5, generator(3)), times.draw(5, 0.5, generator(3)))
    assert not torch.equal(times.draw(5, 0.5, generator(3)), times.draw(5, 0.5, generator(4)))


@pytest.mark.parametrize("pair", [(0.5, 0.4), (-0.1, 0.5), (0.5, 1.1), (float("nan"), 0.5)])
def test_ranges_that_are_none_are_refused(pair: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="expected 0 <= low <= high <= 1"):
        Times(first=pair)
    with pytest.raises(ValueError, match="expected 0 <= low <= high <= 1"):
        Times(last=pair)
