"""What a model of others answers, in how many passes, and in which precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from guidance.priors.base import Prior
from guidance.priors.diffusers.loading import load_diffusers_prior, weights_dtype
from guidance.priors.diffusers.options import PriorOptions
from guidance.priors.diffusers.prior import DiffusersPrior
from tests.support.guidance.tiny_pipelines import CPU, SIZE, TEXT, LoadedPipeline, LoadPipeline


def test_implements_prior(pipeline: LoadedPipeline) -> None:
    assert (
        isinstance(pipeline.prior, Prior)
        and not pipeline.prior.camera_conditioned
        and pipeline.prior.image_size == SIZE
    )
    assert pipeline.prior.guidance_distilled == (pipeline.kind == "flux")


def test_batched_conditions_equal_single_ones(pipeline: LoadedPipeline) -> None:
    prior, x_t, t = pipeline.prior, pipeline.latents(2), torch.tensor([0.3, 0.8])
    first, second = prior.encode_prompt([TEXT, "a horse"]), prior.encode_prompt(["", ""])
    together = prior.predict_noise(x_t, t, [first, second])
    assert together.shape == (2, *x_t.shape) and together.dtype == torch.float32
    for place, condition in enumerate((first, second)):
        torch.testing.assert_close(together[place], prior.predict_noise(x_t, t, [condition])[0], atol=1e-5, rtol=1e-4)
    alone = prior.predict_noise(x_t[1:], t[1:], [first.select(torch.tensor([1]))])[0]
    torch.testing.assert_close(together[0, 1:], alone, atol=1e-5, rtol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-4


def test_max_batch_does_not_change_the_output(pipeline: LoadedPipeline) -> None:
    prior, x_t, t = pipeline.prior, pipeline.latents(3), torch.tensor([0.2, 0.5, 0.7])
    conditions = [prior.encode_prompt([TEXT] * 3), prior.encode_prompt([""] * 3)]
    whole = prior.predict_noise(x_t, t, conditions)
    few = DiffusersPrior(
        prior.adapter, prior.schedule, prior.prediction_type, prior.codec, prior.prompt_encoder, SIZE, max_batch=2
    )
    torch.testing.assert_close(few.predict_noise(x_t, t, conditions), whole, atol=1e-5, rtol=1e-4)


def test_out_of_memory_halves_the_batch(load_pipeline: LoadPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    it = load_pipeline("sd")
    prior, x_t, t = it.prior, it.latents(4), torch.tensor([0.2, 0.5, 0.7, 0.9])
    expected = prior.predict_noise(x_t, t, [prior.encode_prompt([TEXT] * 4)])
    small = DiffusersPrior(
        prior.adapter, prior.schedule, prior.prediction_type, prior.codec, prior.prompt_encoder, SIZE
    )
    noise_pred, most = type(prior.adapter).forward, 1

    def short(self: Any, question: Any) -> Tensor:
        if len(question.x_t) > most:
            raise torch.OutOfMemoryError
        return noise_pred(self, question)

    monkeypatch.setattr(type(prior.adapter), "forward", short)
    with pytest.warns(UserWarning, match="the memory ran out: from here on 1 pictures in a pass"):
        result = small.predict_noise(x_t, t, [prior.encode_prompt([TEXT] * 4)])
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-4)
    most = 0
    with pytest.raises(torch.OutOfMemoryError):
        small.predict_noise(x_t, t, [prior.encode_prompt([TEXT] * 4)])


def test_grad_reaches_the_pixels(pipeline: LoadedPipeline) -> None:
    rgb = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)).requires_grad_()
    latents = pipeline.prior.encode(rgb)
    (grad,) = torch.autograd.grad(latents.square().sum(), rgb)
    assert latents.dtype == torch.float32 and grad.isfinite().all() and grad.abs().max() > 0
    torch.testing.assert_close(pipeline.prior.encode(rgb), latents)  # The mean, not a draw.


def test_encode_matches_the_pipeline(load_pipeline: LoadPipeline) -> None:
    for kind in ("sd", "sd3"):
        it = load_pipeline(kind)
        rgb = torch.rand(1, 3, SIZE, SIZE)
        mean = it.pipe.vae.encode(rgb * 2 - 1).latent_dist.mean
        expected = (mean - (it.pipe.vae.config.shift_factor or 0)) * it.pipe.vae.config.scaling_factor
        torch.testing.assert_close(it.prior.encode(rgb), expected)
    vae = load_pipeline("sana").pipe.vae
    torch.testing.assert_close(load_pipeline("sana").prior.encode(rgb), vae.encode(rgb * 2 - 1).latent * 0.41407)


def test_pixel_codec_round_trip(load_pipeline: LoadPipeline) -> None:
    rgb = torch.rand(1, 3, SIZE, SIZE)
    torch.testing.assert_close(load_pipeline("if").prior.decode(load_pipeline("if").prior.encode(rgb)), rgb)


def test_rejects_image_sizes_not_divisible_by_the_vae_factor(load_pipeline: LoadPipeline) -> None:
    with pytest.raises(ValueError, match="33 x 32; this model takes multiples of 2"):
        load_pipeline("sd").prior.encode(torch.rand(1, 3, 32, 33))


def test_half_precision_outputs_float32(load_pipeline: LoadPipeline) -> None:
    it = load_pipeline("sd")
    half = load_diffusers_prior(it.folder, CPU, PriorOptions(image_size=SIZE, precision="half"))
    x_t, t = it.latents(2), torch.tensor([0.3, 0.8])
    assert half.dtype == torch.float16 and half.encode(torch.rand(1, 3, SIZE, SIZE)).dtype == torch.float32
    noise_pred = half.predict_noise(x_t, t, [half.encode_prompt([TEXT] * 2)])
    assert noise_pred.dtype == torch.float32
    torch.testing.assert_close(
        noise_pred, it.prior.predict_noise(x_t, t, [it.prior.encode_prompt([TEXT] * 2)]), atol=5e-3, rtol=1e-2
    )


def test_weights_dtype_by_device() -> None:
    cuda, auto = torch.device("cuda"), PriorOptions()
    assert weights_dtype("StableDiffusionPipeline", CPU, auto) == torch.float32
    assert weights_dtype("StableDiffusionPipeline", cuda, auto) == torch.float16
    assert {weights_dtype(f"{name}Pipeline", cuda, auto) for name in ("Flux", "Sana", "IF")} == {torch.bfloat16}
    assert weights_dtype("StableDiffusionPipeline", cuda, PriorOptions(precision="full")) == torch.float32
