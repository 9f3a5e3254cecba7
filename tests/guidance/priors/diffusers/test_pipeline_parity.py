"""Pipelines of others: their own code and ours draw the same pictures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from guidance.objectives.base import guided
from guidance.priors.base import per_view
from guidance.priors.diffusers.networks import packed
from guidance.priors.diffusers.prior import FamilyPrior
from guidance.priors.schedule import Flow
from tests.support.guidance.tiny_pipelines import SIZE, STEPS, TEXT, Open, ddim


@pytest.mark.parametrize("kind", ["sd", "sd-v", "sdxl", "pixart", "pixart-sigma"])
@torch.no_grad()
def test_ddim_draws_the_picture_of_the_pipeline(kind: str, opened: Open) -> None:
    it = opened(kind)
    noise = it.latents()
    theirs = it.drawn(guidance_scale=5.0, latents=noise.clone())
    ours = it.prior.decode(ddim(it.prior, noise, it.pipe.scheduler, 5.0)).clamp(0, 1)
    assert theirs.std() > 0.01
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


@torch.no_grad()
def test_deepfloyd_draws_the_picture_of_the_pipeline(opened: Open) -> None:
    """By the pipeline's own scheduler, which adds chance, thresholds, and here is told no variances."""
    from diffusers import DDPMScheduler

    it = opened("if")
    scheduler = DDPMScheduler.from_config(it.pipe.scheduler.config, variance_type="fixed_small")
    before, it.pipe.scheduler = it.pipe.scheduler, scheduler
    theirs = it.drawn(guidance_scale=5.0, generator=torch.Generator().manual_seed(1))
    it.pipe.scheduler = before
    chance = torch.Generator().manual_seed(1)
    x_t = torch.randn(1, 3, SIZE, SIZE, generator=chance) * scheduler.init_noise_sigma
    text, empty = it.prior.read([TEXT]), it.prior.read([""])
    scheduler.set_timesteps(STEPS)
    for step in scheduler.timesteps:
        answers = it.prior.predict(x_t, step.float()[None] / 999, [empty, text])
        x_t = scheduler.step(guided(answers[0], answers[1], 5.0), step, x_t, generator=chance).prev_sample
    torch.testing.assert_close(x_t, theirs, atol=2e-5, rtol=0)


@pytest.mark.parametrize("kind", ["sd3", "sd3-two", "flux", "flux-fast", "sana"])
@torch.no_grad()
def test_euler_draws_the_picture_of_the_pipeline(kind: str, opened: Open) -> None:
    """Steps of dx = v dsigma. They start a little below pure noise, where a noise answer says nothing of a flow."""
    it = opened(kind)
    noise, start = it.latents(), [0.98, 0.7, 0.4, 0.15]
    scale = 1.0 if kind.startswith("flux") else 5.0
    given: dict[str, Any] = {"guidance_scale": scale if scale > 1 else 3.5, "sigmas": start}
    if kind == "flux-fast":
        given |= {"max_sequence_length": 256}
    latents = noise.clone() if scale > 1 else packed(noise)
    theirs = it.drawn(latents=latents, **given)
    text, empty = it.prior.read([TEXT]), it.prior.read([""])
    sigmas = it.pipe.scheduler.sigmas
    times = fractions(it.prior, sigmas)
    x_t = noise
    for number, t in enumerate(times[:-1]):
        alpha, sigma = it.prior.levels(t[None])
        torch.testing.assert_close(sigma[0], sigmas[number])
        answers = it.prior.predict(x_t, t[None], [empty, text])
        answer = guided(answers[0], answers[1], scale)
        velocity = (answer - x_t) / per_view(alpha)
        x_t = x_t + (sigmas[number + 1] - sigma[0]) * velocity
    ours = it.prior.decode(x_t).clamp(0, 1)
    assert theirs.std() > 0.01
    torch.testing.assert_close(ours, theirs, atol=5e-5, rtol=0)


@torch.no_grad()
def test_the_solver_of_sana_draws_the_picture_of_the_pipeline(opened: Open) -> None:
    """By the solver that its public models come with, of second order; it cuts the times that it tells the network to
    whole thousandths, which ours are not, so here it does not."""
    it = opened("sana-solver")
    kind = type(it.pipe.scheduler)

    class Uncut(kind):  # type: ignore[misc, valid-type]
        def set_timesteps(self, *given: Any, **more: Any) -> None:
            super().set_timesteps(*given, **more)
            self.timesteps = self.sigmas[:-1] * 1000

    noise, it.pipe.scheduler = it.latents(), Uncut.from_config(it.pipe.scheduler.config)
    theirs = it.drawn(guidance_scale=5.0, latents=noise.clone())
    scheduler = Uncut.from_config(it.pipe.scheduler.config)
    scheduler.set_timesteps(STEPS)
    text, empty, x_t = it.prior.read([TEXT]), it.prior.read([""]), noise
    for step, t in zip(scheduler.timesteps, fractions(it.prior, scheduler.sigmas), strict=False):
        answers = it.prior.predict(x_t, t[None], [empty, text])
        velocity = (guided(answers[0], answers[1], 5.0) - x_t) / per_view(it.prior.levels(t[None])[0])
        x_t = scheduler.step(velocity, step, x_t).prev_sample
    ours = it.prior.decode(x_t).clamp(0, 1)
    assert theirs.std() > 0.01
    torch.testing.assert_close(ours, theirs, atol=5e-5, rtol=0)


def fractions(prior: FamilyPrior, sigmas: Tensor) -> Tensor:
    """The t at which a flow has these sigmas."""
    assert isinstance(prior.schedule, Flow)
    shift = prior.schedule.shift
    return sigmas / (shift - (shift - 1) * sigmas)
