"""SDI against closed forms, and what all objectives on an inverted chain keep to."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from guidance.objectives.base import Objective, View
from guidance.objectives.differences.sds import SDS
from guidance.objectives.intervals.csm import CSM
from guidance.objectives.intervals.ism import ISM
from guidance.objectives.intervals.sdi import SDI
from guidance.objectives.intervals.tsm import TSM
from guidance.objectives.inversion import Inversion, ddim
from guidance.priors.base import cleaned, per_view
from guidance.priors.gaussian_mixture import ToyPrior
from tests.support.guidance.inversion_oracles import (
    T,
    Watching,
    column,
    levels,
    line,
    look,
    resting,
    six_views,
    take_the_exact_flow,
    three_blobs,
    two,
)

EVERY = [ISM(), TSM(), CSM(), SDI(), SDI(mismatch=True)]
names = [type(objective).__name__ for objective in EVERY]


@pytest.fixture(scope="module")
def prior() -> ToyPrior:
    return three_blobs()


@pytest.fixture(scope="module")
def view(prior: ToyPrior) -> View:
    return six_views(prior)


# --- distillation by inversion ---


def test_inverted_noise_shows_the_way_to_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """x - xhat = (x - m)(1 - alpha std / D_t) along the exact flow, and without any noise."""
    mean, std = 0.7, 0.4
    prior = line([mean], [std], {"": (1,), "y": (1,)})
    take_the_exact_flow(monkeypatch, prior)
    t = torch.tensor([0.25, 0.5, 0.98], dtype=torch.float64)
    view = look(prior, column(-1, 0.7, 3), t)
    alpha, sigma = (per_view(level) for level in prior.levels(t))
    expected = (view.x - mean) * (1 - alpha * std / (alpha**2 * std**2 + sigma**2).sqrt())
    for inverted in (0.0, 1.0):
        gradient = SDI(1, inverted, eta=0)(prior, prior, view).gradient
        torch.testing.assert_close(gradient, expected)
    assert float(gradient[1].abs().max()) < 1e-12


def test_guided_inversion_rests_where_the_closed_form_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """x_t of the prior shifted by -k, seen clean by the one shifted by the scale; linear in x."""
    prior, scale, back, std = two(0.2, 0.7, 0.6), 7.5, -7.5, 0.6
    take_the_exact_flow(monkeypatch, line([0.2 + back * 0.5], [std], {"": (1,)}))
    alpha, sigma = levels(prior, T)
    spread = ((alpha * std) ** 2 + sigma**2) ** 0.5
    below, above = 0.2 + back * 0.5, 0.2 + scale * 0.5
    # xhat = above + alpha std^2 / D^2 (x_t - alpha above), x_t = alpha below + (x - below) D / std
    slope = alpha * std / spread
    expected = (above * (sigma / spread) ** 2 + below * (slope**2 - slope)) / (1 - slope)
    assert resting(prior, SDI(scale, back, eta=0)) == pytest.approx(expected, rel=1e-9)


def test_short_strides_give_the_same_gradient_as_the_exact_flow() -> None:
    mean, std = 0.7, 0.4
    prior = line([mean], [std], {"": (1,), "y": (1,)})
    view = look(prior, column(-1, 3), torch.tensor([0.5, 0.8], dtype=torch.float64))
    alpha, sigma = (per_view(level) for level in prior.levels(view.t))
    expected = (view.x - mean) * (1 - alpha * std / (alpha**2 * std**2 + sigma**2).sqrt())
    errors = [
        (SDI(1, 0, stride, eta=0)(prior, prior, view).gradient - expected).abs().max() for stride in (0.1, 0.02, 0.004)
    ]
    # The first step, off the clean latent, is one whatever the stride: what is left at the end is its error.
    assert errors[0] > 3 * errors[1] > 6 * errors[2] and errors[2] < 0.01


def test_distillation_by_inversion_is_sds_with_the_noise_that_inversion_finds(prior: ToyPrior, view: View) -> None:
    """The weighting `reconstruction`, with the noise (x_t - alpha x) / sigma."""
    gradient = SDI(5, -3, eta=0)(prior, prior, view).gradient
    start = torch.zeros_like(view.t)
    upwards = Inversion(0.1, -3)
    x_0 = ddim(prior, view.x, upwards.answer(prior, view.x, start, view.wanted), None, start)
    x_t = upwards(prior, x_0, view.t, view.wanted)
    alpha, sigma = (per_view(level) for level in prior.levels(view.t))
    found = replace(view, noise=(x_t - alpha * view.x) / sigma)
    torch.testing.assert_close(gradient, SDS(5, "reconstruction")(prior, prior, found).gradient)


def test_the_published_mismatch_goes_too_far_up_and_does_not_tell() -> None:
    prior = two(0.2, 0.7, 0.6)
    t = torch.tensor([0.45, 0.98], dtype=torch.float64)
    view = replace(look(prior, column(0.4, 0.4), t), uniform=torch.tensor([0.5, 0.5], dtype=torch.float64))
    watched, matched = Watching(prior, []), Watching(prior, [])
    far = SDI(5, -3, eta=0, mismatch=True)(watched, watched, view).gradient
    near = SDI(5, -3, eta=0)(matched, matched, view).gradient
    assert [t.tolist() for t, _ in watched.asked] == [t.tolist() for t, _ in matched.asked]
    landing = torch.tensor([0.5, 1.0], dtype=torch.float64)
    start = torch.zeros_like(t)
    upwards = Inversion(0.1, -3)
    x_0 = ddim(prior, view.x, upwards.answer(prior, view.x, start, view.wanted), None, start)
    x_t = upwards(prior, x_0, t, view.wanted, None, landing)
    answers = prior.predict(x_t, t, [view.wanted.empty, view.wanted.text])
    wanted = cleaned(x_t, answers[0] + 5 * (answers[1] - answers[0]), *prior.levels(t))
    torch.testing.assert_close(far, view.x - wanted)
    still = replace(view, uniform=torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(SDI(5, -3, eta=0, mismatch=True)(prior, prior, still).gradient, near)


def test_only_eta_makes_inversion_random(prior: ToyPrior, view: View) -> None:
    other = replace(view, second=view.noise, noise=view.second)
    assert torch.equal(*(SDI(eta=0)(prior, prior, seen).gradient for seen in (view, other)))
    assert not torch.equal(*(SDI(eta=0.3)(prior, prior, seen).gradient for seen in (view, other)))


# --- what all of them keep to ---

PASSES: list[tuple[Objective, dict[float, int]]] = [
    (ISM(), {0.02: 3, 0.08: 3, 0.1: 4, 0.28: 4, 0.3: 5, 0.5: 6, 0.98: 8}),
    (CSM(), {0.02: 3, 0.1: 4, 0.5: 6, 0.98: 8}),
    (TSM(), {0.02: 4, 0.1: 5, 0.5: 7, 0.98: 9}),
    (SDI(), {0.25: 10, 0.3: 10, 0.31: 12, 0.98: 24}),
    (SDI(mismatch=True), {0.25: 10, 0.98: 24}),
    (SDI(inversion_scale=0), {0.25: 6, 0.98: 13}),
]


@pytest.mark.parametrize(("objective", "passes"), PASSES, ids=lambda value: type(value).__name__)
def test_passes_are_as_told(objective: Objective, passes: dict[float, int]) -> None:
    prior = two(0.0, 0.5, 0.8)
    watched = Watching(prior, [])
    t = torch.tensor(list(passes), dtype=torch.float64)
    objective(watched, watched, look(prior, torch.zeros(len(t), 1, 1, 1, dtype=torch.float64), t))
    assert [watched.passes()[place] for place in range(len(t))] == list(passes.values())
    if objective == type(objective)():
        assert objective.about is not None
        assert objective.about.passes == (min(passes.values()), max(passes.values()))


@pytest.mark.parametrize("objective", EVERY, ids=names)
def test_a_batch_is_its_views_one_by_one(objective: Objective, prior: ToyPrior, view: View) -> None:
    together = objective(prior, prior, view).gradient
    for place in range(len(view.x)):
        alone = objective(prior, prior, view.rows(torch.tensor([place]))).gradient
        torch.testing.assert_close(alone[0], together[place])


@pytest.mark.parametrize("objective", EVERY, ids=names)
def test_the_same_view_gives_the_same_detached_update(objective: Objective, prior: ToyPrior, view: View) -> None:
    x = view.x.clone()
    first, second = (objective(prior, prior, view) for _ in range(2))
    assert torch.equal(first.gradient, second.gradient) and first.logs == second.logs
    assert first.gradient.shape == view.x.shape and not first.gradient.requires_grad
    assert torch.equal(view.x, x)


@pytest.mark.parametrize("objective", EVERY, ids=names)
def test_single_precision_is_close_to_double(objective: Objective, prior: ToyPrior, view: View) -> None:
    single = ToyPrior(prior.means.float(), prior.deviations.float(), prior.texts)
    wanted = look(single, view.x.float(), view.t.float()).wanted
    parts = {name: getattr(view, name).float() for name in ("x", "noise", "t", "second", "uniform")}
    gradient = objective(single, single, replace(view, wanted=wanted, **parts)).gradient
    assert gradient.dtype == torch.float32
    expected = objective(prior, prior, view).gradient
    assert float((gradient - expected).norm()) < 1e-3 * float(expected.norm())


def test_values_that_make_no_sense_are_refused() -> None:
    for kind in (ISM, TSM, CSM):
        with pytest.raises(ValueError, match="scale is nan"):
            kind(scale=float("nan"))
        with pytest.raises(ValueError, match="delta is 0; expected above 0 and at most 1"):
            kind(delta=0)
    for kind in (ISM, TSM, CSM, SDI):
        with pytest.raises(ValueError, match=r"stride is -0\.1; expected above 0"):
            kind(stride=-0.1)
    with pytest.raises(ValueError, match=r"gamma is 1\.5; expected a number from 0 to 1"):
        TSM(gamma=1.5)
    with pytest.raises(ValueError, match="scale is inf"):
        SDI(scale=float("inf"))
    with pytest.raises(ValueError, match="inversion scale is nan"):
        SDI(inversion_scale=float("nan"))
    with pytest.raises(ValueError, match="eta is -1"):
        SDI(eta=-1)
