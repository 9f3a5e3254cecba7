"""Regions with texts of their own: each is pulled as if it were alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from guidance.objectives.base import Regions, View
from guidance.objectives.differences.region_sds import RegionSDS
from guidance.objectives.differences.sds import SDS
from guidance.priors.gaussian_mixture import ToyPrior
from guidance.testing.oracles import Counted
from tests.support.guidance.gaussian_oracles import random_look

TEXTS = ("left", "right")


@pytest.fixture(scope="module")
def prior() -> ToyPrior:
    """Pictures of one channel, dark under one text and light under the other, of deviation 0.5."""
    means = torch.stack([torch.full((1, 4, 4), mean, dtype=torch.float64) for mean in (0.0, -1.0, 2.0)])
    deviations = torch.tensor([1.0, 0.5, 0.5], dtype=torch.float64)
    return ToyPrior(
        means, deviations, {"": (1, 0, 0), "left": (0, 1, 0), "right": (0, 0, 1), "y": (0, 1, 1), "odd": (1, 1, 0)}
    )


def halves(count: int) -> Tensor:
    """Left and right of 4 x 4 latents; the last row is of neither."""
    masks = torch.zeros(2, count, 4, 4, dtype=torch.float64)
    masks[0, :, :3, :2], masks[1, :, :3, 2:] = 1, 1
    return masks


def divided(prior: ToyPrior, view: View, texts: tuple[str, ...] = TEXTS, masks: Tensor | None = None) -> View:
    conditions = tuple(prior.read([text] * len(view.x)) for text in texts)
    return replace(view, regions=Regions(halves(len(view.x)) if masks is None else masks, conditions))


@pytest.fixture(scope="module")
def view(prior: ToyPrior) -> View:
    return divided(prior, random_look(prior, 1, [20, 200, 500, 980]))


def alone(prior: ToyPrior, view: View, text: str, scale: float) -> Tensor:
    """The gradient of SDS towards one region's text."""
    wanted = replace(view.wanted, text=prior.read([text] * len(view.x)))
    return SDS(scale)(prior, prior, replace(view, wanted=wanted)).gradient


@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_each_region_is_pulled_as_by_sds_to_the_bit(prior: ToyPrior, view: View, scale: float) -> None:
    gradient = RegionSDS(scale)(prior, prior, view).gradient
    assert torch.equal(gradient[..., :3, :2], alone(prior, view, "left", scale)[..., :3, :2])
    assert torch.equal(gradient[..., :3, 2:], alone(prior, view, "right", scale)[..., :3, 2:])
    assert bool((gradient[..., 3, :] == 0).all())


def test_a_region_hears_nothing_of_another_s_text(prior: ToyPrior, view: View) -> None:
    before, after = (RegionSDS()(prior, prior, v).gradient for v in (view, divided(prior, view, ("left", "odd"))))
    assert torch.equal(before[..., :2], after[..., :2])
    assert not torch.allclose(before[..., :3, 2:], after[..., :3, 2:])


def test_the_mean_is_the_sum_by_their_number(prior: ToyPrior, view: View) -> None:
    three = divided(prior, view, (*TEXTS, "y"), torch.cat([halves(4), halves(4)[:1]]))
    for look, count in ((view, 2), (three, 3)):
        summed, mean = (RegionSDS(composition=how)(prior, prior, look).gradient for how in ("sum", "mean"))
        torch.testing.assert_close(mean, summed / count, rtol=1e-15, atol=0)


def test_where_regions_overlap_both_pull(prior: ToyPrior, view: View) -> None:
    everywhere = torch.ones(2, 4, 4, 4, dtype=torch.float64)
    gradient = RegionSDS(3)(prior, prior, divided(prior, view, TEXTS, everywhere)).gradient
    torch.testing.assert_close(gradient, alone(prior, view, "left", 3) + alone(prior, view, "right", 3))


def test_a_region_hidden_from_a_view_does_not_pull_it(prior: ToyPrior, view: View) -> None:
    masks = halves(4)
    masks[0, 1] = 0
    gradient = RegionSDS()(prior, prior, divided(prior, view, TEXTS, masks)).gradient
    assert bool((gradient[1, ..., :2] == 0).all())
    assert bool((gradient[0, ..., :3, :2] != 0).all())


def test_the_regions_share_the_answer_to_no_prompt(prior: ToyPrior, view: View) -> None:
    for count in (1, 2, 3):
        counted = Counted(prior, [])
        RegionSDS()(counted, counted, divided(prior, view, (*TEXTS, "y")[:count], torch.ones(count, 4, 4, 4).double()))
        assert counted.asked == [1 + count]


def test_each_region_comes_to_the_mean_of_its_text(prior: ToyPrior) -> None:
    chance = torch.Generator().manual_seed(3)
    x = torch.randn(16, 1, 4, 4, generator=chance, dtype=torch.float64)
    start, base = x, divided(prior, random_look(prior, 4, [500] * 16))
    for number in range(400):
        noise = torch.randn(x.shape, generator=chance, dtype=torch.float64)
        t = 0.02 + 0.96 * torch.rand(len(x), generator=chance, dtype=torch.float64)
        update = RegionSDS(1)(prior, prior, replace(base, x=x, noise=noise, t=t))
        x = x - 2.0 / (1 + number / 10) * update.gradient
    assert float(x[..., :3, :2].mean()) == pytest.approx(-1, abs=0.02)
    assert float(x[..., :3, 2:].mean()) == pytest.approx(2, abs=0.02)
    assert torch.equal(x[..., 3, :], start[..., 3, :])


def test_a_view_without_regions_is_refused(prior: ToyPrior, view: View) -> None:
    with pytest.raises(ValueError, match="composes regions, and the view has none"):
        RegionSDS()(prior, prior, replace(view, regions=None))
    changed = RegionSDS()
    object.__setattr__(changed, "composition", "average")
    with pytest.raises(ValueError, match=r"unknown composition 'average'; \(known: sum, mean\)"):
        changed.__post_init__()
