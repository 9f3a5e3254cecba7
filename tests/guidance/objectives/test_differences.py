"""SJC, CSD, ASD and NFSD: how they relate to SDS and to each other, and where Gaussians send them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from guidance.objectives.base import View, guided
from guidance.objectives.differences.asd import ASD
from guidance.objectives.differences.csd import CSD
from guidance.objectives.differences.nfsd import NFSD
from guidance.objectives.differences.sds import SDS
from guidance.objectives.differences.sjc import SJC
from guidance.priors.base import Against, Condition, cleaned, noised, per_view
from guidance.priors.gaussian_mixture import ToyPrior
from guidance.testing.oracles import Counted
from tests.support.guidance.gaussian_oracles import bare, line, look, mean_gradient, random_look, resting

TIMES = [20, 199, 200, 600, 980]


def pictures(dtype: torch.dtype = torch.float64) -> ToyPrior:
    """Three components over 3 x 4 x 4 pictures."""
    means = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    texts = {"": (0.2, 0.3, 0.5), "y": (0.0, 1.0, 0.1), "n": (1.0, 0.0, 0.2)}
    return ToyPrior(means, torch.tensor([0.3, 0.6, 1.0], dtype=dtype), texts)


@pytest.fixture(scope="module")
def prior() -> ToyPrior:
    return pictures()


@pytest.fixture(scope="module")
def view(prior: ToyPrior) -> View:
    return random_look(prior, 1, TIMES)


def answers(prior: ToyPrior, view: View) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of no prompt, the text and the negative; and sigma^2."""
    alpha, sigma = prior.levels(view.t)
    x_t = noised(view.x, view.noise, alpha, sigma)
    empty, text, negative = prior.predict(x_t, view.t, [view.wanted.empty, view.wanted.text, view.wanted.negative])
    return empty, text, negative, per_view(sigma.square())


def equal_spreads(deviation: float = 0.8) -> ToyPrior:
    """No prompt is N(0, .), the text N(1, .), the negative N(-1.5, .)."""
    return line([0.0, 1.0, -1.5], [deviation] * 3, {"": (1, 0, 0), "y": (0, 1, 0), "n": (0, 0, 1)})


# --- SJC ---


@pytest.mark.parametrize("scale", [1.0, 7.5, 100.0])
def test_sjc_is_sds_of_uniform_weight_to_the_bit(prior: ToyPrior, view: View, scale: float) -> None:
    expected = SDS(scale, "uniform")(prior, prior, view).gradient
    assert torch.equal(SJC(scale)(prior, prior, view).gradient, expected)


@pytest.mark.parametrize("reduced", [True, False])
def test_sjc_is_the_way_to_the_clean_picture_in_unscaled_noise(prior: ToyPrior, view: View, reduced: bool) -> None:
    alpha, sigma = prior.levels(view.t)
    exploding = per_view(sigma / alpha)
    y = view.x + exploding * view.noise
    x_t = y / (1 + exploding.square()).sqrt()
    against, text = prior.predict(x_t, view.t, [view.wanted.negative, view.wanted.text])
    clean = cleaned(x_t, guided(against, text, 7.5), alpha, sigma)
    expected = -(clean - (view.x if reduced else y)) / exploding
    torch.testing.assert_close(SJC(7.5, reduced)(prior, prior, view).gradient, expected)


def test_sjc_from_either_start_is_the_same_on_average() -> None:
    prior = line([-2.0, 2.0], [0.3, 0.3], {"": (1, 1), "y": (0.3, 0.7)})
    steps = range(300, 401, 50)
    for place in (-1.0, 0.5):
        with_noise, without = (
            mean_gradient(prior, SJC(3, reduced), [place], steps, 40)[0] for reduced in (True, False)
        )
        assert with_noise == pytest.approx(without, abs=1e-9)


def test_sjc_rests_where_sds_of_uniform_weight_does() -> None:
    prior = line([-2.0, 2.0], [0.3, 0.3], {"": (1, 1), "y": (0.3, 0.7)})
    for point in (-1.3802, 1.7816):
        below, above = mean_gradient(prior, SJC(1), [point - 2e-4, point + 2e-4], range(20, 981), 64)
        assert below < 0 < above


# --- CSD ---


def test_sds_is_its_unguided_part_and_csd(prior: ToyPrior, view: View) -> None:
    whole, part, classifier = (rule(prior, prior, bare(view)).gradient for rule in (SDS(7.5), SDS(0), CSD(7.5)))
    torch.testing.assert_close(whole, part + classifier)


def test_csd_with_the_drawn_noise_alone_is_sds_without_guidance(prior: ToyPrior, view: View) -> None:
    plain = CSD(empty=(0, 0), noise=(-1, -1))(prior, prior, view).gradient
    torch.testing.assert_close(plain, SDS(1)(prior, prior, view).gradient)


@pytest.mark.parametrize(
    ("rule", "progress", "shares"),
    [
        (CSD(negative=(0, -1), empty=(-1, 0), until=0.5), 0.0, (-1.0, 0.0)),
        (CSD(negative=(0, -1), empty=(-1, 0), until=0.5), 0.125, (-0.75, -0.25)),
        (CSD(negative=(0, -1), empty=(-1, 0), until=0.5), 0.5, (0.0, -1.0)),
        (CSD(negative=(0, -1), empty=(-1, 0), until=0.5), 1.0, (0.0, -1.0)),
        (CSD(negative=(-1, -0.5), empty=(0, -0.5)), 0.0, (0.0, -1.0)),
        (CSD(negative=(-1, -0.5), empty=(0, -0.5)), 1.0, (-0.5, -0.5)),
    ],
    ids=str,
)
def test_csd_moves_from_one_difference_to_another(
    prior: ToyPrior, view: View, rule: CSD, progress: float, shares: tuple[float, float]
) -> None:
    empty, text, negative, w = answers(prior, view)
    counted = Counted(prior, [])
    update = rule(counted, counted, replace(view, progress=progress))
    torch.testing.assert_close(update.gradient, w * (text + shares[0] * empty + shares[1] * negative))
    assert counted.asked == [1 + sum(share != 0 for share in shares)]


def test_csd_before_equal_spreads_drifts_without_noise_and_without_end() -> None:
    """-scale w sigma alpha a (m_y - m_0), wherever the picture is."""
    prior = equal_spreads()
    view = random_look(prior, 2, [*range(20, 981, 10)])
    alpha, sigma = (per_view(level) for level in prior.levels(view.t))
    a = 1 / (alpha**2 * 0.8**2 + sigma**2)
    expected = -3 * sigma**2 * sigma * alpha * a
    torch.testing.assert_close(CSD(3)(prior, prior, view).gradient, expected)


def test_csd_overshoots_the_narrower_text_as_in_closed_form() -> None:
    place, slope = resting(line([0.0, 1.0], [1.0, 0.5], {"": (1, 0), "y": (0, 1)}), CSD())
    assert place == pytest.approx(3.82098, abs=1e-5)
    assert slope > 0
    place, slope = resting(line([0.0, 1.0], [0.5, 1.0], {"": (1, 0), "y": (0, 1)}), CSD())
    assert slope < 0


def test_csd_fades_inside_the_class_and_leads_past_its_mean() -> None:
    prior = line([-2.0, 2.0], [0.3, 0.3], {"": (1, 1), "y": (0, 1)})
    between, mean, beyond = mean_gradient(prior, CSD(), [0.0, 2.0, 3.0], range(300, 301), 60)
    assert between < mean < beyond < 0  # below 0 is a step to the right
    assert abs(mean) < 0.2 * abs(between)
    assert abs(beyond) < 0.1 * abs(mean)


def test_csd_pulls_by_how_unsure_the_class_is() -> None:
    """-w sigma alpha (m_y - m_other) / V * (1 - gamma), with gamma the chance of the class, a sigmoid of its odds."""
    prior = line([-2.0, 2.0], [0.3, 0.3], {"": (0.4, 0.6), "y": (0, 1)})
    view = random_look(prior, 8, [*range(20, 981, 40)])
    alpha, sigma = (per_view(level) for level in prior.levels(view.t))
    variance = alpha**2 * 0.3**2 + sigma**2
    odds = 2 * alpha * 2 * noised(view.x, view.noise, *prior.levels(view.t)) / variance
    gamma = (odds + torch.tensor(0.6 / 0.4).log()).sigmoid()
    expected = -(sigma**3) * alpha * 4 / variance * (1 - gamma)
    torch.testing.assert_close(CSD()(prior, prior, view).gradient, expected, rtol=1e-6, atol=1e-12)


def test_csd_refuses_what_leaves_noise_over() -> None:
    with pytest.raises(ValueError, match=r"first values of negative, empty and noise sum to -1\.5; expected -1"):
        CSD(negative=(-0.5, 0))
    with pytest.raises(ValueError, match="last values of negative, empty and noise sum to nan"):
        CSD(noise=(0, float("nan")))
    with pytest.raises(ValueError, match="until is 0"):
        CSD(until=0)
    with pytest.raises(ValueError, match="scale is inf"):
        CSD(float("inf"))


# --- ASD ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 7.5, 20.0])
def test_asd_without_shift_is_csd_to_the_bit(dtype: torch.dtype, scale: float) -> None:
    prior = pictures(dtype)
    view = bare(random_look(prior, 3, TIMES, dtype))
    expected = CSD(scale - 1)(prior, prior, view).gradient
    assert torch.equal(ASD(scale, plus_ratio=0)(prior, prior, view).gradient, expected)


def test_asd_is_the_guided_answer_less_that_of_a_later_time(prior: ToyPrior, view: View) -> None:
    rule, view = ASD(7.5), replace(view, lowest=0.01)
    _, text, against, w = answers(prior, view)
    later = view.t + view.uniform * torch.minimum(0.1 * (view.t - 0.01), 1 - view.t)
    (shifted,) = prior.predict(noised(view.x, view.noise, *prior.levels(later)), later, [view.wanted.text])
    torch.testing.assert_close(rule(prior, prior, view).gradient, w * (guided(against, text, 7.5) - shifted))


def at(t: Tensor, uniform: Tensor | float, lowest: float) -> View:
    prior = equal_spreads()
    blank = torch.zeros(len(t), 1, 1, 1, dtype=t.dtype)
    return replace(look(prior, blank, blank, t), uniform=torch.as_tensor(uniform) + 0 * t, lowest=lowest)


def test_asd_shifts_to_noisier_times_by_a_share_of_the_way_from_the_lowest() -> None:
    t = torch.full((20000,), 0.6, dtype=torch.float64)
    uniform = torch.rand(20000, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    shift = ASD(plus_ratio=0.1).later(at(t, uniform, 0.2)) - t
    assert bool((shift >= 0).all()) and float(shift.max()) <= 0.1 * 0.4
    assert float(shift.mean()) == pytest.approx(0.1 * 0.4 / 2, rel=0.02)
    steady = ASD(plus_ratio=0.1, plus_random=False).later(at(t, uniform, 0.2)) - t
    torch.testing.assert_close(steady, torch.full_like(t, 0.1 * 0.4))


def test_asd_stays_within_the_schedule() -> None:
    t = torch.tensor([0.1, 0.95, 1.0], dtype=torch.float64)
    later = ASD(plus_ratio=1.0, plus_random=False).later(at(t, 1.0, 0.2))
    assert later.tolist() == pytest.approx([0.1, 1.0, 1.0])  # below the lowest time nothing is shifted


@pytest.mark.parametrize("step", [30, 100, 250, 600])
def test_asd_without_guidance_repels_at_low_times_and_attracts_at_high_ones(step: int) -> None:
    """w [(x - m) (h(t) - h(t')) + (sigma^2 a - sigma'^2 a') noise]; h = sigma alpha a is highest where its
    sigma / alpha is the data's deviation: 169 steps for 0.5."""
    mean, std = 1.0, 0.5
    prior = line([0.0, mean], [1.0, std], {"": (1, 0), "y": (0, 1)})
    view = random_look(prior, 5, [step] * 50)
    rule = ASD(1, plus_ratio=0.5, plus_random=False)

    def parts(t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        alpha, sigma = (per_view(level) for level in prior.levels(t))
        a = 1 / (alpha**2 * std**2 + sigma**2)
        return sigma * alpha * a, sigma**2 * a, sigma**2

    (h, n, w), (h_later, n_later, _) = parts(view.t), parts(rule.later(view))
    expected = w * ((view.x - mean) * (h - h_later) + (n - n_later) * view.noise)
    torch.testing.assert_close(rule(prior, prior, view).gradient, expected)
    assert bool((h < h_later).all()) if step * 1.5 < 169 else bool((h > h_later).all())
    at_0, at_1 = mean_gradient(prior, rule, [0.0, 1.0], range(step, step + 1), 2)
    assert (at_1 < at_0) == (step * 1.5 < 169)


def test_the_force_turns_where_sigma_over_alpha_is_the_deviation() -> None:
    t = torch.arange(1000, dtype=torch.float64) / 999
    alpha, sigma = equal_spreads().levels(t)
    assert int((sigma * alpha / (0.25 * alpha**2 + sigma**2)).argmax()) == 169


def test_asd_has_far_less_noise_than_two_noises_would_give() -> None:
    prior = line([0.0, 1.0], [1.0, 0.5], {"": (1, 0), "y": (0, 1)})
    view = random_look(prior, 6, [300] * 4000)
    view, rule = replace(view, x=torch.zeros_like(view.x)), ASD(1)
    coupled = rule(prior, prior, view).gradient
    later = rule.later(view)
    (shifted,) = prior.predict(noised(view.x, view.second, *prior.levels(later)), later, [view.wanted.text])
    _, text, _, w = answers(prior, view)
    apart = w * (text - shifted)
    assert float(coupled.var()) < 0.01 * float(apart.var())


@dataclass
class Listening:
    """Notes what is asked."""

    inner: ToyPrior
    heard: list[list[Condition]] = field(default_factory=list)

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner.levels(t)

    def predict(self, x_t: Tensor, t: Tensor, conditions: list[Condition]) -> Tensor:
        self.heard.append(conditions)
        return self.inner.predict(x_t, t, conditions)


def test_asd_keeps_away_from_other_sides_in_its_first_answer_only(prior: ToyPrior, view: View) -> None:
    wanted = view.wanted
    against = (Against(wanted.negative, -torch.ones_like(view.t)),)
    listening = Listening(prior)
    ASD()(listening, listening, replace(view, wanted=replace(wanted, text=replace(wanted.text, against=against))))
    (empty, text), (later,) = listening.heard
    assert (empty.against, text.against, later.against) == ((), against, ())
    assert later.tokens is text.tokens


def test_asd_refuses_shares_beyond_one() -> None:
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"plus_ratio is {share}; expected a share from 0 to 1"):
            ASD(plus_ratio=share)


# --- NFSD ---


def test_nfsd_switches_at_step_200_exactly(prior: ToyPrior, view: View) -> None:
    empty, text, negative, w = answers(prior, view)
    gradient = NFSD(7.5)(prior, prior, view).gradient
    low = w * (empty + 7.5 * (text - empty))
    high = w * (empty - negative + 7.5 * (text - empty))
    for place, step in enumerate(TIMES):
        torch.testing.assert_close(gradient[place], (low if step < 200 else high)[place])


def test_nfsd_of_scale_one_is_the_text_alone_at_low_times(prior: ToyPrior, view: View) -> None:
    _, text, _, w = answers(prior, view)
    torch.testing.assert_close(NFSD(1)(prior, prior, view).gradient[:2], (w * text)[:2])


def test_nfsd_has_no_noise_from_the_switch_on() -> None:
    """Below it, w sigma^2 a of every drawn noise is left."""
    prior = equal_spreads()
    for step in (100, 199, 200, 700):
        view = random_look(prior, 7, [step] * 20)
        view = replace(view, x=torch.full_like(view.x, 0.3))
        gradient = NFSD()(prior, prior, view).gradient
        alpha, sigma = (per_view(level) for level in prior.levels(view.t))
        left = sigma**2 * sigma**2 / (alpha**2 * 0.64 + sigma**2) if step < 200 else torch.zeros_like(alpha)
        torch.testing.assert_close(gradient - gradient[:1], left * (view.noise - view.noise[:1]))


def test_nfsd_overshoots_as_in_closed_form() -> None:
    place, slope = resting(equal_spreads(), NFSD())
    assert place == pytest.approx(164.56, abs=0.005)
    assert slope > 0


def test_nfsd_without_a_negative_prompt_is_csd_from_the_switch_on(prior: ToyPrior, view: View) -> None:
    gradient, classifier = (rule(prior, prior, bare(view)).gradient for rule in (NFSD(7.5), CSD(7.5)))
    torch.testing.assert_close(gradient[2:], classifier[2:])
    assert not torch.allclose(gradient[:2], classifier[:2])


def test_nfsd_asks_about_the_negative_prompt_where_it_counts(prior: ToyPrior, view: View) -> None:
    for rows, asked in (([0, 1], 2), ([0, 2], 3), ([3], 3)):
        counted = Counted(prior, [])
        NFSD()(counted, counted, view.rows(torch.tensor(rows)))
        assert counted.asked == [asked]


def test_nfsd_refuses_times_off_the_schedule() -> None:
    with pytest.raises(ValueError, match=r"switch is 200; expected a time from 0 to 1"):
        NFSD(switch=200)
