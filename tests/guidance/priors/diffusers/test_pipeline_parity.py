"""Pipelines of others: their own code and ours draw the same pictures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from guidance.priors.base import expand_like_latents
from guidance.priors.cfg import classifier_free_guidance
from guidance.priors.diffusers.networks import pack_latents
from guidance.priors.diffusers.prior import DiffusersPrior
from guidance.priors.schedule import RectifiedFlowSchedule
from tests.support.guidance.tiny_pipelines import SIZE, STEPS, TEXT, LoadPipeline, sample_ddim_reference


@pytest.mark.parametrize("kind", ["sd", "sd-v", "sdxl", "pixart", "pixart-sigma"])
@torch.no_grad()
def test_ddim_matches_the_pipeline(kind: str, load_pipeline: LoadPipeline) -> None:
    it = load_pipeline(kind)
    noise = it.latents()
    theirs = it.pipeline_image(guidance_scale=5.0, latents=noise.clone())
    ours = it.prior.decode(sample_ddim_reference(it.prior, noise, it.pipe.scheduler, 5.0)).clamp(0, 1)
    assert theirs.std() > 0.01
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


@torch.no_grad()
def test_deepfloyd_matches_the_pipeline(load_pipeline: LoadPipeline) -> None:
    """By the pipeline's own scheduler, which adds chance, thresholds, and here is told no variances."""
    from diffusers import DDPMScheduler

    it = load_pipeline("if")
    scheduler = DDPMScheduler.from_config(it.pipe.scheduler.config, variance_type="fixed_small")
    before, it.pipe.scheduler = it.pipe.scheduler, scheduler
    theirs = it.pipeline_image(guidance_scale=5.0, generator=torch.Generator().manual_seed(1))
    it.pipe.scheduler = before
    rng = torch.Generator().manual_seed(1)
    x_t = torch.randn(1, 3, SIZE, SIZE, generator=rng) * scheduler.init_noise_sigma
    text, uncond = it.prior.encode_prompt([TEXT]), it.prior.encode_prompt([""])
    scheduler.set_timesteps(STEPS)
    for step in scheduler.timesteps:
        noise_preds = it.prior.predict_noise(x_t, step.float()[None] / 999, [uncond, text])
        x_t = scheduler.step(
            classifier_free_guidance(noise_preds[0], noise_preds[1], 5.0), step, x_t, generator=rng
        ).prev_sample
    torch.testing.assert_close(x_t, theirs, atol=2e-5, rtol=0)


@pytest.mark.parametrize("kind", ["sd3", "sd3-two", "flux", "flux-fast", "sana"])
@torch.no_grad()
def test_euler_matches_the_pipeline(kind: str, load_pipeline: LoadPipeline) -> None:
    """Steps of dx = v dsigma. They start a little below pure noise, where a noise answer says nothing of a flow."""
    it = load_pipeline(kind)
    noise, start = it.latents(), [0.98, 0.7, 0.4, 0.15]
    scale = 1.0 if kind.startswith("flux") else 5.0
    kwargs: dict[str, Any] = {"guidance_scale": scale if scale > 1 else 3.5, "sigmas": start}
    if kind == "flux-fast":
        kwargs |= {"max_sequence_length": 256}
    latents = noise.clone() if scale > 1 else pack_latents(noise)
    theirs = it.pipeline_image(latents=latents, **kwargs)
    text, uncond = it.prior.encode_prompt([TEXT]), it.prior.encode_prompt([""])
    sigmas = it.pipe.scheduler.sigmas
    times = t_from_sigmas(it.prior, sigmas)
    x_t = noise
    for number, t in enumerate(times[:-1]):
        alpha, sigma = it.prior.alpha_sigma(t[None])
        torch.testing.assert_close(sigma[0], sigmas[number])
        noise_preds = it.prior.predict_noise(x_t, t[None], [uncond, text])
        noise_pred = classifier_free_guidance(noise_preds[0], noise_preds[1], scale)
        velocity = (noise_pred - x_t) / expand_like_latents(alpha)
        x_t = x_t + (sigmas[number + 1] - sigma[0]) * velocity
    ours = it.prior.decode(x_t).clamp(0, 1)
    assert theirs.std() > 0.01
    torch.testing.assert_close(ours, theirs, atol=5e-5, rtol=0)


@torch.no_grad()
def test_sana_solver_matches_the_pipeline(load_pipeline: LoadPipeline) -> None:
    """By the solver that its public models come with, of second order; it cuts the times that it tells the network to
    whole thousandths, which ours are not, so here it does not."""
    it = load_pipeline("sana-solver")
    kind = type(it.pipe.scheduler)

    class Uncut(kind):  # type: ignore[misc, valid-type]
        def set_timesteps(self, *given: Any, **more: Any) -> None:
            super().set_timesteps(*given, **more)
            self.timesteps = self.sigmas[:-1] * 1000

    noise, it.pipe.scheduler = it.latents(), Uncut.from_config(it.pipe.scheduler.config)
    theirs = it.pipeline_image(guidance_scale=5.0, latents=noise.clone())
    scheduler = Uncut.from_config(it.pipe.scheduler.config)
    scheduler.set_timesteps(STEPS)
    text, uncond, x_t = it.prior.encode_prompt([TEXT]), it.prior.encode_prompt([""]), noise
    for step, t in zip(scheduler.timesteps, t_from_sigmas(it.prior, scheduler.sigmas), strict=False):
        noise_preds = it.prior.predict_noise(x_t, t[None], [uncond, text])
        velocity = (classifier_free_guidance(noise_preds[0], noise_preds[1], 5.0) - x_t) / expand_like_latents(
            it.prior.alpha_sigma(t[None])[0]
        )
        x_t = scheduler.step(velocity, step, x_t).prev_sample
    ours = it.prior.decode(x_t).clamp(0, 1)
    assert theirs.std() > 0.01
    torch.testing.assert_close(ours, theirs, atol=5e-5, rtol=0)


def t_from_sigmas(prior: DiffusersPrior, sigmas: Tensor) -> Tensor:
    """The t at which a flow has these sigmas."""
    assert isinstance(prior.schedule, RectifiedFlowSchedule)
    shift = prior.schedule.shift
    return sigmas / (shift - (shift - 1) * sigmas)
