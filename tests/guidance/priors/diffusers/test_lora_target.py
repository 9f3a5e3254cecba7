"""Critics on models of others."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from guidance.critics.lora import CriticConfig
from guidance.priors.diffusers.loading import load_diffusers_prior
from guidance.priors.diffusers.multiview.camera_embedding import CameraTimeEmbedding
from guidance.priors.diffusers.options import PriorOptions
from guidance.priors.diffusers.prior import copy_sharing_parameters
from tests.support.guidance.tiny_pipelines import CPU, SIZE, TEXT, LoadedPipeline, LoadPipeline


def test_lora_target_does_not_change_the_prior(pipeline: LoadedPipeline) -> None:
    prior, x_t, t = pipeline.prior, pipeline.latents(2), torch.tensor([0.3, 0.6])
    text = prior.encode_prompt([TEXT] * 2)
    with_camera = replace(text, camera=torch.tensor([[0.1, 0.2], [2.0, 0.3]]))
    before = prior.predict_noise(x_t, t, [text])
    names = [name for name, _ in prior.adapter.network.named_modules()]
    weights = {name: value.clone() for name, value in prior.adapter.network.state_dict().items()}

    critic = CriticConfig(rank=2).build(prior, torch.Generator().manual_seed(0))
    torch.testing.assert_close(critic.predict_noise(x_t, t, [with_camera]), before)  # It starts as the prior.
    for _ in range(3):
        critic.train_step(x_t, with_camera)
    learnt = critic.predict_noise(x_t, t, [with_camera, replace(text, camera=None)])
    assert (learnt[0] - before[0]).abs().max() > 1e-4
    assert (learnt[0] - learnt[1]).abs().max() > 1e-6  # It hears the camera.

    assert torch.equal(prior.predict_noise(x_t, t, [text]), before)
    assert [name for name, _ in prior.adapter.network.named_modules()] == names
    after = prior.adapter.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in weights.items())
    assert not any(parameter.requires_grad for parameter in prior.adapter.network.parameters())


@pytest.mark.parametrize("kind", ["sd", "flux"])
def test_lora_weights_are_float32_for_half_precision(kind: str, load_pipeline: LoadPipeline) -> None:
    it = load_pipeline(kind)
    prior = load_diffusers_prior(it.folder, CPU, PriorOptions(image_size=SIZE, precision="half"))
    critic = CriticConfig(rank=2).build(prior, torch.Generator().manual_seed(0))
    with_camera = replace(prior.encode_prompt([TEXT] * 2), camera=torch.zeros(2, 2))
    assert {weight.dtype for weight in critic.denoiser.trainable_parameters().values()} == {torch.float32}
    for _ in range(3):
        critic.train_step(it.latents(2), with_camera)
    assert all(weight.isfinite().all() for weight in critic.denoiser.trainable_parameters().values())
    assert prior.dtype == (torch.bfloat16 if kind == "flux" else torch.float16)


def test_lora_target_shares_parameters(load_pipeline: LoadPipeline) -> None:
    prior = load_pipeline("sd").prior
    network = copy_sharing_parameters(prior.adapter.network)
    assert {id(p) for p in network.parameters()} == {id(p) for p in prior.adapter.network.parameters()}
    assert not {id(m) for m in network.modules()} & {id(m) for m in prior.adapter.network.modules()}
    target = prior.lora_target()
    own = [p for p in target.network.parameters() if p.requires_grad]
    assert len(own) == 4 and isinstance(getattr(target.network, "time_embedding"), CameraTimeEmbedding)  # noqa: B009
