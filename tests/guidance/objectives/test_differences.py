"""SJC, CSD, ASD and NFSD: how they relate to SDS and to each other, and where Gaussians send them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from guidance.objectives.base import ViewBatch
from guidance.objectives.differences.asd import ASD
from guidance.objectives.differences.csd import CSD
from guidance.objectives.differences.nfsd import NFSD
from guidance.objectives.differences.sds import SDS
from guidance.objectives.differences.sjc import SJC
from guidance.priors.base import Condition, WeightedNegative, add_noise, expand_like_latents, predict_x0
from guidance.priors.cfg import classifier_free_guidance
from guidance.priors.gaussian_mixture import GaussianMixturePrior
from guidance.testing.oracles import CountingDenoiser
from tests.support.guidance.gaussian_oracles import (
    expected_grad,
    fixed_point,
    random_views,
    scalar_mixture,
    scalar_views,
    without_negative,
)

TIMES = [20, 199, 200, 600, 980]


def pictures(dtype: torch.dtype = torch.float64) -> GaussianMixturePrior:
    """Three components over 3 x 4 x 4 pictures."""
    means = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    texts = {"": (0.2, 0.3, 0.5), "y": (0.0, 1.0, 0.1), "n": (1.0, 0.0, 0.2)}
    return GaussianMixturePrior(means, torch.tensor([0.3, 0.6, 1.0], dtype=dtype), texts)


@pytest.fixture(scope="module")
def prior() -> GaussianMixturePrior:
    return pictures()


@pytest.fixture(scope="module")
def view(prior: GaussianMixturePrior) -> ViewBatch:
    return random_views(prior, 1, TIMES)


def answers(prior: GaussianMixturePrior, view: ViewBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of no prompt, the text and the negative; and sigma^2."""
    alpha, sigma = prior.alpha_sigma(view.t)
    x_t = add_noise(view.latents, view.noise, alpha, sigma)
    uncond, text, negative = prior.predict_noise(
        x_t, view.t, [view.conditions.uncond, view.conditions.text, view.conditions.negative]
    )
    return uncond, text, negative, expand_like_latents(sigma.square())


def equal_std_prior(std: float = 0.8) -> GaussianMixturePrior:
    """No prompt is N(0, .), the text N(1, .), the negative N(-1.5, .)."""
    return scalar_mixture([0.0, 1.0, -1.5], [std] * 3, {"": (1, 0, 0), "y": (0, 1, 0), "n": (0, 0, 1)})


# --- SJC ---


@pytest.mark.parametrize("scale", [1.0, 7.5, 100.0])
def test_sjc_equals_uniform_sds_bit_exactly(prior: GaussianMixturePrior, view: ViewBatch, scale: float) -> None:
    expected = SDS(scale, "uniform")(prior, prior, view).grad
    assert torch.equal(SJC(scale)(prior, prior, view).grad, expected)


@pytest.mark.parametrize("reduced", [True, False])
def test_sjc_is_the_x0_residual_in_variance_exploding_form(
    prior: GaussianMixturePrior, view: ViewBatch, reduced: bool
) -> None:
    alpha, sigma = prior.alpha_sigma(view.t)
    exploding = expand_like_latents(sigma / alpha)
    y = view.latents + exploding * view.noise
    x_t = y / (1 + exploding.square()).sqrt()
    negative, text = prior.predict_noise(x_t, view.t, [view.conditions.negative, view.conditions.text])
    clean = predict_x0(x_t, classifier_free_guidance(negative, text, 7.5), alpha, sigma)
    expected = -(clean - (view.latents if reduced else y)) / exploding
    torch.testing.assert_close(SJC(7.5, reduced)(prior, prior, view).grad, expected)


def test_sjc_variance_reduction_keeps_the_mean() -> None:
    prior = scalar_mixture([-2.0, 2.0], [0.3, 0.3], {"": (1, 1), "y": (0.3, 0.7)})
    steps = range(300, 401, 50)
    for place in (-1.0, 0.5):
        with_noise, without = (
            expected_grad(prior, SJC(3, reduced), [place], steps, 40)[0] for reduced in (True, False)
        )
        assert with_noise == pytest.approx(without, abs=1e-9)


def test_sjc_fixed_point_equals_uniform_sds() -> None:
    prior = scalar_mixture([-2.0, 2.0], [0.3, 0.3], {"": (1, 1), "y": (0.3, 0.7)})
    for point in (-1.3802, 1.7816):
        below, above = expected_grad(prior, SJC(1), [point - 2e-4, point + 2e-4], range(20, 981), 64)
        assert below < 0 < above


# --- CSD ---


def test_sds_decomposes_into_unguided_sds_and_csd(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    whole, part, classifier = (rule(prior, prior, without_negative(view)).grad for rule in (SDS(7.5), SDS(0), CSD(7.5)))
    torch.testing.assert_close(whole, part + classifier)


def test_csd_with_noise_weight_alone_equals_unguided_sds(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    plain = CSD(uncond_weight=(0, 0), noise_weight=(-1, -1))(prior, prior, view).grad
    torch.testing.assert_close(plain, SDS(1)(prior, prior, view).grad)


@pytest.mark.parametrize(
    ("rule", "progress", "shares"),
    [
        (CSD(negative_weight=(0, -1), uncond_weight=(-1, 0), ramp_end=0.5), 0.0, (-1.0, 0.0)),
        (CSD(negative_weight=(0, -1), uncond_weight=(-1, 0), ramp_end=0.5), 0.125, (-0.75, -0.25)),
        (CSD(negative_weight=(0, -1), uncond_weight=(-1, 0), ramp_end=0.5), 0.5, (0.0, -1.0)),
        (CSD(negative_weight=(0, -1), uncond_weight=(-1, 0), ramp_end=0.5), 1.0, (0.0, -1.0)),
        (CSD(negative_weight=(-1, -0.5), uncond_weight=(0, -0.5)), 0.0, (0.0, -1.0)),
        (CSD(negative_weight=(-1, -0.5), uncond_weight=(0, -0.5)), 1.0, (-0.5, -0.5)),
    ],
    ids=str,
)
def test_csd_ramps_between_weights(
    prior: GaussianMixturePrior, view: ViewBatch, rule: CSD, progress: float, shares: tuple[float, float]
) -> None:
    uncond, text, negative, w = answers(prior, view)
    counted = CountingDenoiser(prior, [])
    update = rule(counted, counted, replace(view, progress=progress))
    torch.testing.assert_close(update.grad, w * (text + shares[0] * uncond + shares[1] * negative))
    assert counted.calls == [1 + sum(share != 0 for share in shares)]


def test_csd_drifts_forever_for_equal_stds() -> None:
    """-scale w sigma alpha a (m_y - m_0), wherever the picture is."""
    prior = equal_std_prior()
    view = random_views(prior, 2, [*range(20, 981, 10)])
    alpha, sigma = (expand_like_latents(level) for level in prior.alpha_sigma(view.t))
    a = 1 / (alpha**2 * 0.8**2 + sigma**2)
    expected = -3 * sigma**2 * sigma * alpha * a
    torch.testing.assert_close(CSD(3)(prior, prior, view).grad, expected)


def test_csd_overshoot_matches_closed_form() -> None:
    place, slope = fixed_point(scalar_mixture([0.0, 1.0], [1.0, 0.5], {"": (1, 0), "y": (0, 1)}), CSD())
    assert place == pytest.approx(3.82098, abs=1e-5)
    assert slope > 0
    place, slope = fixed_point(scalar_mixture([0.0, 1.0], [0.5, 1.0], {"": (1, 0), "y": (0, 1)}), CSD())
    assert slope < 0


def test_csd_fades_inside_the_class() -> None:
    prior = scalar_mixture([-2.0, 2.0], [0.3, 0.3], {"": (1, 1), "y": (0, 1)})
    between, mean, beyond = expected_grad(prior, CSD(), [0.0, 2.0, 3.0], range(300, 301), 60)
    assert between < mean < beyond < 0  # below 0 is a step to the right
    assert abs(mean) < 0.2 * abs(between)
    assert abs(beyond) < 0.1 * abs(mean)


def test_csd_scales_with_class_uncertainty() -> None:
    """-w sigma alpha (m_y - m_other) / V * (1 - gamma), with gamma the chance of the class, a sigmoid of its odds."""
    prior = scalar_mixture([-2.0, 2.0], [0.3, 0.3], {"": (0.4, 0.6), "y": (0, 1)})
    view = random_views(prior, 8, [*range(20, 981, 40)])
    alpha, sigma = (expand_like_latents(level) for level in prior.alpha_sigma(view.t))
    variance = alpha**2 * 0.3**2 + sigma**2
    odds = 2 * alpha * 2 * add_noise(view.latents, view.noise, *prior.alpha_sigma(view.t)) / variance
    gamma = (odds + torch.tensor(0.6 / 0.4).log()).sigmoid()
    expected = -(sigma**3) * alpha * 4 / variance * (1 - gamma)
    torch.testing.assert_close(CSD()(prior, prior, view).grad, expected, rtol=1e-6, atol=1e-12)


def test_csd_rejects_weights_that_do_not_sum_to_minus_one() -> None:
    with pytest.raises(ValueError, match=r"first values of negative, empty and noise sum to -1\.5; expected -1"):
        CSD(negative_weight=(-0.5, 0))
    with pytest.raises(ValueError, match="last values of negative, empty and noise sum to nan"):
        CSD(noise_weight=(0, float("nan")))
    with pytest.raises(ValueError, match="ramp_end is 0"):
        CSD(ramp_end=0)
    with pytest.raises(ValueError, match="weight is inf"):
        CSD(float("inf"))


# --- ASD ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 7.5, 20.0])
def test_asd_without_shift_equals_csd_bit_exactly(dtype: torch.dtype, scale: float) -> None:
    prior = pictures(dtype)
    view = without_negative(random_views(prior, 3, TIMES, dtype))
    expected = CSD(scale - 1)(prior, prior, view).grad
    assert torch.equal(ASD(scale, plus_ratio=0)(prior, prior, view).grad, expected)


def test_asd_subtracts_the_noise_pred_of_the_shifted_timestep(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    rule, view = ASD(7.5), replace(view, t_min=0.01)
    _, text, negative, w = answers(prior, view)
    later = view.t + view.u * torch.minimum(0.1 * (view.t - 0.01), 1 - view.t)
    (shifted,) = prior.predict_noise(
        add_noise(view.latents, view.noise, *prior.alpha_sigma(later)), later, [view.conditions.text]
    )
    torch.testing.assert_close(
        rule(prior, prior, view).grad, w * (classifier_free_guidance(negative, text, 7.5) - shifted)
    )


def at(t: Tensor, uniform: Tensor | float, lowest: float) -> ViewBatch:
    prior = equal_std_prior()
    blank = torch.zeros(len(t), 1, 1, 1, dtype=t.dtype)
    return replace(scalar_views(prior, blank, blank, t), u=torch.as_tensor(uniform) + 0 * t, t_min=lowest)


def test_asd_shift_is_a_fraction_above_t_min() -> None:
    t = torch.full((20000,), 0.6, dtype=torch.float64)
    uniform = torch.rand(20000, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    shift = ASD(plus_ratio=0.1).shifted_timestep(at(t, uniform, 0.2)) - t
    assert bool((shift >= 0).all()) and float(shift.max()) <= 0.1 * 0.4
    assert float(shift.mean()) == pytest.approx(0.1 * 0.4 / 2, rel=0.02)
    steady = ASD(plus_ratio=0.1, plus_random=False).shifted_timestep(at(t, uniform, 0.2)) - t
    torch.testing.assert_close(steady, torch.full_like(t, 0.1 * 0.4))


def test_asd_shift_is_clamped_to_the_schedule() -> None:
    t = torch.tensor([0.1, 0.95, 1.0], dtype=torch.float64)
    later = ASD(plus_ratio=1.0, plus_random=False).shifted_timestep(at(t, 1.0, 0.2))
    assert later.tolist() == pytest.approx([0.1, 1.0, 1.0])  # below the lowest time nothing is shifted


@pytest.mark.parametrize("step", [30, 100, 250, 600])
def test_unguided_asd_repels_at_low_t_and_attracts_at_high_t(step: int) -> None:
    """w [(x - m) (h(t) - h(t')) + (sigma^2 a - sigma'^2 a') noise]; h = sigma alpha a is highest where its
    sigma / alpha is the data's deviation: 169 steps for 0.5."""
    mean, std = 1.0, 0.5
    prior = scalar_mixture([0.0, mean], [1.0, std], {"": (1, 0), "y": (0, 1)})
    view = random_views(prior, 5, [step] * 50)
    rule = ASD(1, plus_ratio=0.5, plus_random=False)

    def parts(t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        alpha, sigma = (expand_like_latents(level) for level in prior.alpha_sigma(t))
        a = 1 / (alpha**2 * std**2 + sigma**2)
        return sigma * alpha * a, sigma**2 * a, sigma**2

    (h, n, w), (h_later, n_later, _) = parts(view.t), parts(rule.shifted_timestep(view))
    expected = w * ((view.latents - mean) * (h - h_later) + (n - n_later) * view.noise)
    torch.testing.assert_close(rule(prior, prior, view).grad, expected)
    assert bool((h < h_later).all()) if step * 1.5 < 169 else bool((h > h_later).all())
    at_0, at_1 = expected_grad(prior, rule, [0.0, 1.0], range(step, step + 1), 2)
    assert (at_1 < at_0) == (step * 1.5 < 169)


def test_asd_force_changes_sign_where_noise_to_signal_equals_std() -> None:
    t = torch.arange(1000, dtype=torch.float64) / 999
    alpha, sigma = equal_std_prior().alpha_sigma(t)
    assert int((sigma * alpha / (0.25 * alpha**2 + sigma**2)).argmax()) == 169


def test_asd_has_lower_variance_than_independent_noise() -> None:
    prior = scalar_mixture([0.0, 1.0], [1.0, 0.5], {"": (1, 0), "y": (0, 1)})
    view = random_views(prior, 6, [300] * 4000)
    view, rule = replace(view, latents=torch.zeros_like(view.latents)), ASD(1)
    coupled = rule(prior, prior, view).grad
    later = rule.shifted_timestep(view)
    (shifted,) = prior.predict_noise(
        add_noise(view.latents, view.extra_noise, *prior.alpha_sigma(later)), later, [view.conditions.text]
    )
    _, text, _, w = answers(prior, view)
    difference = w * (text - shifted)
    assert float(coupled.var()) < 0.01 * float(difference.var())


@dataclass
class RecordingDenoiser:
    """Notes what is asked."""

    inner: GaussianMixturePrior
    heard: list[list[Condition]] = field(default_factory=list)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner.alpha_sigma(t)

    def predict_noise(self, x_t: Tensor, t: Tensor, conditions: list[Condition]) -> Tensor:
        self.heard.append(conditions)
        return self.inner.predict_noise(x_t, t, conditions)


def test_asd_applies_perp_neg_to_the_first_prediction_only(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    expected = view.conditions
    negative = (WeightedNegative(expected.negative, -torch.ones_like(view.t)),)
    listening = RecordingDenoiser(prior)
    ASD()(
        listening,
        listening,
        replace(view, conditions=replace(expected, text=replace(expected.text, perp_negatives=negative))),
    )
    (uncond, text), (later,) = listening.heard
    assert (uncond.perp_negatives, text.perp_negatives, later.perp_negatives) == ((), negative, ())
    assert later.text_embeds is text.text_embeds


def test_asd_rejects_plus_ratio_above_one() -> None:
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"plus_ratio is {share}; expected a share from 0 to 1"):
            ASD(plus_ratio=share)


# --- NFSD ---


def test_nfsd_switches_at_t_switch(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    uncond, text, negative, w = answers(prior, view)
    grad = NFSD(7.5)(prior, prior, view).grad
    low = w * (uncond + 7.5 * (text - uncond))
    high = w * (uncond - negative + 7.5 * (text - uncond))
    for place, step in enumerate(TIMES):
        torch.testing.assert_close(grad[place], (low if step < 200 else high)[place])


def test_nfsd_of_scale_one_is_the_text_prediction_at_low_t(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    _, text, _, w = answers(prior, view)
    torch.testing.assert_close(NFSD(1)(prior, prior, view).grad[:2], (w * text)[:2])


def test_nfsd_is_noise_free_above_t_switch() -> None:
    """Below it, w sigma^2 a of every drawn noise is left."""
    prior = equal_std_prior()
    for step in (100, 199, 200, 700):
        view = random_views(prior, 7, [step] * 20)
        view = replace(view, latents=torch.full_like(view.latents, 0.3))
        grad = NFSD()(prior, prior, view).grad
        alpha, sigma = (expand_like_latents(level) for level in prior.alpha_sigma(view.t))
        left = sigma**2 * sigma**2 / (alpha**2 * 0.64 + sigma**2) if step < 200 else torch.zeros_like(alpha)
        torch.testing.assert_close(grad - grad[:1], left * (view.noise - view.noise[:1]))


def test_nfsd_overshoot_matches_closed_form() -> None:
    place, slope = fixed_point(equal_std_prior(), NFSD())
    assert place == pytest.approx(164.56, abs=0.005)
    assert slope > 0


def test_nfsd_without_negative_prompt_equals_csd_above_t_switch(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    grad, classifier = (rule(prior, prior, without_negative(view)).grad for rule in (NFSD(7.5), CSD(7.5)))
    torch.testing.assert_close(grad[2:], classifier[2:])
    assert not torch.allclose(grad[:2], classifier[:2])


def test_nfsd_evaluates_the_negative_prompt_only_above_t_switch(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    for rows, calls in (([0, 1], 2), ([0, 2], 3), ([3], 3)):
        counted = CountingDenoiser(prior, [])
        NFSD()(counted, counted, view.select(torch.tensor(rows)))
        assert counted.calls == [calls]


def test_nfsd_rejects_t_switch_outside_the_schedule() -> None:
    with pytest.raises(ValueError, match=r"t_switch is 200; expected a time from 0 to 1"):
        NFSD(t_switch=200)
