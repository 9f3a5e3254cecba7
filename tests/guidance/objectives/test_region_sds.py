"""Regions with texts of their own: each is pulled as if it were alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from guidance.objectives.base import RegionMasks, ViewBatch
from guidance.objectives.differences.region_sds import RegionSDS
from guidance.objectives.differences.sds import SDS
from guidance.priors.gaussian_mixture import GaussianMixturePrior
from guidance.testing.oracles import CountingDenoiser
from tests.support.guidance.gaussian_oracles import random_views

TEXTS = ("left", "right")


@pytest.fixture(scope="module")
def prior() -> GaussianMixturePrior:
    """Pictures of one channel, dark under one text and light under the other, of deviation 0.5."""
    means = torch.stack([torch.full((1, 4, 4), mean, dtype=torch.float64) for mean in (0.0, -1.0, 2.0)])
    stds = torch.tensor([1.0, 0.5, 0.5], dtype=torch.float64)
    return GaussianMixturePrior(
        means, stds, {"": (1, 0, 0), "left": (0, 1, 0), "right": (0, 0, 1), "y": (0, 1, 1), "odd": (1, 1, 0)}
    )


def half_masks(count: int) -> Tensor:
    """Left and right of 4 x 4 latents; the last row is of neither."""
    masks = torch.zeros(2, count, 4, 4, dtype=torch.float64)
    masks[0, :, :3, :2], masks[1, :, :3, 2:] = 1, 1
    return masks


def with_regions(
    prior: GaussianMixturePrior, view: ViewBatch, texts: tuple[str, ...] = TEXTS, masks: Tensor | None = None
) -> ViewBatch:
    conditions = tuple(prior.encode_prompt([text] * len(view.latents)) for text in texts)
    return replace(view, regions=RegionMasks(half_masks(len(view.latents)) if masks is None else masks, conditions))


@pytest.fixture(scope="module")
def view(prior: GaussianMixturePrior) -> ViewBatch:
    return with_regions(prior, random_views(prior, 1, [20, 200, 500, 980]))


def single_region_grad(prior: GaussianMixturePrior, view: ViewBatch, text: str, scale: float) -> Tensor:
    """The gradient of SDS towards one region's text."""
    expected = replace(view.conditions, text=prior.encode_prompt([text] * len(view.latents)))
    return SDS(scale)(prior, prior, replace(view, conditions=expected)).grad


@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_each_region_equals_sds_bit_exactly(prior: GaussianMixturePrior, view: ViewBatch, scale: float) -> None:
    grad = RegionSDS(scale)(prior, prior, view).grad
    assert torch.equal(grad[..., :3, :2], single_region_grad(prior, view, "left", scale)[..., :3, :2])
    assert torch.equal(grad[..., :3, 2:], single_region_grad(prior, view, "right", scale)[..., :3, 2:])
    assert bool((grad[..., 3, :] == 0).all())


def test_regions_ignore_other_texts(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    before, after = (RegionSDS()(prior, prior, v).grad for v in (view, with_regions(prior, view, ("left", "odd"))))
    assert torch.equal(before[..., :2], after[..., :2])
    assert not torch.allclose(before[..., :3, 2:], after[..., :3, 2:])


def test_mean_composition_is_the_sum_over_count(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    three = with_regions(prior, view, (*TEXTS, "y"), torch.cat([half_masks(4), half_masks(4)[:1]]))
    for views, count in ((view, 2), (three, 3)):
        summed, mean = (RegionSDS(composition=how)(prior, prior, views).grad for how in ("sum", "mean"))
        torch.testing.assert_close(mean, summed / count, rtol=1e-15, atol=0)


def test_overlapping_regions_add_up(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    everywhere = torch.ones(2, 4, 4, 4, dtype=torch.float64)
    grad = RegionSDS(3)(prior, prior, with_regions(prior, view, TEXTS, everywhere)).grad
    torch.testing.assert_close(
        grad, single_region_grad(prior, view, "left", 3) + single_region_grad(prior, view, "right", 3)
    )


def test_hidden_region_has_zero_grad(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    masks = half_masks(4)
    masks[0, 1] = 0
    grad = RegionSDS()(prior, prior, with_regions(prior, view, TEXTS, masks)).grad
    assert bool((grad[1, ..., :2] == 0).all())
    assert bool((grad[0, ..., :3, :2] != 0).all())


def test_regions_share_the_uncond_prediction(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    for count in (1, 2, 3):
        counted = CountingDenoiser(prior, [])
        RegionSDS()(
            counted, counted, with_regions(prior, view, (*TEXTS, "y")[:count], torch.ones(count, 4, 4, 4).double())
        )
        assert counted.calls == [1 + count]


def test_each_region_converges_to_its_text_mean(prior: GaussianMixturePrior) -> None:
    rng = torch.Generator().manual_seed(3)
    x = torch.randn(16, 1, 4, 4, generator=rng, dtype=torch.float64)
    start, base = x, with_regions(prior, random_views(prior, 4, [500] * 16))
    for number in range(400):
        noise = torch.randn(x.shape, generator=rng, dtype=torch.float64)
        t = 0.02 + 0.96 * torch.rand(len(x), generator=rng, dtype=torch.float64)
        update = RegionSDS(1)(prior, prior, replace(base, latents=x, noise=noise, t=t))
        x = x - 2.0 / (1 + number / 10) * update.grad
    assert float(x[..., :3, :2].mean()) == pytest.approx(-1, abs=0.02)
    assert float(x[..., :3, 2:].mean()) == pytest.approx(2, abs=0.02)
    assert torch.equal(x[..., 3, :], start[..., 3, :])


def test_rejects_batches_without_regions(prior: GaussianMixturePrior, view: ViewBatch) -> None:
    with pytest.raises(ValueError, match="composes regions, and the view has none"):
        RegionSDS()(prior, prior, replace(view, regions=None))
    changed = RegionSDS()
    object.__setattr__(changed, "composition", "average")
    with pytest.raises(ValueError, match=r"unknown composition 'average'; \(known: sum, mean\)"):
        changed.__post_init__()
