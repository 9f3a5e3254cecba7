"""Schedules, patches and codecs: as diffusers has them."""

from __future__ import annotations

import pytest
import torch

from guidance.priors.base import expand_like_latents
from guidance.priors.diffusers.codecs import VAECodec
from guidance.priors.diffusers.networks import guidance_scale_embedding, latent_image_ids, pack_latents, unpack_latents
from guidance.priors.diffusers.schedules import DiscreteSchedule, to_noise_pred
from guidance.priors.schedule import RectifiedFlowSchedule
from tests.support.guidance.tiny_pipelines import CPU, LoadPipeline


@pytest.mark.parametrize("kind", ["sd", "sd-v", "sdxl", "if", "pixart"])
def test_discrete_schedule_matches_diffusers(kind: str, load_pipeline: LoadPipeline) -> None:
    it = load_pipeline(kind)
    alpha, sigma = it.prior.alpha_sigma(torch.arange(1000, dtype=torch.float64) / 999)
    square = it.pipe.scheduler.alphas_cumprod.double()
    torch.testing.assert_close(alpha.square(), square, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(alpha.square() + sigma.square(), torch.ones(1000, dtype=torch.float64))


def test_fixed_shift_matches_diffusers(load_pipeline: LoadPipeline) -> None:
    it = load_pipeline("sd3")
    from diffusers import FlowMatchEulerDiscreteScheduler

    theirs = FlowMatchEulerDiscreteScheduler.from_config(it.pipe.scheduler.config)
    _, sigma = it.prior.alpha_sigma(torch.arange(1000, 0, -1) / 1000)
    torch.testing.assert_close(sigma, theirs.sigmas)


def test_solver_flow_sigmas_match_diffusers(load_pipeline: LoadPipeline) -> None:
    it = load_pipeline("sana-solver")
    scheduler = type(it.pipe.scheduler).from_config(it.pipe.scheduler.config)
    scheduler.set_timesteps(10)
    _, sigma = it.prior.alpha_sigma(torch.linspace(0.999, 0, 11))
    torch.testing.assert_close(sigma, scheduler.sigmas)


def test_a_schedule_that_ends_in_pure_noise_stays_finite() -> None:
    table = DiscreteSchedule(torch.tensor([0.9, 0.5, 0.0], dtype=torch.float64))
    alpha, sigma = table.alpha_sigma(torch.linspace(0, 1, 9))
    assert alpha.isfinite().all() and (alpha > 0).all() and (alpha.diff() < 0).all() and (sigma <= 1).all()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample", "flow"])
def test_to_noise_pred_for_every_prediction_type(prediction: str) -> None:
    rng = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 3, 1, 4, 4, generator=rng, dtype=torch.float64)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    levels = RectifiedFlowSchedule(3.0).alpha_sigma(t) if prediction == "flow" else (t.cos(), t.sin())
    alpha, sigma = map(expand_like_latents, levels)
    text = {"epsilon": noise, "v_prediction": alpha * noise - sigma * x, "sample": x, "flow": noise - x}[prediction]
    torch.testing.assert_close(to_noise_pred(text, alpha * x + sigma * noise, prediction, alpha, sigma), noise)


def test_pack_latents_matches_diffusers() -> None:
    from diffusers import FluxPipeline

    x = torch.randn(2, 4, 6, 8)
    torch.testing.assert_close(pack_latents(x), FluxPipeline._pack_latents(x, 2, 4, 6, 8))
    torch.testing.assert_close(unpack_latents(pack_latents(x), 6, 8), x)
    torch.testing.assert_close(
        latent_image_ids(3, 4), FluxPipeline._prepare_latent_image_ids(1, 3, 4, CPU, torch.float32)
    )


def test_guidance_scale_embedding_matches_diffusers() -> None:
    from diffusers import LatentConsistencyModelPipeline

    theirs = LatentConsistencyModelPipeline.get_guidance_scale_embedding
    expected = theirs(None, torch.tensor([7.5]), embedding_dim=16)
    torch.testing.assert_close(guidance_scale_embedding(7.5, 16), expected)


def test_tiny_vae_returns_latents_directly() -> None:
    from diffusers import AutoencoderTiny

    vae = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )
    codec, rgb = VAECodec.from_vae(vae), torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(codec.encode(rgb), vae.encode(rgb * 2 - 1).latents)
    assert codec.decode(codec.encode(rgb)).shape == rgb.shape
