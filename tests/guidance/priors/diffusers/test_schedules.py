"""Schedules, patches and codecs: as diffusers has them."""

from __future__ import annotations

import pytest
import torch

from guidance.priors.base import per_view
from guidance.priors.diffusers.codecs import Autoencoder
from guidance.priors.diffusers.networks import guidance_waves, packed, places, unpacked
from guidance.priors.diffusers.schedules import Table, noise_of
from guidance.priors.schedule import Flow
from tests.support.guidance.tiny_pipelines import CPU, Open


@pytest.mark.parametrize("kind", ["sd", "sd-v", "sdxl", "if", "pixart"])
def test_tables_are_those_of_diffusers(kind: str, opened: Open) -> None:
    it = opened(kind)
    alpha, sigma = it.prior.levels(torch.arange(1000, dtype=torch.float64) / 999)
    square = it.pipe.scheduler.alphas_cumprod.double()
    torch.testing.assert_close(alpha.square(), square, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(alpha.square() + sigma.square(), torch.ones(1000, dtype=torch.float64))


def test_the_fixed_flow_is_that_of_diffusers(opened: Open) -> None:
    it = opened("sd3")
    from diffusers import FlowMatchEulerDiscreteScheduler

    theirs = FlowMatchEulerDiscreteScheduler.from_config(it.pipe.scheduler.config)
    _, sigma = it.prior.levels(torch.arange(1000, 0, -1) / 1000)
    torch.testing.assert_close(sigma, theirs.sigmas)


def test_the_flow_of_a_solver_is_that_of_diffusers(opened: Open) -> None:
    it = opened("sana-solver")
    scheduler = type(it.pipe.scheduler).from_config(it.pipe.scheduler.config)
    scheduler.set_timesteps(10)
    _, sigma = it.prior.levels(torch.linspace(0.999, 0, 11))
    torch.testing.assert_close(sigma, scheduler.sigmas)


def test_a_schedule_that_ends_in_pure_noise_stays_finite() -> None:
    table = Table(torch.tensor([0.9, 0.5, 0.0], dtype=torch.float64))
    alpha, sigma = table.levels(torch.linspace(0, 1, 9))
    assert alpha.isfinite().all() and (alpha > 0).all() and (alpha.diff() < 0).all() and (sigma <= 1).all()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample", "flow"])
def test_whatever_a_network_says_its_noise_is_found(prediction: str) -> None:
    chance = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 3, 1, 4, 4, generator=chance, dtype=torch.float64)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    levels = Flow(3.0).levels(t) if prediction == "flow" else (t.cos(), t.sin())
    alpha, sigma = map(per_view, levels)
    said = {"epsilon": noise, "v_prediction": alpha * noise - sigma * x, "sample": x, "flow": noise - x}[prediction]
    torch.testing.assert_close(noise_of(said, alpha * x + sigma * noise, prediction, alpha, sigma), noise)


def test_patches_are_those_of_diffusers() -> None:
    from diffusers import FluxPipeline

    x = torch.randn(2, 4, 6, 8)
    torch.testing.assert_close(packed(x), FluxPipeline._pack_latents(x, 2, 4, 6, 8))
    torch.testing.assert_close(unpacked(packed(x), 6, 8), x)
    torch.testing.assert_close(places(3, 4), FluxPipeline._prepare_latent_image_ids(1, 3, 4, CPU, torch.float32))


def test_waves_of_guidance_are_those_of_diffusers() -> None:
    from diffusers import LatentConsistencyModelPipeline

    theirs = LatentConsistencyModelPipeline.get_guidance_scale_embedding
    wanted = theirs(None, torch.tensor([7.5]), embedding_dim=16)
    torch.testing.assert_close(guidance_waves(7.5, 16), wanted)


def test_a_tiny_autoencoder_says_latents_themselves() -> None:
    from diffusers import AutoencoderTiny

    vae = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )
    codec, rgb = Autoencoder.of(vae), torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(codec.encode(rgb), vae.encode(rgb * 2 - 1).latents)
    assert codec.decode(codec.encode(rgb)).shape == rgb.shape
